"""A run that is resumed: held against others, and looked at whole, before anything of it is changed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy
from ends import PATIENT, SMALL, TEXT, Script, state_of
from scripts import ROOT

from tinytransformer import validation

CUT = ("Ctrl-C", 5)


@pytest.fixture
def script(train_script, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return Script(train_script, monkeypatch)


def shortened(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("average", "name", "damage", "words"),
    [
        ("1", "model.safetensors", Path.unlink, " does not exist; put it back, or begin again with --overwrite"),
        ("1", "model.safetensors", shortened, ": Error while deserializing header: "),
        ("2", "step-00000004.safetensors", shortened, ": Error while deserializing header: "),
        ("2", "step-00000002.safetensors", shortened, ": Error while deserializing header: "),
    ],
)
def test_the_weights_for_the_end_are_looked_at_before_the_training_goes_on(
    script, tmp_path, average, name, damage, words
):
    run = ("--out", str(tmp_path))
    assert script(*TEXT, *SMALL, "--steps", "20", "--valid-every", "2", "--average", average, *run, end=CUT) == 130
    damage(tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert script("--resume", *run, end=("power", 6)).startswith(f"train.py: error: {tmp_path / name}{words}")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_that_no_end_asks_for_are_not_missed(script, tmp_path):
    """Where the mean of the last is wanted, it takes the place of the best."""
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=CUT) == 130
    (tmp_path / "model.safetensors").unlink()
    assert script("--resume", "--out", str(tmp_path)) == 0


def test_new_weights_are_looked_at_before_they_take_the_place_of_the_old(script, tmp_path, monkeypatch):
    run = ("--out", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(validation.Validation, "settle", lambda _: None)  # the power fails before that
        assert script(*TEXT, *SMALL, "--steps", "20", "--valid-every", "2", *run, end=CUT) == 130
    best = tmp_path / "best-00000004.safetensors"
    shortened(best)
    (tmp_path / "model.safetensors").write_bytes(b"the old ones")
    assert script("--resume", *run).startswith(f"train.py: error: {best}: ")
    assert (tmp_path / "model.safetensors").read_bytes() == b"the old ones"


def test_a_directory_that_another_has_taken_the_place_of_is_not_touched(script, tmp_path, monkeypatch):
    """While the texts were read: what stands there now may have a writer of its own."""
    run = tmp_path / "run"
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(run), end=CUT) == 130
    read = script.module.read_text

    def move(options, split):
        if run.exists() and not (tmp_path / "moved").exists():
            shutil.copytree(run.rename(tmp_path / "moved"), run)
            (run / "state.safetensors.tmp").touch()
        return read(options, split)

    monkeypatch.setattr(script.module, "read_text", move)
    assert script("--resume", "--out", str(run)) == (
        f"train.py: error: {run} is no longer the directory that this training began in"
    )
    assert {path.name for path in run.iterdir()} > {path.name for path in (tmp_path / "moved").iterdir()}


def test_a_run_is_held_from_before_its_record_is_read(script, tmp_path, monkeypatch):
    """Else another might take its place meanwhile, and be written over."""
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=("Ctrl-C", 1)) == 130
    held, read = [], script.module.options_of_run
    monkeypatch.setattr(script.module, "options_of_run", lambda o: held.append(is_held(tmp_path)) or read(o))
    monkeypatch.setattr(script.module, "train", lambda *_, **__: held.append(is_held(tmp_path)))
    script("--resume", "--out", str(tmp_path))
    assert held == [True, True]
    assert not is_held(tmp_path)


def is_held(directory):
    ask = f"from tinytransformer.writing import *; only_writer(Path({str(directory)!r})).__enter__()"
    return b"another training" in subprocess.run([sys.executable, "-c", ask], capture_output=True, cwd=ROOT).stderr


@pytest.mark.parametrize("counter", ["since", "best", "loss_sum"])
def test_a_counter_that_is_missing_is_named(script, tmp_path, counter):
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=CUT) == 130
    path, counters = tmp_path / "state.safetensors", state_of(tmp_path)
    kept = {name: value for name, value in counters.items() if name not in (counter, "sha256")}
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, {"counters": json.dumps(kept)})
    assert script("--resume", "--out", str(tmp_path)) == f"train.py: error: {path}: the counter '{counter}' is missing"
