"""A run that was left off goes on as if it had not been: the script wherever it ends, and a user."""

import io
import math
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from ends import PATIENT, SMALL, TEXT, Script, outcome, state_of
from scripts import ROOT

from tinytransformer import run_directory


@pytest.fixture
def script(train_script, folder, monkeypatch):
    monkeypatch.chdir(folder)
    return Script(train_script, monkeypatch)


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
    patience = "stopped after step 10: 3 validations brought no better BLEU"
    assert patience in capsys.readouterr().err
    files, metrics = outcome(tmp_path / "whole")
    assert [row.get("step") for row in metrics] == [2, 4, 6, 8, 10, None]
    assert {name for name in files if name.startswith("step")} == {f"step-{n:08}.safetensors" for n in (8, 10)}
    for name in ends:
        (kind, step, saved), run = ENDS[name], tmp_path / name
        status = script(*TEXT, *SMALL, *PATIENT, "--out", str(run), end=(kind, step))
        assert patience not in capsys.readouterr().err, name
        assert status == (130 if kind == "Ctrl-C" else "power"), name
        counters = state_of(run)
        assert (counters["step"], (counters["best"], counters["since"])) == (saved, BEST[saved // 2]), name
        assert script("--resume", "--out", str(run)) == 0
        assert patience in capsys.readouterr().err, name
        assert outcome(run) == (files, metrics), name


def test_ctrl_c_saves_where_nobody_reads_standard_error_any_more(script, tmp_path, monkeypatch):
    """As it ends `train.py 2>&1 | tee log`: first the reader, then this."""
    read, write = os.pipe()
    os.close(read)
    with io.TextIOWrapper(open(write, "wb", buffering=0), encoding="utf-8", write_through=True) as gone:
        monkeypatch.setattr(sys, "stderr", gone)
        assert script(*TEXT, *SMALL, *PATIENT, "--out", str(tmp_path), end=("Ctrl-C", 3)) == 130
    assert state_of(tmp_path)["step"] == 3


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
