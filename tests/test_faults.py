"""A disk that fails while a checkpoint is written: one line says so, and the run goes on from the one before."""

import errno
import os
import re
import resource
import sys
from functools import partial

import pytest
from ends import SMALL, TEXT, outcome, state_of

from tinytransformer import writing

OPTIONS = (*TEXT, *SMALL, "--steps", "6", "--valid-every", "2", "--average", "2")


class Disk:
    """Fails in one way for one file, as soon as it is told to."""

    broken = False

    def __init__(self, patch, fault, name):
        self.fault, self.name = fault, name
        self.sync, self.fsync, self.replace = writing._sync, os.fsync, os.replace
        patch.setattr(writing, "open", self.failing_open, raising=False)
        patch.setattr(writing, "_sync", self.failing_sync)
        patch.setattr(os, "fsync", self.failing_fsync)
        patch.setattr(os, "replace", self.failing_replace)

    def meets(self, fault, path):
        return self.broken and fault == self.fault and os.path.basename(path).startswith(self.name)

    def failing_open(self, path, mode):
        if self.meets("read-only", path):
            raise OSError(errno.EROFS, "Read-only file system")
        return open(path, mode)

    def failing_sync(self, file, size):
        file.flush()
        if self.meets("full", file.name) or self.meets("short write", file.name):
            os.ftruncate(file.fileno(), size - 60)
        if self.meets("full", file.name):
            raise OSError(errno.ENOSPC, "No space left on device")
        self.sync_fails = self.meets("failing fsync", file.name)
        self.sync(file, size)

    def failing_fsync(self, descriptor):
        if self.broken and self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        self.fsync(descriptor)

    def failing_replace(self, source, target):
        if self.meets("no move", target):
            raise PermissionError(errno.EACCES, "Permission denied")
        self.replace(source, target)


@pytest.fixture
def run_script(train_script, folder, monkeypatch):
    """Return a function that runs train.py, calls `at_step(step)` after each step, and returns what it ends with."""
    meter = train_script.Meter.__call__
    monkeypatch.chdir(folder)
    monkeypatch.setattr(train_script, "keep_freed_memory", lambda: None)

    def run(*arguments, at_step=lambda step: None):
        def report(bar, progress):
            meter(bar, progress)
            at_step(progress.step)

        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.setattr(train_script.Meter, "__call__", report)
        try:
            train_script.main()
        except SystemExit as caught:
            return caught.code
        return 0

    return run


@pytest.fixture(scope="module")
def whole(call, folder):
    """What a run leaves that met no fault."""
    assert call("train.py", *OPTIONS, "--out", "whole")[0] == 0
    return outcome(folder / "whole")


WORDS = {
    "full": "No space left on device",
    "short write": "only [0-9]+ of [0-9]+ bytes were written",
    "failing fsync": "Input/output error",
    "read-only": "Read-only file system",
    "no move": "Permission denied",
}
TABLE = [
    (fault, name)
    for fault in WORDS
    for name in ("state", "step-", "metrics")
    if (fault, name) != ("no move", "metrics")
]


@pytest.mark.parametrize(("fault", "name"), TABLE)
def test_a_fault_is_told_in_one_line_and_the_run_goes_on_from_before(
    run_script, whole, monkeypatch, tmp_path, fault, name
):
    """At the fourth step; what was saved at the second is there, and nothing of the fourth is in its way."""
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        disk = Disk(patch, fault, name)
        code = run_script(*OPTIONS, "--out", str(run), at_step=lambda step: setattr(disk, "broken", step == 4))
    files = {"state": "state.safetensors", "step-": "step-00000004.safetensors", "metrics": "metrics.jsonl"}
    before, words = f"train.py: error: {run / files[name]}: ", WORDS[fault]
    assert code.startswith(before)
    assert re.fullmatch(words, code.removeprefix(before))
    assert state_of(run)["step"] == 2
    assert not list(run.glob("*.tmp"))
    assert run_script("--resume", "--out", str(run)) == 0
    assert outcome(run) == whole


def test_best_weights_that_a_state_counts_on_take_their_place_later(run_script, monkeypatch, tmp_path):
    """After the last step, whose state is saved, they cannot be moved; no other validation will do it."""
    single = OPTIONS[: OPTIONS.index("--average")]
    for name, broken_at in (("run", 6), ("undisturbed", 0)):
        with monkeypatch.context() as patch:
            disk = Disk(patch, "no move", "model")
            at_step = partial(lambda disk, last, step: setattr(disk, "broken", step == last), disk, broken_at)
            code = run_script(*single, "--out", str(tmp_path / name), at_step=at_step)
        assert bool(code) == bool(broken_at)
    assert state_of(tmp_path / "run")["step"] == 6
    assert list((tmp_path / "run").glob("best-*"))
    assert run_script("--resume", "--out", str(tmp_path / "run")) == 0
    assert outcome(tmp_path / "run") == outcome(tmp_path / "undisturbed")


def test_a_file_that_may_grow_no_further(run_script, whole, tmp_path):
    """The system itself writes less than it was given, and refuses the rest: weights fit, the state does not."""
    run, (_, hard) = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    full = {4: 1 << 21}
    try:
        code = run_script(
            *OPTIONS,
            "--out",
            str(run),
            at_step=lambda step: step in full and resource.setrlimit(resource.RLIMIT_FSIZE, (full[step], hard)),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert code == f"train.py: error: {run / 'state.safetensors'}: File too large"
    assert state_of(run)["step"] == 2
    assert run_script("--resume", "--out", str(run)) == 0
    assert outcome(run) == whole


@pytest.mark.skipif(writing.fcntl is None, reason="this system has no flock")
@pytest.mark.parametrize("arguments", [("--resume",), (*OPTIONS, "--overwrite")])
def test_a_second_run_into_one_directory_is_refused(run_script, whole, folder, arguments):
    """Nothing there is touched; and when the first is over, the second may."""
    with writing.only_writer(folder / "whole"):
        code = run_script(*arguments, "--out", "whole")
    assert code == "train.py: error: whole: another training is writing into it"
    assert outcome(folder / "whole") == whole
    assert run_script(*arguments, "--out", "whole") == 0
    assert outcome(folder / "whole") == whole


def test_half_a_file_is_cleared_away(run_script, whole, folder):
    """What a killed run was writing, whether or not it will be written again."""
    (folder / "whole" / "best-00000003.safetensors.tmp").write_bytes(b"half")
    assert run_script("--resume", "--out", "whole") == 0
    assert outcome(folder / "whole") == whole
