"""A second pair of hands: someone who is asked to compute something, and answers when it is needed.

On Linux that is a process. It is a copy of this one (a fork), so it has the model and all else from the start, and what
it writes into memory that is shared, this one sees (see `backend.shareable`). Threads take turns with Python itself,
whenever an operation begins or ends: two of them need a tenth more time than two processes on a small model, and on the
toy more than one thread alone. They work everywhere, though; so elsewhere it is a thread: macOS's own matrix products
fail in a fork, Windows has none, and a GPU belongs to one process.

Which of the two it is makes no difference to the result, not in a single bit.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from contextvars import copy_context
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.timing import timing

Work = Callable[..., Any]


class WorkerError(RuntimeError):
    """A process that could not be started, or has ended before it answered."""


def hire(work: Work, x: Array, stack: ExitStack) -> Worker:
    """Return a worker that does `work` on arguments it is handed, close to `x`, an array of the model's.

    It is dismissed when the stack is closed.
    """
    worker = (Process if array_module(x) is np and sys.platform == "linux" else Thread)(work)
    stack.callback(worker.dismiss)
    return worker


class Thread:
    """A worker in this process."""

    def __init__(self, work: Work):
        self.work = work
        self.thread = ThreadPoolExecutor(1)
        self.asked: Future[Any] | None = None

    def ask(self, *arguments: Any) -> None:
        """Let it begin to do its work on `arguments`."""
        # in a copy of this context, so that `debugging()` and a profile reach into the thread
        self.asked = self.thread.submit(copy_context().run, self.work, *arguments)

    def answer(self) -> Any:
        """Wait for what was asked last and return it, or raise what was raised."""
        assert self.asked is not None
        return self.asked.result()

    def dismiss(self) -> None:
        """Let it go, once it is done."""
        self.thread.shutdown()


class Process:
    """A worker in a process of its own, in the context that this one has now.

    Raises: WorkerError if the system allows no further process.
    """

    def __init__(self, work: Work):
        fork = multiprocessing.get_context("fork")
        (questions, self.questions), (self.answers, answers) = fork.Pipe(duplex=False), fork.Pipe(duplex=False)
        self.process = fork.Process(target=_serve, args=(work, questions, answers), daemon=True)
        try:
            with warnings.catch_warnings():
                # Python warns that other threads may hold locks which nobody gives back in the fork; those of BLAS hold
                # none, and no other computes while a training begins.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.process.start()
        except OSError as error:
            raise WorkerError(f"the system allows no further process ({error.strerror})") from None
        questions.close()
        answers.close()
        self.answer()  # its first says that it is there, and holds no file of ours

    def ask(self, *arguments: Any) -> None:
        """Let it begin to do its work on `arguments`, which are copied."""
        with suppress(BrokenPipeError):  # it has ended, as will be seen when it does not answer
            self.questions.send(arguments)

    def answer(self) -> Any:
        """Wait for what was asked last and return it, or raise what was raised.

        Raises: WorkerError if the process has ended, as when the system kills it because memory is short.
        """
        try:
            result, error, notes = self.answers.recv()
        except EOFError:
            self.process.join()
            raise WorkerError(
                f"one of its processes was ended from outside (exit code {self.process.exitcode}); "
                "is there enough memory?"
            ) from None
        if note := timing.get():
            for each in notes:
                note(*each)
        if error is not None:
            raise error from WorkerError(result)
        return result

    def dismiss(self) -> None:
        """End it at once; it holds nothing that anybody else needs."""
        self.process.kill()
        self.process.join()
        self.questions.close()
        self.answers.close()


Worker = Process | Thread


def _serve(work: Work, questions: Any, answers: Any) -> None:
    """Answer until there is nobody who asks, however that one has ended."""
    # Ctrl-C, and what a shell sends, goes to all processes of a program: it is the first one's to decide what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Files that are open there are open here as well: a lock would outlive the one who holds it, and so would the other
    # end of `questions`, whose closing says that nobody will ask again.
    first, last = sorted((questions.fileno(), answers.fileno()))
    for start, stop in ((3, first), (first + 1, last), (last + 1, os.sysconf("SC_OPEN_MAX"))):
        os.closerange(start, stop)
    notes: list[tuple[str, str, float]] = []
    if timing.get():
        timing.set(lambda *note: notes.append(note))
    answer: tuple[Any, Exception | None, list[Any]] = None, None, notes
    with suppress(EOFError, OSError):
        answers.send(answer)
        while True:
            arguments = questions.recv()
            try:
                answer = work(*arguments), None, notes
            except Exception as error:
                answer = traceback.format_exc(), error, notes
            answers.send(answer)
            notes.clear()
