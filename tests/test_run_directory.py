"""What a run has recorded, as a stranger or a failing disk may leave it: held to what the command line would take."""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.numpy
from hostile import FUZZ, altered, refusal
from hypothesis import given
from hypothesis import strategies as st

from tinytransformer import run_directory
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.data import encode_corpus
from tinytransformer.optim import Adam
from tinytransformer.options import parse_arguments
from tinytransformer.run_directory import (
    begin_run,
    keep_shortlist,
    make_shortlist,
    options_of_run,
    require_same_model,
    written_in,
)
from tinytransformer.shortlist import NAME
from tinytransformer.transformer import TransformerConfig
from tinytransformer.validation import Validation


@pytest.fixture
def recorded(tmp_path, monkeypatch, make_model, tokenizer):
    """A directory with the record of a run; returns what --resume is called with, and the fields of config.json."""
    texts = ("--source", "a.en", "--target", "a.de", "--valid-source", "b.en", "--valid-target", "b.de")
    monkeypatch.setattr(sys, "argv", ["train.py", *texts, "--out", str(tmp_path / "run"), "--clip", "0.1", "--untied"])
    options = parse_arguments()
    translator = SimpleNamespace(model=make_model(len(tokenizer)), tokenizer=tokenizer, length_ratio=1.5)
    options.out.mkdir()
    begin_run(options, translator, "fingerprint", SimpleNamespace(save=lambda: None))
    monkeypatch.setattr(sys, "argv", ["train.py", "--resume", "--out", str(tmp_path / "run")])
    return parse_arguments(), json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))


def written(options, fields):
    (options.out / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    return options


VALUES = {
    "text for a number": ("steps", "many", "argument --steps: 'many' is not a whole number above zero"),
    "fraction": ("seed", 1.5, "argument --seed: '1.5' is not a whole number"),
    "beyond 32 bits": ("replicas", 2**31, "argument --replicas: '2147483648' is not a whole number above zero"),
    "not finite": ("clip", np.inf, "argument --clip: 'inf' is not a finite number above zero"),
    "out of range": ("dropout", 1.0, "argument --dropout: '1.0' is not a number from 0 up to"),
    "unknown choice": ("preset", "huge", "argument --preset: invalid choice: 'huge'"),
    "true for a number": ("warmup", True, "argument --warmup: expected one argument"),
    "number for a switch": ("untied", 1, "argument --untied: ignored explicit argument '1'"),
    "list": ("beam", [4], "argument --beam: '[4]' is not a whole number above zero"),
    "two of which one is possible": ("epochs", 3, "not allowed with argument --steps"),
    "one of two": ("target", None, "--source and --target go together"),
    "what draws on the screen": ("norm", "\x1b[2J\n", "argument --norm: invalid choice: "),
}


@pytest.mark.parametrize(("name", "value", "words"), VALUES.values(), ids=VALUES)
def test_a_value_that_the_command_line_would_not_take_is_refused(recorded, name, value, words):
    options, fields = recorded
    fields["training"].update({"steps": 5} if name == "epochs" else {})
    fields["training"][name] = value
    message = refusal(options_of_run, written(options, fields))
    assert message.startswith(f"{options.out / 'config.json'}: ")
    assert words in message


@FUZZ
@given(data=st.data())
def test_any_record_is_refused_or_made_of_options(recorded, data):
    """Of values that options have; recorded once more they are the same."""
    options, fields = recorded

    def read(record):
        found.append(vars(options_of_run(written(options, {**fields, "training": record}))))

    found = []
    if refusal(read, json.loads(data.draw(altered(fields["training"])))) is None:
        assert {type(value) for value in found[0].values()} <= {bool, int, float, str, type(options.out), type(None)}
        again = {name: found[0][name] for name in fields["training"]}
        read({name: str(value) if isinstance(value, Path) else value for name, value in again.items()})
        assert found[0] == found[1]


def test_the_model_has_to_be_the_one_that_the_options_make(recorded):
    options, fields = recorded
    shape = TransformerConfig(**fields["model"])
    assert refusal(require_same_model, options.out, shape) is None
    fields["model"]["heads"] = 1
    message = refusal(require_same_model, written(options, fields).out, shape)
    assert message == f"{options.out / 'config.json'}: its model is not the one that its options make"


def test_a_state_that_is_too_small_for_its_model_is_refused_before_memory_is_taken(recorded):
    options, fields = recorded
    fields["model"].update(positions="learned", max_length=2**31 - 1)
    safetensors.numpy.save_file(
        {n: np.zeros(5, np.float32) for n in ("parameters", "m", "v")}, options.out / "state.safetensors"
    )
    message = refusal(require_same_model, written(options, fields).out, TransformerConfig(**fields["model"]))
    assert message.startswith(f"{options.out}: config.json asks for 34,359,7")
    assert message.endswith(" GB), but state.safetensors holds 5")


METRICS = [b'{"step": 1}\n', b'{"step": 2, "note": "\\u2028"}\n']
STRANGE = [b"\xff\xfe\n", b"[1]\n", b'{"step": "1"}\n', b'{"step": null}\n', b"[" * 100_000 + b"\n", b'{"step": 1']


@pytest.mark.parametrize("line", STRANGE)
def test_a_line_that_is_no_metrics_is_forgotten(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(METRICS[0] + line.rstrip(b"\n") + b"\n" + METRICS[1] + b'{"step": 3}\n')
    Validation(tmp_path, argparse.Namespace(), None, print).forget_after(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(METRICS)


def test_files_that_are_no_weights_of_a_validation_stay(tmp_path):
    names = ("step-.safetensors", "step-x.safetensors", "step-00000001.safetensors", "step-1234567x.safetensors")
    for name in (*names, "step-00000003.safetensors"):
        (tmp_path / name).touch()
    Validation(tmp_path, argparse.Namespace(), None, print, average=2).forget_after(2)
    assert {path.name for path in tmp_path.iterdir()} == {*names, "metrics.jsonl"}


def test_a_link_that_leads_nowhere_counts_as_written(tmp_path):
    """So a new run takes it away, and writes nothing where it leads."""
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "notes.txt").touch()
    assert written_in(tmp_path) == [tmp_path / "metrics.jsonl"]


def test_between_two_saves_a_while_passes(tmp_path, make_model, monkeypatch):
    clock, saved = SimpleNamespace(now=0), []
    monkeypatch.setattr(run_directory, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(run_directory, "save_state", lambda *_: saved.append(clock.now))
    validation = SimpleNamespace(best=0.0, since=0, settle=lambda: None)
    checkpoint = run_directory.Checkpoint(tmp_path, Adam(make_model(12).parameters), validation)
    for clock.now in range(0, 2000, 100):
        checkpoint.save_if_due()
    assert saved == [600, 1200, 1800]


# --- The shortlist


@pytest.fixture
def resumed(recorded, toy_text, tokenizer):
    """What a run is resumed with: its options, the corpus and the tokenizer."""
    options, _ = recorded
    options.seed = 1
    return options, encode_corpus(tokenizer, *(text[:20] for text in toy_text), 256), tokenizer


def test_a_shortlist_that_is_whole_is_not_learned_again(resumed):
    options, _, tokenizer = resumed
    learned = make_shortlist(*resumed, print)
    assert learned is not None
    keep_shortlist(options.out, learned, tokenizer, print)
    assert make_shortlist(*resumed, print) is None
    options.resume = False  # a new run has another corpus
    again = make_shortlist(*resumed, print)
    assert again.translations.tobytes() == learned.translations.tobytes()


def test_a_training_goes_on_without_a_shortlist(resumed, monkeypatch):
    """For which memory does not suffice, or that cannot be written; a note says so."""
    options, _, tokenizer = resumed
    said = []
    learned = make_shortlist(*resumed, said.append)
    (options.out / NAME).mkdir()
    keep_shortlist(options.out, learned, tokenizer, said.append)
    assert said == [f"note: {options.out / NAME}: Is a directory; --resume will try again"]
    monkeypatch.setattr(run_directory, "learn", lambda *_: bytearray(1 << 62))
    assert make_shortlist(*resumed, said.append) is None
    assert said[1:] == ["note: there is not enough memory to learn a shortlist; --resume will try again"]


@pytest.mark.parametrize("name", ["tokenizer.model", "shortlist.safetensors", "step-00000003.safetensors"])
def test_a_directory_in_the_place_of_a_file_is_not_overwritten_nor_is_anything_else(recorded, monkeypatch, name):
    options, _ = recorded
    options.overwrite = True
    (options.out / name).unlink(missing_ok=True)
    (options.out / name).mkdir()
    before = {path.name: path.is_dir() or path.read_bytes() for path in options.out.iterdir()}
    with pytest.raises(CheckpointError, match=r"is a directory, and stands where a run has a file; move it away$"):
        begin_run(options, None, "fingerprint", None)
    assert {path.name: path.is_dir() or path.read_bytes() for path in options.out.iterdir()} == before
