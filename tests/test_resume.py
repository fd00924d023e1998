"""A run that was left off goes on as if it had not been: the script wherever it ends, and a user."""

import io
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.numpy

from tinytransformer import run_directory, validation

ROOT = Path(__file__).parent.parent

TEXT = ("--source", "train.en", "--target", "train.de", "--valid-source", "valid.en", "--valid-target", "valid.de")
SMALL = ("--batch-tokens", "400", "--vocab-size", "350", "--dropout", "0.2", "--replicas", "1", "--beam", "2")


def state_of(run):
    """Return the counters in a run's state."""
    with safetensors.safe_open(run / "state.safetensors", "np") as file:
        return json.loads(file.metadata()["counters"])


def outcome(run):
    """Return what a run has written, by name of file; its metrics without their speed."""
    files = {path.name: path.read_bytes() for path in run.iterdir()}
    metrics = [json.loads(line) for line in files.pop("metrics.jsonl").splitlines()]
    return files, [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in metrics]


class PowerCutError(Exception):
    """Ends the script with no chance to save."""


GRADES = {2: 1.0, 4: 5.0, 6: 4.0, 8: 3.0, 10: 2.0}  # after the last of these a patience of three is at its end


class Script:
    """train.py in this process: its BLEU is read from a table, and it can be ended at any place.

    mean: the BLEU of the mean. end: how ("Ctrl-C", "power", or "power while saving") and at which step.
    """

    mean = 4.5
    end = ("", 0)

    def __init__(self, module, patch):
        """Put what grades and ends the script in the place of its parts."""
        self.module, self.patch = module, patch
        self.save, self.meter = run_directory.save_state, module.Meter.__call__
        patch.setattr(module, "keep_freed_memory", lambda: None)
        patch.setattr(run_directory, "save_state", self.save_state)
        patch.setattr(module.Meter, "__call__", lambda meter, progress: self.report(meter, progress))
        patch.setattr(validation, "evaluate_translation", lambda *_: (SimpleNamespace(bleu=self.grade), []))
        measure = validation.Validation._measure
        patch.setattr(validation.Validation, "_measure", lambda v, metrics: measure(v, self.graded(metrics)))

    def graded(self, metrics):
        self.grade = GRADES[metrics["step"]] if "step" in metrics else self.mean
        return metrics

    def report(self, meter, progress):
        self.meter(meter, progress)
        if self.end == ("Ctrl-C", progress.step):
            signal.raise_signal(signal.SIGINT)
        if self.end == ("power", progress.step):
            raise PowerCutError

    def save_state(self, directory, optimizer, counters):
        if self.end == ("power while saving", counters["step"]):
            raise PowerCutError
        self.save(directory, optimizer, counters)

    def __call__(self, *arguments, end=("", 0)):
        """Run the script; return its exit status, or what ended it."""
        self.end = end
        self.patch.setattr(sys, "argv", ["train.py", *arguments])
        try:
            self.module.main()
        except SystemExit as caught:
            return caught.code
        except PowerCutError:
            return "power"
        return 0


@pytest.fixture
def script(train_script, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return Script(train_script, monkeypatch)


PATIENT = ("--steps", "20", "--valid-every", "2", "--patience", "3", "--average", "2")
ENDS = {
    "before the first validation": ("Ctrl-C", 1, 1),
    "at the step of a validation": ("Ctrl-C", 4, 4),
    "with patience half gone": ("Ctrl-C", 7, 7),
    "at the last step": ("Ctrl-C", 10, 10),
    "no chance to save": ("power", 9, 8),
    "between the best and its state": ("power while saving", 4, 2),
    "between a validation and its state": ("power while saving", 8, 6),
}
BEST = {0: (-math.inf, 0), 1: (1.0, 0), 2: (5.0, 0), 3: (5.0, 1), 4: (5.0, 2), 5: (5.0, 3)}  # and how long ago


@pytest.mark.parametrize(("mean", "ends"), [(4.5, ENDS), (5.5, ["with patience half gone"])])
def test_wherever_a_run_ends_it_goes_on_to_the_same_best_and_the_same_mean(script, tmp_path, capsys, mean, ends):
    """And patience, which began before, ends it at the same step."""
    script.mean = mean
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path / "whole")) == 0
    assert "stopped after step 10: 3 validations brought no better BLEU" in capsys.readouterr().err
    files, metrics = outcome(tmp_path / "whole")
    assert [row.get("step") for row in metrics] == [2, 4, 6, 8, 10, None]
    assert {name for name in files if name.startswith("step")} == {f"step-{n:08}.safetensors" for n in (8, 10)}
    for name in ends:
        (kind, step, saved), run = ENDS[name], tmp_path / name
        status = script(*TEXT, *SMALL, *PATIENT, "--out", str(run), end=(kind, step))
        assert status == (130 if kind == "Ctrl-C" else "power"), name
        counters = state_of(run)
        assert (counters["step"], (counters["best"], counters["since"])) == (saved, BEST[saved // 2]), name
        assert script("--resume", "--out", str(run)) == 0
        assert outcome(run) == (files, metrics), name


def test_ctrl_c_saves_where_nobody_reads_standard_error_any_more(script, tmp_path, monkeypatch):
    """As it ends `train.py 2>&1 | tee log`: first the reader, then this."""
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(open(write, "wb", buffering=0), encoding="utf-8", write_through=True) as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=("Ctrl-C", 3)) == 130
    assert state_of(tmp_path)["step"] == 3


def shortened(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("model.safetensors", Path.unlink, " does not exist; "),
        ("model.safetensors", shortened, ": Error while deserializing header: "),
        ("step-00000004.safetensors", shortened, ": Error while deserializing header: "),
    ],
)
def test_the_weights_for_the_end_are_looked_at_before_the_training_goes_on(script, tmp_path, name, damage, words):
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=("Ctrl-C", 5)) == 130
    damage(tmp_path / name)
    assert script("--resume", "--out", str(tmp_path), end=("power", 6)).startswith(
        f"train.py: error: {tmp_path / name}{words}"
    )


def test_a_run_is_held_from_before_its_record_is_read(script, tmp_path, monkeypatch):
    """Else another might take its place meanwhile, and be written over."""
    assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=("Ctrl-C", 1)) == 130
    held = []
    read = script.module.options_of_run
    monkeypatch.setattr(script.module, "options_of_run", lambda o: held.append(is_held(tmp_path)) or read(o))
    monkeypatch.setattr(script.module, "train", lambda *_, **__: held.append(is_held(tmp_path)))
    script("--resume", "--out", str(tmp_path))
    assert held == [True, True]
    assert not is_held(tmp_path)


def is_held(directory):
    ask = f"from tinytransformer.writing import *; only_writer(Path({str(directory)!r})).__enter__()"
    return b"another training" in subprocess.run([sys.executable, "-c", ask], capture_output=True, cwd=ROOT).stderr


@pytest.mark.parametrize(("seconds", "step"), [(0, 8), (3600, 0)])
def test_a_power_cut_costs_no_more_than_a_while(script, tmp_path, monkeypatch, seconds, step):
    """Between two validations the state is saved when the last time is long ago; before the first step always."""
    monkeypatch.setattr(run_directory, "SAVE_EVERY", seconds)
    arguments = (*TEXT, *SMALL, "--steps", "20", "--valid-every", "20", "--out", str(tmp_path))
    assert script(*arguments, end=("power", 9)) == "power"
    assert state_of(tmp_path)["step"] == step


def test_what_is_said_can_be_given_to_a_shell(script, tmp_path, capsys):
    run = str(tmp_path / "a run's folder")
    assert script(*TEXT, *SMALL, *PATIENT, "--out", run, end=("Ctrl-C", 1)) == 130
    (command,) = [line for line in capsys.readouterr().err.splitlines() if "to go on: python train.py " in line]
    assert shlex.split(command.partition("python train.py ")[2]) == ["--resume", "--out", run]


LONG = (
    "--steps",
    "60",
    "--valid-every",
    "20",
    "--average",
    "2",
    "--test-source",
    "test.en",
    "--test-target",
    "test.de",
)


def ended(folder, number, words, *arguments):
    """Run train.py, send it a signal as soon as standard error shows `words`; return its status, output and errors."""
    command = [sys.executable, str(ROOT / "train.py"), *arguments]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as run:
        seen = b""
        while not re.search(words, seen):
            part = os.read(run.stderr.fileno(), 4096)
            assert part, seen.decode()
            seen += part
        run.send_signal(number)
        output, rest = run.communicate(timeout=60)
    assert b"Traceback" not in seen + rest, (seen + rest).decode()
    return run.returncode, output, (seen + rest).decode()


@pytest.fixture(scope="module")
def undisturbed(call, folder):
    """A run from beginning to end: its standard output, and what it has written."""
    status, output, _ = call("train.py", *TEXT, *SMALL, *LONG, "--out", "undisturbed")
    assert status == 0
    return output, outcome(folder / "undisturbed")


def test_a_run_that_is_interrupted_twice_ends_as_if_it_had_not_been(call, folder, undisturbed):
    """By Ctrl-C in the middle of an epoch, by SIGTERM after a validation; each says in one line how to go on."""
    arguments = (*TEXT, *SMALL, *LONG, "--out", "left-off")
    for number, words, least in ((signal.SIGINT, rb"\b([6-9]|[1-5][0-9])/60 ", 6), (signal.SIGTERM, rb"step 40  ", 40)):
        status, output, errors = ended(folder, number, words, *arguments)
        assert (status, output) == (128 + number, b"")
        step = state_of(folder / "left-off")["step"]
        assert least <= step < 60
        (told,) = [line for line in re.split("[\r\n]", errors) if "interrupted" in line]
        before, command = told.split(f": python {ROOT / 'train.py'} ")
        assert before.endswith(f"interrupted after step {step}; to go on")
        arguments = shlex.split(command)
    status, output, errors = call("train.py", *arguments)
    assert (status, (output, outcome(folder / "left-off"))) == (0, undisturbed)
    assert f"{step}/60" in errors  # the bar goes on from there
    assert " 0/60" not in errors


def test_a_finished_run_goes_no_further_and_says_the_same(call, folder, undisturbed):
    status, output, errors = call("train.py", "--resume", "--out", "undisturbed")
    assert (status, (output, outcome(folder / "undisturbed"))) == (0, undisturbed)
    assert "step 60 " not in errors  # it is not validated again


@pytest.mark.parametrize("other", [("--seed", "2"), ("--steps", "90"), TEXT, ("--overwrite",), ("--preset", "tiny")])
def test_a_run_goes_on_with_no_other_options(call, folder, undisturbed, other):
    status, output, errors = call("train.py", "--resume", "--out", "undisturbed", *other)
    assert (status, output) == (2, [])
    assert errors.splitlines()[-1].startswith("train.py: error: --resume goes on with the options that the run began")
    assert outcome(folder / "undisturbed") == undisturbed[1]


def test_what_is_not_there_cannot_go_on(call, folder, undisturbed):
    (folder / "stateless").mkdir()
    for name in ("config.json", "tokenizer.model"):
        (folder / "stateless" / name).write_bytes((folder / "undisturbed" / name).read_bytes())
    missing = {
        "nowhere": "nowhere holds no run that has begun, so there is none to --resume",
        "stateless": os.path.join("stateless", "state.safetensors does not exist: "),
    }
    for run, words in missing.items():
        status, output, errors = call("train.py", "--resume", "--out", run)
        assert (status, output) == (1, [])
        assert errors.startswith(f"train.py: error: {words}")
        assert errors.count("\n") == 1
    assert not (folder / "nowhere").exists()
