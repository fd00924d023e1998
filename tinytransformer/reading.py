"""Reading files that may come from a stranger or from a failing disk.

Nothing in them is run. What they describe is compared with what was expected before memory is taken for it, and a
digest beside the numbers tells when one of them has changed since they were written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors

from tinytransformer.module import Shapes, differences

# Bytes of a configuration, a vocabulary or the header of a file of arrays; what reads them takes up to twenty times as
# much memory. And how many arrays a file may hold, for which versions of safetensors take time in the square.
LARGEST = 1 << 23
MOST_ARRAYS = 5000  # the most layers that a model may have make 4,200


def is_pipe_or_device(path: Path) -> bool:
    """Return whether `path` is something that cannot be read from the beginning again. Raises: OSError."""
    mode = os.stat(path).st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))  # what is a directory is said when it is opened


def open_file(path: Path) -> BinaryIO:
    """Open a file of a run. Raises: OSError, also for a pipe, from which nothing may ever come, or a device."""
    if is_pipe_or_device(path):
        raise OSError(errno.EINVAL, "is no file, but a pipe or a device", str(path))
    return open(path, "rb")


def read_bytes(path: Path) -> bytes:
    """Return the content of a small file. Raises: as `open_file`; ValueError if it has more than LARGEST bytes."""
    with open_file(path) as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST:,} bytes")
    return content


def parse_json(text: str | bytes) -> dict[str, Any]:
    """Return the fields of a JSON object. Raises: ValueError, also for a name that stands twice in one object."""
    try:
        fields = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("its objects are nested too deeply") from None
    if not isinstance(fields, dict):
        raise ValueError(f"it holds a {type(fields).__name__}, expected an object of fields")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {max(names, key=names.count)!r} stands twice")
    return fields


def read_shapes(path: Path) -> Shapes:
    """Return the shape of every array in a safetensors file; no array is read. Raises: as `read_arrays`."""
    with open_file(path) as file:
        header = int.from_bytes(file.read(8), "little")
    if header > LARGEST:
        raise ValueError(f"its header claims {header:,} bytes, expected at most {LARGEST:,}")
    with safetensors.safe_open(path, "np") as file:
        names = file.keys()
        if len(names) > MOST_ARRAYS:
            raise ValueError(f"it holds {len(names):,} arrays, expected at most {MOST_ARRAYS:,}")
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def read_arrays(path: Path, expected: Shapes, dtype: Any) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a safetensors file that holds arrays of these shapes and no others.

    Whether they are those that were written is for the caller to ask, by `digest`.
    Raises: OSError; safetensors.SafetensorError; ValueError that lists what differs, before an array is read, or
    names an array of another type, or with a value that is not finite.
    """
    if problems := differences(read_shapes(path), expected):
        raise ValueError("it does not fit the model: " + problems)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata() or {}
        arrays = {}
        for name in expected:
            kind = file.get_slice(name).get_dtype()
            if kind != f"{np.dtype(dtype).kind.upper()}{8 * np.dtype(dtype).itemsize}":
                raise ValueError(f"{name} has elements of type {kind}, expected {np.dtype(dtype).name}")
            arrays[name] = file.get_tensor(name)
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} holds a value that is not finite")
    return arrays, metadata


def digest(arrays: dict[str, np.ndarray], text: str = "") -> str:
    """Return the SHA-256 of `text` and the arrays, in the order of their names; it finds damage, and no forger."""
    total = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        total.update(np.ascontiguousarray(arrays[name]).data)
    return total.hexdigest()


def in_one_line(reason: object) -> str:
    """Return a message that can be shown: what a file smuggled in is written as escapes, and what is long is cut."""
    text = str(reason)
    text = text if len(text) <= 2000 else f"{text[:2000]} ..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
