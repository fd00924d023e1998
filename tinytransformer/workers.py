"""A second pair of hands: someone who is asked to compute something, and answers when it is needed.

On Linux that is a process. It is a copy of this one (a fork), so it has the model and all else from the start, and what
it writes into memory that is shared, this one sees (see `backend.shared`). Threads take turns with Python itself,
whenever an operation begins or ends: two of them need a tenth more time than two processes on a small model, and on the
toy more than one thread alone. They work everywhere, though; so elsewhere it is a thread: macOS's own matrix products
fail in a fork, Windows has none, and a GPU belongs to one process.

Which of the two it is makes no difference to the result, not in a single bit. But a process cannot be forked while
another thread of yours is in a product that BLAS has divided over several threads: OpenBLAS then waits for ever. Who
multiplies beside a training or a search, does it with one thread of BLAS (OPENBLAS_NUM_THREADS=1), or trains with one
replica.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from multiprocessing.connection import Pipe
from time import perf_counter
from typing import Any

from threadpoolctl import threadpool_limits

from tinytransformer.backend import Array, may_fork
from tinytransformer.timing import timing

Work = Callable[..., Any]

PATIENCE = 5e-4  # seconds that a process looks for a message before it sleeps until one comes


class WorkerError(RuntimeError):
    """A process that could not be started, or has ended before it answered."""


def hire(work: Work, x: Array, stack: ExitStack) -> Worker:
    """Return a worker that does `work` on arguments it is handed, close to `x`, an array of the model's.

    It is dismissed when the stack is closed.
    """
    worker = (Process if may_fork(x) else Thread)(work)
    stack.callback(worker.dismiss)
    return worker


class BlasLimit:
    """Holds BLAS to one thread while anybody wants it so, and then gives it back what it had."""

    def __init__(self) -> None:
        self.lock, self.holders = threading.Lock(), 0
        self.limit: Any = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it inside the block. Blocks may overlap, in several threads."""
        with self.lock:
            if self.holders == 0:
                self.limit = threadpool_limits(limits=1, user_api="blas")
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if self.holders == 0:
                    self.limit.restore_original_limits()


one_thread_of_blas = BlasLimit().held


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

    It is forked by hand. `multiprocessing.Process` would close standard input there, for which it may wait for ever,
    and would wait at the end of the program for a worker that nobody has dismissed.

    Raises: WorkerError if the system allows no further process.
    """

    def __init__(self, work: Work):
        try:
            (questions, self.questions), (self.answers, answers) = Pipe(duplex=False), Pipe(duplex=False)
            end, self.end = os.pipe()  # closed by the system when this process ends, however it does
        except OSError as error:
            raise _none_further(error) from None
        try:
            with warnings.catch_warnings():
                # Python warns that another thread may hold a lock, which nobody gives back in the fork. Nothing that a
                # worker does asks for a lock of another thread's; the C library sees to its own, and BLAS to those of
                # threads that rest.
                warnings.simplefilter("ignore", DeprecationWarning)
                self.pid = os.fork()
        except OSError as error:
            os.close(end)
            os.close(self.end)
            raise _none_further(error) from None
        if self.pid == 0:
            try:
                _serve(work, questions, answers, end)
            finally:
                os._exit(1)
        questions.close()
        answers.close()
        os.close(end)
        try:
            self.answer()  # its first says that it is there, and holds no file of ours
        except BaseException:
            self.dismiss()
            raise

    def ask(self, *arguments: Any) -> None:
        """Let it begin to do its work on `arguments`, which are copied."""
        with suppress(BrokenPipeError):  # it has ended, as will be seen when it does not answer
            self.questions.send(arguments)

    def answer(self) -> Any:
        """Wait for what was asked last and return it, or raise what was raised.

        Raises: WorkerError if the process has ended, as when the system kills it because memory is short.
        """
        try:
            result, error, notes = _receive(self.answers)
        except (EOFError, OSError):  # the second in the middle of an answer
            raise WorkerError("one of its processes has been ended from outside; is there enough memory?") from None
        if note := timing.get():
            for each in notes:
                note(*each)
        if error is not None:
            raise error from WorkerError(result)
        return result

    def dismiss(self) -> None:
        """End it at once; it holds nothing that anybody else needs."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.questions.close()
        self.answers.close()
        os.close(self.end)


Worker = Process | Thread


def _none_further(error: OSError) -> WorkerError:
    return WorkerError(f"the system allows no further process ({error.strerror})")


def _serve(work: Work, questions: Any, answers: Any, end: int) -> None:
    """Answer until there is nobody who asks."""
    # Ctrl-C, and what a shell sends, goes to all processes of a program: it is the first one's to decide what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Files that are open there are open here as well: a lock would outlive the one who holds it, and so would the other
    # ends of the pipes, whose closing says that nobody will ask again.
    kept = {1, 2, questions.fileno(), answers.fileno(), end}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with suppress(OSError):  # it was that of the list
                os.close(int(name))
    threading.Thread(target=_end_with, args=(end,), daemon=True).start()
    notes: list[tuple[str, str, float]] = []
    if timing.get():
        timing.set(lambda *note: notes.append(note))
    answers.send((None, None, notes))
    answer: tuple[Any, Exception | None, list[Any]]
    while True:
        arguments = _receive(questions)
        try:
            answer = work(*arguments), None, notes
        except Exception as error:
            answer = traceback.format_exc(), error, notes
        try:
            answers.send(answer)
        except Exception:  # an error that cannot be sent
            answers.send((None, WorkerError(traceback.format_exc()), notes))
        notes.clear()


def _receive(connection: Any) -> Any:
    """Wait for a message and return it. Raises: as `recv`.

    For a moment this looks again and again whether it has come, and leaves the core to others in between, before it
    sleeps: being woken by the system takes longer than most waits of a small model.
    """
    look = select.poll()  # `connection.poll` would make a new one every time
    look.register(connection, select.POLLIN)
    until = perf_counter() + PATIENCE
    while not look.poll(0) and perf_counter() < until:
        os.sched_yield()
    return connection.recv()


def _end_with(end: int) -> None:
    """End this process, in the middle of its work too, when the other end of the pipe is closed."""
    os.read(end, 1)
    os._exit(1)
