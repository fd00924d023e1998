"""What an attacker found: files that are no files, links that lead elsewhere, counters and limits beyond all use."""

import os
from dataclasses import asdict

import numpy as np
import pytest
from hostile import refusal

from tinytransformer.checkpoint import load_model, load_state, save_state, save_weights
from tinytransformer.optim import Adam, clipping
from tinytransformer.progress import Standing, TrainingError
from tinytransformer.run_directory import Checkpoint
from tinytransformer.tokenizer import Tokenizer, VocabularyError
from tinytransformer.translation import MOST, Translator
from tinytransformer.validation import Validation
from tinytransformer.writing import write_atomically

SHORT = ("--steps", "4", "--valid-every", "2", "--batch-tokens", "400", "--vocab-size", "400", "--beam", "2")
TEXT = ("--source", "train.en", "--target", "train.de", "--valid-source", "valid.en", "--valid-target", "valid.de")

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")


@needs_pipes
@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
def test_a_pipe_is_not_waited_for(hostile_run, name):
    """Nothing might ever come from it."""
    path = hostile_run.directory.parent / f"pipe-{name}"
    path.mkdir()
    for other, content in hostile_run.contents.items():
        (path / other).write_bytes(content)
    (path / name).unlink()
    os.mkfifo(path / name)
    assert refusal(load_model, path) == f"{path / name}: is no file, but a pipe or a device"


@needs_pipes
def test_metrics_that_have_no_end_are_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/zero")
    validation = Validation(tmp_path, None, None, print)
    with pytest.raises(OSError, match="is no file, but a pipe or a device"):
        validation.forget_after(3)


def test_what_is_written_goes_nowhere_else(tmp_path):
    """A link that stands where half a file would is not followed."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.tmp").symlink_to(tmp_path / "victim")
    write_atomically(tmp_path / "run" / "x", b"content")
    assert not (tmp_path / "victim").exists()
    assert not (tmp_path / "run" / "x").is_symlink()
    assert (tmp_path / "run" / "x").read_bytes() == b"content"
    assert not (tmp_path / "run" / "x.tmp").exists()


def test_any_loss_that_can_be_saved_can_be_loaded(make_model, tmp_path):
    """A sum of losses may be huge, and the run go on."""
    optimizer = Adam(make_model(12).parameters)
    counters = {**asdict(Standing(3, 2.2e300, 70)), "best": -np.inf, "since": 0}
    save_state(tmp_path, optimizer, counters)
    assert load_state(tmp_path, optimizer) == counters


def test_a_run_does_not_stand_beyond_its_end(make_model, tmp_path):
    """Its batches would be counted for ever."""
    optimizer = Adam(make_model(12).parameters)
    save_state(tmp_path, optimizer, {**asdict(Standing(2**60, 1.0, 70)), "best": 0.0, "since": 0})
    checkpoint = Checkpoint(tmp_path, optimizer, Validation(tmp_path, None, None, print))
    words = f"{tmp_path / 'state.safetensors'}: it stands at step {2**60} of a run of 6 steps"
    assert refusal(checkpoint.load, 6) == words


def test_a_run_goes_on_with_its_own_vocabulary(call, folder, toy_text):
    """Not with another of the same size."""
    run = folder / "swapped"
    assert call("train.py", *TEXT, *SHORT, "--out", "swapped")[0] == 0
    (run / "tokenizer.model").write_bytes(Tokenizer.train(toy_text[1], 400).model)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    status, output, errors = call("train.py", "--resume", "--out", "swapped")
    words = "train.py: error: swapped: tokenizer.model is not the one that config.json was written for"
    assert (status, output, errors.splitlines()) == (1, [], [words])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_piece_of_endless_length_is_refused():
    with pytest.raises(VocabularyError, match="damaged"):
        Tokenizer(b"\x0a" + b"\xff" * 9 + b"\x7f")


def test_every_translation_has_an_end(make_model, tokenizer):
    """Though a configuration may say that 2^31 tokens are normal."""
    model = make_model(len(tokenizer), positions="sinusoidal", max_length=2**31 - 1)
    assert Translator(model, tokenizer, 2.0**31).longest == MOST
    model = make_model(len(tokenizer), positions="learned", max_length=20)
    assert Translator(model, tokenizer, 20).longest == 20


def test_what_is_not_finite_is_not_even_validated(make_model, tmp_path):
    """It would stand on the disk before the state is refused."""
    model = make_model(12)
    checkpoint = Checkpoint(tmp_path, Adam(model.parameters), None)
    checkpoint.require_finite()
    model.parameters.data[3] = np.inf
    with pytest.raises(TrainingError, match="a parameter is not finite"):
        checkpoint.require_finite()


def test_a_step_into_the_void_leaves_no_weights(call, folder):
    status, _, errors = call(
        "train.py", *TEXT, *SHORT, "--learning-rate", "1e39", "--warmup", "1", "--average", "2", "--out", "void"
    )
    assert status == 1
    assert "a parameter is not finite" in errors.splitlines()[-1]
    assert sorted(path.name for path in (folder / "void").iterdir()) == [
        "config.json",
        "shortlist.safetensors",
        "state.safetensors",
        "tokenizer.model",
    ]


@pytest.mark.parametrize("limit", [1e39, 1e300])
def test_a_limit_beyond_float32_clips_nothing(limit):
    assert clipping(np.array([3, 4], dtype=np.float32), limit) == (5, 1)


def test_weights_are_written_though_a_link_stands_in_the_way(make_model, tmp_path):
    (tmp_path / "model.safetensors.tmp").symlink_to(tmp_path / "nowhere" / "at" / "all")
    save_weights(tmp_path / "model.safetensors", make_model(12, dtype=np.float32))
    assert (tmp_path / "model.safetensors").stat().st_size > 1000
