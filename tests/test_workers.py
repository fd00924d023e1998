"""A worker answers what it was asked, whichever kind it is; a process leaves nothing behind, however anybody ends."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack

import numpy as np
import pytest

from tinytransformer import workers
from tinytransformer.backend import shared
from tinytransformer.tape import NonFiniteError, checking, debugging
from tinytransformer.timing import timing
from tinytransformer.workers import Process, Thread, WorkerError, hire
from tinytransformer.writing import only_writer

forks = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")
KINDS = [Thread, pytest.param(Process, marks=forks)]


@pytest.fixture
def hired():
    """Return a function that hires a worker, who is dismissed when the test ends."""
    staff = []

    def hire_one(kind, work):
        staff.append(kind(work))
        return staff[-1]

    yield hire_one
    for worker in staff:
        worker.dismiss()


@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_what_it_was_asked_last(hired, kind):
    worker = hired(kind, lambda x, y: x - y)
    for i in range(5):
        worker.ask(10 * i, i)
        assert worker.answer() == 9 * i


@pytest.mark.parametrize("kind", KINDS)
def test_it_works_while_the_one_who_asked_does(hired, kind):
    """Each waits for a word from the other; one after the other they would wait for ever."""
    said = shared(np.zeros(2))

    def say(me):
        said[me] = 1
        until = time.monotonic() + 20
        while not said[1 - me]:
            assert time.monotonic() < until, "nobody answers"
            time.sleep(0.001)

    worker = hired(kind, say)
    worker.ask(1)
    say(0)
    worker.answer()


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_writes_into_shared_memory_is_there(hired, kind):
    x, own = shared(np.zeros((2, 3))), np.zeros(1)

    def write(value):
        x[1] = value
        own[0] = value

    worker = hired(kind, write)
    x[0, 0] = 7  # after the fork: it sees that as well
    worker.ask(5.0)
    assert worker.answer() is None
    np.testing.assert_array_equal(x, [[7, 0, 0], [5, 5, 5]])
    assert own[0] == (5 if kind is Thread else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_its_errors_are_raised_where_it_is_asked(hired, kind):
    def fail(error):
        raise error

    worker = hired(kind, fail)
    for error in (MemoryError("no room"), NonFiniteError("linear: the output is not finite"), KeyError("x")):
        worker.ask(error)
        with pytest.raises(type(error), match=r"room|linear|x") as caught:
            worker.answer()
        assert caught.value.args == error.args
        if kind is Process:
            assert "in fail" in str(caught.value.__cause__)  # where it was raised


@pytest.mark.parametrize("kind", KINDS)
def test_the_context_reaches_into_it(hired, kind):
    noted = []

    def work():
        if note := timing.get():
            note("linear", "forward", 0.5)
        return checking.get()

    def ask():
        worker.ask()
        return worker.answer()

    token = timing.set(lambda *note: noted.append(note))
    with debugging():
        worker = hired(kind, work)
        assert ask() is True
        assert ask() is True
    timing.reset(token)
    assert noted == [("linear", "forward", 0.5)] * 2


@forks
@pytest.mark.parametrize("patience", [0, 5e-4])
def test_a_process_that_waits_sleeps(hired, monkeypatch, patience):
    """After a moment, in which it looks whether something comes, it takes no time of the processor."""
    monkeypatch.setattr(workers, "PATIENCE", patience)
    worker = hired(Process, lambda: sum(os.times()[:2]))
    worker.ask()
    worker.answer()
    worker.ask()
    before = worker.answer()
    time.sleep(0.5)
    worker.ask()
    assert worker.answer() - before < 0.1


@forks
def test_a_process_works_for_the_host_on_linux_and_a_thread_elsewhere(gpu, monkeypatch):
    x = np.zeros(3)
    for platform, array, kind in (("linux", x, Process), ("linux", gpu.asarray(x), Thread), ("darwin", x, Thread)):
        monkeypatch.setattr("tinytransformer.backend.sys.platform", platform)
        with ExitStack() as stack:
            worker = hire(os.getpid, array, stack)
            assert type(worker) is kind
        with pytest.raises((OSError, RuntimeError)):  # dismissed
            worker.ask()


@forks
def test_a_process_that_is_killed_is_an_error_in_one_line(hired):
    worker = hired(Process, time.sleep)
    worker.ask(600)
    os.kill(worker.pid, signal.SIGKILL)
    for _ in range(2):  # the second time it cannot even be asked
        with pytest.raises(
            WorkerError, match=r"^one of its processes has been ended from outside; is there enough memory\?$"
        ):
            worker.answer()
        worker.ask(0)


@forks
def test_no_further_pipe_is_an_error_in_one_line(monkeypatch):
    def refuse():
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe", refuse)
    with pytest.raises(WorkerError, match=r"^the system allows no further process \(Too many open files\)$"):
        Process(print)


@forks
def test_no_further_process_is_an_error_in_one_line(monkeypatch):
    def refuse():
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(
        WorkerError, match=r"^the system allows no further process \(Resource temporarily unavailable\)$"
    ):
        Process(os.getpid)


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_the_whole_program_are_not_for_it(hired, number):
    worker = hired(Process, lambda: os.kill(os.getpid(), number) or "still here")
    worker.ask()
    assert worker.answer() == "still here"


EMPLOYER = """
import os, pathlib, signal, sys, time
from tinytransformer.workers import Process
from tinytransformer.writing import only_writer
def work():
    while True:
        pass
if sys.argv[2] == "stdin closed":  # so that the lock has descriptor 0
    os.close(0)
with only_writer(pathlib.Path(sys.argv[1])):
    workers = [Process(work) for _ in range(3)]
    workers[0].ask()  # it will not be done
    print(*(worker.pid for worker in workers), flush=True)
    if sys.argv[2] == "ends":
        sys.exit()  # nobody has dismissed them
    time.sleep(600)
"""


@forks
@pytest.mark.parametrize("case", ["killed", "stdin closed", "ends"])
def test_nobody_stays_and_nothing_is_held_when_the_program_ends(tmp_path, case):
    """At work or not, all end with it."""
    command = [sys.executable, "-c", EMPLOYER, str(tmp_path), case]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        pids = [int(pid) for pid in program.stdout.readline().split()]
        assert len(pids) == 3
        if case != "ends":
            program.kill()
        program.wait(timeout=60)
    with only_writer(tmp_path):  # at once
        pass
    until = time.monotonic() + 60
    while any(map(alive, pids)):
        assert time.monotonic() < until, "a worker outlives the program"
        time.sleep(0.01)


@forks
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), type("Local", (Exception,), {})()])
def test_an_error_that_cannot_be_sent_is_told(hired, error):
    def fail():
        raise error

    worker = hired(Process, fail)
    worker.ask()
    with pytest.raises((OSError, WorkerError), match=r"No space left|Local"):
        worker.answer()


@forks
def test_a_process_that_is_killed_in_the_middle_of_an_answer(hired):
    worker = hired(Process, lambda: b"x" * 10**7)
    worker.ask()
    assert worker.answers.poll(60)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="ended from outside"):
        worker.answer()


THREADED = """
import os, sys, threading, time
from tinytransformer.workers import Process
threading.Thread(target=sys.stdin.read, daemon=True).start()
time.sleep(0.2)
print("not flushed", end="")
worker = Process(os.getpid)
worker.ask()
print(worker.answer() != os.getpid())
worker.dismiss()
sys.stdout.flush()
os._exit(0)
"""


@forks
def test_a_thread_that_reads_standard_input_and_a_buffer_that_is_not_flushed_are_no_obstacles():
    with subprocess.Popen([sys.executable, "-c", THREADED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout.read() == b"not flushedTrue\n"


def test_a_fork_of_the_users_has_a_model_of_its_own(make_model):
    """Memory is shared while a training has workers, and only then."""
    model = make_model(12)
    before = model.parameters.data.copy()
    worker = Process(lambda: model.parameters.data.fill(0)) if sys.platform == "linux" else pytest.skip("no fork")
    worker.ask()
    worker.answer()
    worker.dismiss()
    np.testing.assert_array_equal(model.parameters.data, before)


def alive(pid):
    """Whether the process runs; one that has ended, and that nobody has asked for its exit code, does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_could_not_be_started_leaves_no_file_open(monkeypatch):
    def refuse():
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    before = os.listdir("/dev/fd")
    with pytest.raises(WorkerError):
        Process(print)
    assert os.listdir("/dev/fd") == before
