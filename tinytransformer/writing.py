"""Writing so that nothing is lost: a file is there whole or not at all, and a directory has one writer at a time.

Only of a line that is added to a file, part may stand there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BESIDE = ".tmp"  # ends the name of a file that is not whole yet

_held: dict[Path, int] = {}  # descriptors of the directories that this process holds


class WritingError(RuntimeError):
    """A directory that cannot be written into; the message names it and says why."""


def require_writable(directory: Path) -> None:
    """Raise WritingError unless `directory` can be written into, or made; nothing is made yet."""
    existing = directory
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise WritingError(f"{existing} is not a directory")
    if not os.access(existing, os.W_OK):
        raise WritingError(f"{existing} cannot be written into")


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold `directory` inside the block, so that no other process that asks may write into it.

    The system holds the lock, on the directory itself: it ends with the process, however that ends, and leaves no file
    behind. Where there is no such lock, as on Windows and some network drives, nothing is held.

    Raises: WritingError if another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:
                raise WritingError(f"{directory}: another training is writing into it") from None
        _held[directory] = descriptor
        yield
    finally:
        _held.pop(directory, None)
        os.close(descriptor)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either what it held before or all of `content`, whenever the power fails."""
    beside = path.with_name(path.name + BESIDE)
    with _writing(path):
        try:
            beside.unlink(missing_ok=True)  # half a file; or a link of a stranger's, that leads elsewhere
            with open(beside, "xb") as file:
                file.write(content)
                _sync(file, len(content))
            move(beside, path)
        except BaseException:
            with suppress(OSError):  # where the disk is full, half a file is in the way
                beside.unlink()
            raise


def move(source: Path, target: Path) -> None:
    """Give a file another name within its directory, in place of what had that name; afterwards it is so on disk."""
    with _writing(target):
        os.replace(source, target)
        if os.name != "posix":  # elsewhere a directory cannot be opened, and moving is durable by itself
            return
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, and see it onto the disk. If that fails, or the power does, part of it may stand there."""
    with _writing(path), open(path, "ab") as file:
        content = f"{line}\n".encode()
        size = file.seek(0, os.SEEK_END) + len(content)
        file.write(content)
        _sync(file, size)


def _sync(file: BinaryIO, size: int) -> None:
    """Wait until the disk holds what was written, and require that the file is then of `size` bytes."""
    file.flush()
    os.fsync(file.fileno())
    written = os.fstat(file.fileno()).st_size
    if written != size:
        raise OSError(errno.EIO, f"only {written} of {size} bytes were written")


def require_same(directory: Path) -> None:
    """Raise WritingError if another directory stands where one that is held stood: it may have a writer of its own."""
    held = _held.get(directory)
    if held is not None and directory.exists() and not os.path.samestat(os.fstat(held), directory.stat()):
        raise WritingError(f"{directory} is no longer the directory that this training began in")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Let an error of the system name the file; that of a full disk does not by itself. Raises: as `require_same`."""
    require_same(path.parent)
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
