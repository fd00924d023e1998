"""What is on disk: read back bit for bit, refused in one line where it is wrong, never half written."""

import json
import math
import os
import re

import numpy as np
import pytest
import safetensors.numpy

from tinytransformer.checkpoint import (
    CheckpointError,
    RunConfig,
    append_metrics,
    load_config,
    load_model,
    load_state,
    load_weights,
    save_config,
    save_state,
    save_weights,
)
from tinytransformer.optim import Adam
from tinytransformer.reading import digest
from tinytransformer.tokenizer import VocabularyError


@pytest.fixture
def run(tmp_path, make_model, tokenizer):
    """A directory that holds a model with random weights; returns the directory and the model."""
    model = make_model(len(tokenizer), dtype=np.float32, dropout=0.25, activation="gelu")
    save_config(tmp_path, RunConfig(model.config, 1.25, {"steps": 7, "name": "Größe"}))
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    save_weights(tmp_path / "model.safetensors", model)
    return tmp_path, model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_a_model_is_read_back_bit_for_bit(tmp_path, make_model, tokenizer, tied, positions):
    model = make_model(len(tokenizer), dtype=np.float32, tied_embeddings=tied, positions=positions)
    config = RunConfig(model.config, 1.25, {"steps": 7, "name": "Größe"})
    save_config(tmp_path, config)
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    save_weights(tmp_path / "model.safetensors", model)

    again, words, loaded = load_model(tmp_path)
    assert loaded == config
    assert words.model == tokenizer.model
    assert again.parameters.data.dtype == np.float32
    assert again.parameters.data.tobytes() == model.parameters.data.tobytes()
    ids = np.array([[4, 5, 6]])
    np.testing.assert_array_equal(again(ids, ids).data, model(ids, ids).data)


def test_the_weights_have_the_names_of_the_parameters(run):
    """Any program that reads safetensors finds them, in C order."""
    directory, model = run
    arrays = safetensors.numpy.load_file(directory / "model.safetensors")
    assert arrays.keys() == model.parameters.named.keys()
    for name, parameter in model.parameters.named.items():
        np.testing.assert_array_equal(arrays[name], parameter.data)


def test_the_same_weights_give_the_same_bytes(run):
    directory, model = run
    before = (directory / "model.safetensors").read_bytes()
    save_weights(directory / "model.safetensors", load_model(directory)[0])
    assert (directory / "model.safetensors").read_bytes() == before
    model.parameters.data[0] += 1
    save_weights(directory / "model.safetensors", model)
    assert (directory / "model.safetensors").read_bytes() != before


def test_a_path_may_be_any_bytes(run):
    directory, model = run
    path = os.fsdecode("t\u00e4".encode() + b"\xff.en")
    save_config(directory, RunConfig(model.config, 1.25, {"source": path}))
    assert load_config(directory).training == {"source": path}


def test_the_configuration_is_json_that_people_can_read(run):
    directory, model = run
    text = (directory / "config.json").read_text(encoding="utf-8")
    assert '"name": "Größe"' in text
    fields = json.loads(text)
    assert fields["format"] == 1
    assert fields["model"]["width"] == model.config.width
    assert text.endswith("}\n")


BAD_CONFIGS = {
    "wrong type": (lambda f: f["model"].update(width="8"), "width is '8', expected int"),
    "fraction": (lambda f: f["model"].update(heads=2.0), "heads is 2.0, expected int"),
    "number for bool": (lambda f: f["model"].update(tied_embeddings=1), "tied_embeddings is 1, expected bool"),
    "bool for number": (lambda f: f["model"].update(encoder_layers=True), "encoder_layers is True, expected int"),
    "null": (lambda f: f["model"].update(dropout=None), "dropout is None, expected float"),
    "missing field": (lambda f: f["model"].pop("source_vocabulary"), "source_vocabulary"),
    "unknown field": (lambda f: f["model"].update(colour=3), "colour"),
    "missing part": (lambda f: f.pop("model"), "the field 'model' is missing"),
    "missing ratio": (lambda f: f.pop("length_ratio"), "the field 'length_ratio' is missing"),
    "missing record": (lambda f: f.pop("training"), "the field 'training' is missing"),
    "zero": (lambda f: f["model"].update(width=0), "width is 0, expected at least 1"),
    "dropout": (lambda f: f["model"].update(dropout=1.0), "dropout is 1.0, expected 0 <= dropout < 1"),
    "norm": (lambda f: f["model"].update(norm="no"), "norm is 'no', expected one of: pre, post"),
    "heads": (lambda f: f["model"].update(heads=3), "width is 8, expected an even number that its 3 heads divide"),
    "tied": (lambda f: f["model"].update(tied_embeddings=True, source_vocabulary=9), "needs one vocabulary"),
    "model is a list": (lambda f: f.update(model=[1]), "model holds no source_vocabulary and target_vocabulary"),
    "ratio is text": (lambda f: f.update(length_ratio="long"), "'long'"),
    "ratio is null": (
        lambda f: f.update(length_ratio=None),
        "length_ratio is None, expected a number from 0 to max_length, 1024",
    ),
    "ratio is not finite": (lambda f: f.update(length_ratio=float("nan")), "length_ratio"),
    "ratio is infinite": (lambda f: f.update(length_ratio=float("inf")), "length_ratio"),
    "ratio is negative": (lambda f: f.update(length_ratio=-1.0), "length_ratio"),
    "later format": (lambda f: f.update(format=2), "format"),
}


def assert_refused(directory, name, words):
    """Loading raises one line that begins with the file and holds `words`."""
    with pytest.raises(CheckpointError) as caught:
        load_model(directory)
    message = str(caught.value)
    assert message.startswith(f"{directory / name}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(("change", "words"), BAD_CONFIGS.values(), ids=BAD_CONFIGS)
def test_a_wrong_configuration_is_refused(run, change, words):
    directory, _ = run
    fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    change(fields)
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    assert_refused(directory, "config.json", words)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff{}", b'{"model": {}}'])
def test_what_is_no_configuration_is_refused(run, content):
    directory, _ = run
    (directory / "config.json").write_bytes(content)
    assert_refused(directory, "config.json", "")


def test_tokenizer_and_configuration_have_to_agree(run, tokenizer):
    directory, _ = run
    fields = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    fields["model"]["target_vocabulary"] = 9
    (directory / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    words = f"config.json has target_vocabulary 9, but tokenizer.model has {len(tokenizer)} pieces"
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(directory))}: {words}$"):
        load_model(directory)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "DIR holds no trained model; run first: python train.py"),
        ("model.safetensors", "DIR/model.safetensors does not exist; the first validation writes it"),
    ],
)
def test_a_missing_file_is_named(run, name, words):
    directory, _ = run
    (directory / name).unlink()
    with pytest.raises(CheckpointError, match=f"^{re.escape(words.replace('DIR', str(directory)))}"):
        load_model(directory)


def test_a_missing_state_is_named_with_what_to_do(run):
    directory, model = run
    optimizer = Adam(model.parameters)
    words = " does not exist: nothing was saved yet, so begin again with --overwrite$"
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(directory / 'state.safetensors'))}{words}"):
        load_state(directory, optimizer)
    save_state(directory, optimizer, {"step": 3})
    assert load_state(directory, optimizer) == {"step": 3}


def test_a_damaged_tokenizer_is_named(run):
    directory, _ = run
    (directory / "tokenizer.model").write_bytes(b"no")
    with pytest.raises(VocabularyError, match=re.escape(str(directory / "tokenizer.model"))):
        load_model(directory)


@pytest.mark.parametrize("kept", [0, 7, 200, -1, -100])
def test_truncated_weights_are_refused(run, kept):
    directory, _ = run
    content = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(content[:kept])
    assert_refused(directory, "model.safetensors", "")


def test_weights_of_a_type_that_numpy_lacks_are_refused(run):
    """PyTorch writes bfloat16, for which NumPy has no name."""
    directory, model = run
    header, content = {}, b"\0\0" * model.parameters.data.size
    for name, parameter in model.parameters.named.items():
        start = sum(math.prod(entry["shape"]) * 2 for entry in header.values())
        offsets = [start, start + 2 * parameter.data.size]
        header[name] = {"dtype": "BF16", "shape": list(parameter.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + content)
    assert_refused(directory, "model.safetensors", "")


def test_weights_that_do_not_fit_are_all_listed_and_none_is_copied(run):
    directory, model = run
    path = directory / "model.safetensors"
    arrays = {name: array + 1 for name, array in safetensors.numpy.load_file(path).items()}
    gone, other, *_ = arrays
    del arrays[gone]
    shape = arrays[other].shape
    arrays[other] = np.zeros(3, np.float32)
    arrays["nobody.knows"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(arrays, path)
    before = model.parameters.data.copy()
    with pytest.raises(CheckpointError) as caught:
        load_weights(path, model)
    problems = (f"{gone} is missing", "nobody.knows is unknown", f"{other} has shape (3,), expected {shape}")
    assert str(caught.value).startswith(f"{path}: ")
    assert all(problem in str(caught.value) for problem in problems)
    np.testing.assert_array_equal(model.parameters.data, before)


def test_everything_but_metrics_is_written_atomically(run, monkeypatch):
    directory, model = run
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    model.parameters.data += 1
    for write in (
        lambda: save_weights(directory / "model.safetensors", model),
        lambda: save_config(directory, RunConfig(model.config, 9.0, {})),
    ):
        with pytest.raises(ZeroDivisionError):
            write()
    assert {name: (directory / name).read_bytes() for name in before} == before


def test_metrics_are_lines_of_json(tmp_path):
    """Of strict JSON, which has no infinity."""
    rows = [{"step": 1, "loss": 2.5}, {"step": 2, "perplexity": None}, {"step": 3}]
    for row in rows:
        append_metrics(tmp_path, {name: math.inf if value is None else value for name, value in row.items()})
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_a_digest_goes_by_the_names_and_not_by_their_order():
    a, b = np.zeros(3), np.ones(3)
    assert digest({"a": a, "b": b}) == digest({"b": b, "a": a}) != digest({"a": b, "b": a})
