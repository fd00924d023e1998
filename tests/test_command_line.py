"""What the scripts share: arguments, help, errors in one line, and work that is saved before it ends."""

import argparse
import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from tinytransformer.backend import DeviceError
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.command_line import (
    HelpFormatter,
    above_zero,
    count,
    epochs,
    errors_in_one_line,
    exponent,
    hypotheses,
    interruptible,
    probability,
    seed,
    share,
    up_to,
)
from tinytransformer.data import DataError
from tinytransformer.progress import TrainingError
from tinytransformer.tokenizer import VocabularyError
from tinytransformer.writing import WritingError, write_atomically

ACCEPTED = [
    (count, {"1": 1, "42": 42, "007": 7, "2147483647": 2**31 - 1}),
    (seed, {"0": 0, "1": 1, "12345678901234567890": 12345678901234567890}),
    (above_zero, {"1": 1.0, "0.5": 0.5, "1e-5": 1e-5, "3.": 3.0}),
    (exponent, {"0": 0.0, "0.6": 0.6, "10": 10.0}),
    (epochs, {"1e-3": 1e-3, "2.5": 2.5, "1e6": 1e6}),
    (hypotheses, {"1": 1, "1000": 1000}),
    (up_to(7), {"7": 7}),
    (probability, {"1": 1.0, "1e-9": 1e-9}),
    (share, {"0": 0.0, "0.0": 0.0, "0.1": 0.1, "0.999": 0.999}),
]
REFUSED = [
    (
        count,
        ("0", "-1", "1.0", "1e3", "", " 1", "+1", "two", "²", "00", "2147483648"),
        "is not a whole number above zero and below 2^31",
    ),
    (seed, ("-1", "1.5", "", "x", "²"), "is not a whole number from zero up"),
    (above_zero, ("0", "-0.1", "nan", "inf", "-inf", "", "x", "1e-400"), "is not a finite number above zero"),
    (exponent, ("-1e-9", "10.1", "1000", "nan", "inf", "", "x"), "is not a number from 0 to 10"),
    (epochs, ("0", "-1", "nan", "inf", ""), "is not a finite number above zero"),
    (epochs, ("1000001", "1e308"), "is more than a million"),
    (hypotheses, ("1001", "2147483647"), "is more than 1,000"),
    (up_to(7), ("8", "100"), "is more than 7"),
    (probability, ("0", "1.001", "-1", "nan", "inf", "", "x"), "is not a number above 0 and at most 1"),
    (share, ("1", "1.0", "-0.1", "-1e-9", "nan", "inf", "", "x"), "is not a number from 0 up to, but not including, 1"),
]


@pytest.mark.parametrize(("kind", "texts"), ACCEPTED)
def test_numbers_are_read(kind, texts):
    for text, number in texts.items():
        assert kind(text) == number
        assert type(kind(text)) is type(number)


@pytest.mark.parametrize(("kind", "texts", "words"), REFUSED)
def test_what_is_out_of_range_is_refused_and_shown(kind, texts, words):
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            kind(text)
        assert str(caught.value) == f"{text!r} {words}"


def test_help_shows_defaults_where_there_are_some():
    parser = argparse.ArgumentParser(prog="x", formatter_class=HelpFormatter)
    parser.add_argument("place", nargs="?", default="here", help="positional")
    parser.add_argument("--number", default=7, help="has one")
    parser.add_argument("--open", help="has none")
    parser.add_argument("--flag", action="store_true", help="is off")
    parser.add_argument("--quiet", default=argparse.SUPPRESS, help="says nothing")
    parser.add_argument("--several", default=["a", "b"], help="has two")
    parser.add_argument("--bare")
    lines = [line.strip() for line in parser.format_help().splitlines()]
    shown = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line.startswith(("-", "place"))}
    assert shown["place"] == "positional"
    assert shown["--number"] == "NUMBER has one (default: 7)"
    assert shown["--several"] == "SEVERAL has two (default: a b)"
    assert shown["--open"] == "OPEN has none"
    assert shown["--flag"] == "is off"
    assert shown["--quiet"] == "QUIET says nothing"
    assert shown["--bare"] == "BARE"
    assert shown["-h,"] == "--help show this help message and exit"


@pytest.mark.parametrize("zero", [0, 0.0])
def test_help_shows_a_default_of_zero(zero):
    parser = argparse.ArgumentParser(prog="x", formatter_class=HelpFormatter)
    parser.add_argument("--zero", default=zero, help="has zero")
    assert f"has zero (default: {zero})" in parser.format_help()


ERRORS = {
    "checkpoint": (CheckpointError("run: no"), "x.py: error: run: no"),
    "data": (DataError("a.en: no"), "x.py: error: a.en: no"),
    "device": (DeviceError("no GPU"), "x.py: error: no GPU"),
    "training": (TrainingError("step 3: nan"), "x.py: error: step 3: nan"),
    "writing": (WritingError("run: no"), "x.py: error: run: no"),
    "vocabulary": (VocabularyError("too small"), "x.py: error: too small"),
    "a file": (FileNotFoundError(2, "No such file", "a.en"), "x.py: error: a.en: No such file"),
    "current directory": (FileNotFoundError(2, "No such file"), "x.py: error: the current directory is gone"),
    "standard output": (OSError(28, "No space left"), "x.py: error: standard output: No space left"),
    "memory": (
        MemoryError("Unable to allocate 7 GiB"),
        "x.py: error: there is not enough memory: Unable to allocate 7 GiB",
    ),
    "memory, no more said": (MemoryError(), "x.py: error: there is not enough memory"),
    "memory of a GPU": (
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
        "x.py: error: there is not enough memory: CUBLAS_STATUS_ALLOC_FAILED",
    ),
    "Ctrl-C": (KeyboardInterrupt(), 130),
    "an exit": (SystemExit(7), 7),
}


@pytest.mark.parametrize(("error", "code"), ERRORS.values(), ids=ERRORS)
def test_an_error_that_can_be_mended_is_one_line(monkeypatch, tmp_path, error, code):
    """A text as exit code is written to standard error, and the status is 1."""
    with open(tmp_path / "output", "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)  # which is given up where it failed
        with pytest.raises(SystemExit) as caught, errors_in_one_line("x.py"):
            raise error
    assert caught.value.code == code


def test_a_disk_that_is_full_while_a_file_is_written_is_told_with_the_file(monkeypatch, tmp_path):
    def full(descriptor):
        raise OSError(28, "No space left on device")  # without a name, as the system reports it

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as caught, errors_in_one_line("x.py"):
        write_atomically(tmp_path / "state.safetensors", b"content")
    assert "state.safetensors" in caught.value.code


@pytest.mark.parametrize("error", [ZeroDivisionError(), RuntimeError("CUBLAS_STATUS_NOT_SUPPORTED")])
def test_other_errors_are_ours_and_are_not_hidden(error):
    with pytest.raises(type(error)) as caught, errors_in_one_line("x.py"):
        raise error
    assert caught.value is error


def test_where_the_reader_has_gone_nothing_more_is_written(monkeypatch, tmp_path):
    """What still stands in the buffer goes nowhere, and Python has no reason to complain at its end."""

    def leave():
        with errors_in_one_line("x.py"):
            print("still in the buffer")
            raise BrokenPipeError

    with open(tmp_path / "output", "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as caught:
            leave()
    assert caught.value.code == 141
    assert (tmp_path / "output").read_bytes() == b""


def test_help_for_which_the_reader_has_not_waited(monkeypatch):
    """It stands in the buffer when `parse_args` ends the program."""

    def leave():
        with errors_in_one_line("x.py"):
            print("usage")
            raise SystemExit(0)

    gone, end = os.pipe()
    os.close(gone)
    with open(end, "w", encoding="utf-8") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with pytest.raises(SystemExit) as caught:
            leave()
    assert caught.value.code == 141


class Full(io.StringIO):
    """A stream whose disk is full."""

    def write(self, *text):
        raise OSError(errno.ENOSPC, "No space left on device")

    flush = write


def test_work_goes_on_where_standard_error_fails(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", stream := Full())
    with errors_in_one_line("x.py"):
        print("note", file=sys.stderr, flush=True)
        assert sys.stderr.isatty() == stream.isatty()
        print("result")
    assert capsys.readouterr().out == "result\n"


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture
def handlers():
    """What Python does at a signal while a test runs; put back afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    mine = {number: signal.signal(number, lambda *_: pytest.fail("not handled")) for number in SIGNALS}
    yield lambda: {number: signal.getsignal(number) for number in SIGNALS}
    assert mine == before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_work_can_be_saved_before_it_ends(handlers, number):
    """The work goes on and is told; then the exit status says which signal it was."""
    before, saved = handlers(), []

    def work():
        with interruptible() as interrupted:
            saved.append(interrupted())
            signal.raise_signal(number)
            saved.append(interrupted())

    with pytest.raises(SystemExit) as caught:
        work()
    assert saved == [False, True]
    assert caught.value.code == 128 + number
    assert handlers() == before


@pytest.mark.parametrize("number", SIGNALS)
def test_what_the_shell_ignores_stays_ignored(handlers, number):
    """As Ctrl-C for what it has put into the background."""
    mine = signal.signal(number, signal.SIG_IGN)
    with interruptible() as interrupted:
        signal.raise_signal(number)
        assert not interrupted()
    assert signal.signal(number, mine) == signal.SIG_IGN


def test_without_a_signal_nothing_ends(handlers):
    before = handlers()
    with interruptible() as interrupted:
        assert not interrupted()
        assert handlers() != before
    assert handlers() == before


def test_an_error_while_saving_comes_first(handlers):
    before = handlers()

    def work():
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert handlers() == before


PROGRAM = """
import signal
from tinytransformer.command_line import interruptible
try:
    with interruptible():
        signal.raise_signal(signal.{})
        print("saving", flush=True)
        signal.raise_signal(signal.{})
        print("saved", flush=True)
finally:
    print("ended", flush=True)
"""


@pytest.mark.parametrize(("first", "second"), [("SIGINT", "SIGINT"), ("SIGINT", "SIGTERM")])
def test_the_second_signal_ends_the_program_at_once(first, second):
    command = [sys.executable, "-c", PROGRAM.format(first, second)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout.split(), done.stderr) == (128 + signal.Signals[second], [b"saving"], b"")
