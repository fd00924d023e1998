"""What the scripts share: kinds of arguments, help that reads well, and errors in one line."""

from __future__ import annotations

import argparse
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from tinytransformer.backend import DeviceError, is_out_of_memory
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.data import DataError
from tinytransformer.progress import TrainingError
from tinytransformer.reading import in_one_line
from tinytransformer.tokenizer import VocabularyError
from tinytransformer.workers import WorkerError
from tinytransformer.writing import WritingError


class HelpFormatter(argparse.HelpFormatter):
    """Shows the default of an option where it has one that says something."""

    def _get_help_string(self, action: argparse.Action) -> str:
        nothing = action.default is None or action.default is False or action.default == argparse.SUPPRESS
        if nothing or not action.option_strings:
            return action.help or ""
        several = isinstance(action.default, list | tuple)
        return f"{action.help} (default: {' '.join(map(str, action.default)) if several else '%(default)s'})"


def count(text: str) -> int:
    """Parse a whole number above zero."""
    if not (text.isdecimal() and 0 < int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero and below 2^31")
    return int(text)


def up_to(most: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from 1 to `most`."""

    def parse(text: str) -> int:
        number = count(text)
        if number > most:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {most:,}")
        return number

    return parse


hypotheses = up_to(1000)  # of a beam search


def seed(text: str) -> int:
    """Parse a whole number, zero or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from zero up")
    return int(text)


def above_zero(text: str) -> float:
    """Parse a number above zero."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above zero")
    return number


def share(text: str) -> float:
    """Parse a number from 0 up to, but not including, 1."""
    number = _number(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up to, but not including, 1")
    return number


def directory(text: str) -> Path:
    """Parse the name of a directory. What is empty, as a variable that is not set, would be the current one."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name is no directory; write . for the current one")
    return Path(text)


def epochs(text: str) -> float:
    """Parse a number above zero, and at most a million."""
    number = above_zero(text)
    if number > 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a million")
    return number


def exponent(text: str) -> float:
    """Parse a number from 0 to 10."""
    number = _number(text)
    if not 0 <= number <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 10")
    return number


def probability(text: str) -> float:
    """Parse a number above 0, and at most 1."""
    number = _number(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C was pressed, or an end asked for (SIGTERM), so that work can be saved.

    The second time ends the program at once. What the shell has told the program to ignore, as that of a job in the
    background, stays so.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)

    heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        sys.exit(128 + received[0])


class _Heedless:
    """Standard error, or what is left of it: where nobody reads it any more, or its disk is full, work goes on."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _prepare_streams(script: str) -> None:
    """See to what the shell has left open, and exit where nothing can be done."""
    if sys.stderr is None:  # closed; what is said must not go to standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if not isinstance(sys.stderr, _Heedless):
        sys.stderr = _Heedless(sys.stderr)
    if sys.stdout is None:
        sys.exit(f"{script}: error: standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")


@contextmanager
def errors_in_one_line(script: str) -> Iterator[None]:
    """Turn an error that the user can mend into one line on standard error, and exit with status 1.

    Standard output is UTF-8, and has been written when the block is left. An error of standard error is none.
    """
    _prepare_streams(script)
    try:
        try:
            yield
        except SystemExit:  # after --help, too
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except (
        CheckpointError,
        DataError,
        DeviceError,
        TrainingError,
        VocabularyError,
        WorkerError,
        WritingError,
    ) as error:
        sys.exit(f"{script}: error: {in_one_line(error)}")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = in_one_line(error)
        sys.exit(f"{script}: error: there is not enough memory{f': {reason}' if reason else ''}")
    except BrokenPipeError:  # whoever read it has gone
        _abandon_output()
        sys.exit(128 + 13)  # as if SIGPIPE had ended it, as it ends other filters
    except OSError as error:
        if error.filename is None and isinstance(error, FileNotFoundError):  # which writing never raises
            sys.exit(f"{script}: error: the current directory is gone")
        if error.filename is None:  # it was standard output
            _abandon_output()
        sys.exit(f"{script}: error: {error.filename or 'standard output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _abandon_output() -> None:
    """Send what is still to be written nowhere, or Python would fail once more when it closes standard output."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
