"""Writing: where it can be done, whole or not at all, and a line at a time."""

import json
import os
import re

import pytest

from tinytransformer.checkpoint import CheckpointError, append_metrics, require_writable, write_atomically


def test_a_directory_that_could_be_written_into_is_neither_refused_nor_made(tmp_path):
    (tmp_path / "there").mkdir()
    for path in (tmp_path, tmp_path / "there", tmp_path / "new", tmp_path / "new" / "and" / "deep"):
        require_writable(path)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("below", ["", "run", "run/1"])
def test_a_file_in_the_way_is_named(tmp_path, below):
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(file))} is not a directory$"):
        require_writable(file / below)


@pytest.mark.parametrize("below", ["", "new", "new/deep"])
def test_a_directory_that_may_not_be_written_into_is_named(tmp_path, monkeypatch, below):
    """The nearest one that there is, which is asked for the right to write."""
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(CheckpointError, match=f"^{re.escape(str(tmp_path))} cannot be written into$"):
        require_writable(tmp_path / below)
    assert [(str(path), mode) for path, mode in asked] == [(str(tmp_path), os.W_OK)]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_content(tmp_path, monkeypatch, function):
    def fail(*_):
        raise OSError(28, "No space left on device")

    old, new = tmp_path / "old", tmp_path / "new"
    write_atomically(old, b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        for path in (old, new):
            with pytest.raises(OSError, match="No space left"):
                write_atomically(path, b"after" * 1000)
    assert old.read_bytes() == b"before"
    assert not new.exists()
    write_atomically(old, b"after")
    assert old.read_bytes() == b"after"
    assert [path.name for path in tmp_path.glob("old*")] == ["old"]


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


def test_metrics_are_lines_of_json(tmp_path):
    rows = [{"step": 1, "loss": 2.5}, {"step": 2, "note": "Größe\n"}, {"step": 3}]
    for row in rows:
        append_metrics(tmp_path, row)
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
