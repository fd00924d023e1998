"""Writing: where it can be done, whole or not at all, and a line at a time."""

import errno
import os
import re
import subprocess
import sys

import pytest

from tinytransformer import writing
from tinytransformer.writing import WritingError, append_line, only_writer, require_writable, write_atomically


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_directory_that_could_be_written_into_is_neither_refused_nor_made(tmp_path):
    (tmp_path / "there").mkdir()
    for path in (tmp_path, tmp_path / "there", tmp_path / "new", tmp_path / "new" / "and" / "deep"):
        require_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("below", ["", "run", "run/1"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(WritingError, match=f"^{re.escape(str(file))} is not a directory$"):
        require_writable(file / below)


@pytest.mark.parametrize("below", ["", "new", "new/deep"])
def test_a_directory_that_may_not_be_written_into_is_named(tmp_path, monkeypatch, below):
    """The nearest one that there is, which is asked for the right to write."""
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(WritingError, match=f"^{re.escape(str(tmp_path))} cannot be written into$"):
        require_writable(tmp_path / below)
    assert [(str(path), mode) for path, mode in asked] == [(str(tmp_path), os.W_OK)]


def test_a_link_that_leads_nowhere_is_in_the_way(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "not mounted")
    with pytest.raises(WritingError, match="run is not a directory"):
        require_writable(tmp_path / "run")


def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def cut(descriptor):
    """Lose the end of a file, and say nothing."""
    os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)


FAULTS = {
    "the disk is full": ("fsync", fail, "No space left on device"),
    "it cannot be moved": ("replace", fail, "No space left on device"),
    "the end is lost": ("fsync", cut, "only 2500 of 5000 bytes were written"),
}


@pytest.mark.parametrize(("function", "fault", "words"), FAULTS.values(), ids=FAULTS)
def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch, function, fault, words):
    """And nothing beside it: half a file would only take the room that is missing. The error names the file."""
    old, new = tmp_path / "old", tmp_path / "new"
    write_atomically(old, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fault)
        for path in (old, new):
            with pytest.raises(OSError, match=words) as caught:
                write_atomically(path, b"after" * 1000)
            assert caught.value.filename == str(path)
    assert contents(tmp_path) == {"old": b"before"}
    write_atomically(old, b"after")
    assert contents(tmp_path) == {"old": b"after"}


def test_content_is_on_disk_before_it_is_moved_and_the_move_after(tmp_path, monkeypatch):
    """Whole content, fsync of the file, move, fsync of the directory; the move never crosses directories."""
    events = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        size = os.fstat(descriptor).st_size
        events.append("directory" if os.path.isdir(f"/dev/fd/{descriptor}") else f"file of {size}")
        fsync(descriptor)

    def spy_replace(source, target):
        assert source.parent == target.parent == tmp_path
        events.append("move")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomically(tmp_path / "file", b"12345")
    assert events == ["file of 5", "move", *["directory"] * (os.name == "posix")]


def test_a_line_is_added_and_is_on_disk(tmp_path, monkeypatch):
    """Line for line, whatever stands in it; on the disk before the function returns."""
    path, sizes = tmp_path / "lines", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    for line in ("one", "Größe \u2028", "three"):
        append_line(path, line)
    assert path.read_bytes() == "one\nGröße \u2028\nthree\n".encode()
    assert sizes == [4, 16, 22]


@pytest.mark.parametrize(("fault", "left"), [(fail, b"one\ntwo\n"), (cut, b"one\n")])
def test_a_line_that_could_not_be_added_is_an_error(tmp_path, monkeypatch, fault, left):
    path = tmp_path / "lines"
    append_line(path, "one")
    monkeypatch.setattr(os, "fsync", fault)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - what it says is tested above
        append_line(path, "two")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == left


HOLDER = """
import pathlib, sys, time
from tinytransformer.writing import only_writer
with only_writer(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
locks = pytest.mark.skipif(writing.fcntl is None, reason="this system has no flock")


@locks
def test_a_directory_has_one_writer_and_is_free_when_that_is_killed(tmp_path):
    """Nothing is left of the lock, and nothing of it ever stands in the directory."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        message = f"^{re.escape(str(tmp_path))}: another training is writing into it$"
        with pytest.raises(WritingError, match=message), only_writer(tmp_path):
            pytest.fail("two have it")
        assert not list(tmp_path.iterdir())
        holder.kill()
    for _ in range(2):
        with only_writer(tmp_path):
            pass


@locks
def test_nothing_is_written_into_a_directory_that_has_taken_the_place_of_ours(tmp_path):
    """Somebody has moved the run away, and another training has begun a run of that name."""
    run = tmp_path / "run"
    run.mkdir()
    message = f"^{re.escape(str(run))} is no longer the directory that this training began in$"
    with only_writer(run):
        write_atomically(run / "state", b"ours")
        run.rename(tmp_path / "moved")
        run.mkdir()
        (run / "state.tmp").write_bytes(b"half of theirs")
        (run / "state").write_bytes(b"theirs")
        for write in (
            lambda: write_atomically(run / "state", b"ours"),
            lambda: append_line(run / "metrics", "ours"),
            lambda: writing.move(run / "state.tmp", run / "state"),
        ):
            with pytest.raises(WritingError, match=message):
                write()
    assert contents(run) == {"state": b"theirs", "state.tmp": b"half of theirs"}
    assert contents(tmp_path / "moved") == {"state": b"ours"}
    append_line(run / "metrics", "anybody's")  # once it is held no longer


@locks
def test_a_system_that_cannot_lock_is_no_obstacle(tmp_path, monkeypatch):
    """A drive without locks, and Windows."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    entered = []
    monkeypatch.setattr(writing.fcntl, "flock", refuse)
    with only_writer(tmp_path):
        entered.append("drive")
    monkeypatch.setattr(writing, "fcntl", None)
    with only_writer(tmp_path):
        entered.append("Windows")
    assert entered == ["drive", "Windows"]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files as Linux shows them")
def test_no_file_stays_open(tmp_path):
    before = os.listdir("/proc/self/fd")
    with only_writer(tmp_path):
        write_atomically(tmp_path / "file", b"content")
        append_line(tmp_path / "lines", "line")
    assert os.listdir("/proc/self/fd") == before
