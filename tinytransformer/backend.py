"""NumPy on the CPU, CuPy on an NVIDIA GPU: the one file that knows which.

Operations never name a device. They ask `array_module` for the module of the arrays they were given and
call the same functions on it, so that one source serves both.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import numpy as np

try:
    import cupy
except ImportError:
    cupy = None

Array = Any  # numpy.ndarray or cupy.ndarray; the two share their methods but no common base class

DEVICES = ("cpu", "cuda")


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why and what to install."""


def array_module(x: Array) -> Any:
    """Return the module, `numpy` or `cupy`, whose functions work on the array `x`."""
    return np if cupy is None else cupy.get_array_module(x)


def require_device(device: str) -> None:
    """Raise DeviceError unless arrays can be placed on `device`, "cpu" or "cuda"."""
    if device not in DEVICES:
        raise DeviceError(f"device {device!r} is unknown; expected one of: {', '.join(DEVICES)}")
    if device == "cpu":
        return
    if cupy is None:
        raise DeviceError(
            "device 'cuda' needs CuPy, which is not installed; "
            "run: pip install -e '.[cuda13]' (or '.[cuda12]' for a CUDA 12 driver)"
        )
    try:
        available = cupy.cuda.is_available()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"device 'cuda' cannot be used: {error}") from error
    if not available:
        raise DeviceError("device 'cuda' needs an NVIDIA GPU with a driver, and CuPy finds none")


def to_device(x: Array, device: str) -> Array:
    """Return `x` as an array on `device`; an array that is there already is returned as it is."""
    require_device(device)
    return cupy.asarray(x) if device == "cuda" else to_host(x)


def to_host(x: Array) -> np.ndarray:
    """Return `x` as a NumPy array; waits for a GPU that is still computing it."""
    return np.asarray(x) if array_module(x) is np else cupy.asnumpy(x)


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next array, instead of giving it back to the system.

    On Linux it gives large arrays back, and has to fault them in again, page by page, at every step: up to a third of
    the time of a training. For scripts alone: a library must not change what is shared by the whole process.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library other than glibc
        return
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # glibc, malloc.h
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 1 << 28)
    mallopt(mmap_threshold, 1 << 30)
    mallopt(arena_max, 1)  # or other threads would have arenas of their own, which the above does not reach


def random_bytes(x: Array, generator: np.random.Generator) -> Array:
    """Draw one byte for every element of `x`, and put them where `x` is: the same bytes on every device.

    Bytes cost a third of what uniform floats cost.
    """
    drawn = np.frombuffer(generator.bytes(x.size), dtype=np.uint8).reshape(x.shape)
    return array_module(x).asarray(drawn)
