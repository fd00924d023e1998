"""NumPy on the CPU, CuPy on an NVIDIA GPU: the one file that imports both.

Operations never name a device. They ask `array_module` for the module of the arrays they were given and call the same
functions on it, so that one source serves both. What costs most they hand over to `kernels`, where `is_on_gpu` says so.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from functools import cache
from typing import Any

import numpy as np

import_error: ImportError | None = None  # why CuPy is not there
try:
    import cupy
except ImportError as error:
    cupy, import_error = None, error

Array = Any  # numpy.ndarray or cupy.ndarray; the two share their methods but no common base class

DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "tf32")
NO_DEVICE = 100  # cudaErrorNoDevice, of CUDA's runtime
# As in CUBLAS_STATUS_ALLOC_FAILED, cudaErrorMemoryAllocation, std::bad_alloc; the last for a thread.
NO_MEMORY = ("ALLOC_FAILED", "MemoryAllocation", "bad_alloc", "Resource temporarily unavailable")


class DeviceError(RuntimeError):
    """The device that was asked for cannot be used; the message says why and what to install."""


def array_module(x: Array) -> Any:
    """Return the module, `numpy` or `cupy`, whose functions work on the array `x`."""
    return cupy if is_on_gpu(x) else np


def is_on_gpu(x: Array) -> bool:
    """Return whether `x` is on a GPU: then some operations are handed over whole, to `kernels`."""
    return cupy is not None and isinstance(x, cupy.ndarray)


def require_device(device: str) -> None:
    """Raise DeviceError unless arrays can be placed on `device`, "cpu" or "cuda", and be computed with there."""
    if device not in DEVICES:
        raise DeviceError(f"device {device!r} is unknown; expected one of: {', '.join(DEVICES)}")
    if device == "cuda" and (reason := _why_no_cupy() if cupy is None else _why_no_gpu(cupy)):
        raise DeviceError(f"device 'cuda' {reason}")


def _why_no_cupy() -> str:
    """Return why CuPy is not there, and what to install, in one line."""
    if import_error is None or (isinstance(import_error, ModuleNotFoundError) and import_error.name == "cupy"):
        return f"needs CuPy, which is not installed; {EITHER}"
    why = _one_line(import_error.__cause__ or import_error)
    return f"needs CuPy, which is installed but cannot be imported ({why}); remove it, and {EITHER}"


@cache
def _why_no_gpu(cupy: Any) -> str | None:
    """Return why CuPy cannot compute, and what to install, in one line; None if it can."""
    runtime, install = cupy.cuda.runtime, EITHER
    try:
        driver, own = runtime.driverGetVersion(), runtime.runtimeGetVersion()  # of CUDA: 12080 is 12.8; no driver, 0
        if driver == 0:
            return "needs an NVIDIA driver, and there is none; install the one for your card from nvidia.com/drivers"
        if driver // 1000 < own // 1000:
            other = f"remove it, and {_install(driver // 1000)}" if driver >= 12000 else "install a newer driver"
            return f"has a driver for CUDA {driver // 1000}, but CuPy is built for CUDA {own // 1000}; {other}"
        install = _install(own // 1000)
        if runtime.getDeviceCount():
            # cuBLAS, a kernel compiled on the spot, a reduction; not in float32, for which CuPy would settle on TF32 or
            # not, for the whole process, before `set_precision` has been called
            ones = cupy.ones((2, 2), dtype=np.float64)
            (ones @ ones + ones).sum()
            return None
    except Exception as error:  # whatever it is: training would end in the same
        if getattr(error, "status", None) != NO_DEVICE:
            return f"fails at its first steps ({_one_line(error)}); for CUDA's libraries {install}"
    return "needs an NVIDIA GPU, and the driver finds none; is one plugged in, and named in CUDA_VISIBLE_DEVICES?"


def _install(version: int) -> str:
    return f"run: pip install -e '.[cuda{version}]'"


EITHER = f"{_install(13)} (or '.[cuda12]' for a CUDA 12 driver)"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def set_precision(precision: str) -> None:
    """Let a GPU multiply matrices in "float32", or faster in "tf32", which reads 10 of its 23 bits of mantissa.

    For scripts alone, before the first product: it holds for the whole process. TF32 needs an Ampere card or newer.
    """
    os.environ["CUPY_TF32"] = str(int(precision == "tf32"))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory has run out, on the host or on a GPU.

    CuPy's own is a MemoryError; where a library in C++, such as CUDA's, finds none left, only its text tells.
    """
    of_library = isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)
    return of_library or isinstance(error, MemoryError)


def cores(x: Array) -> int:
    """Return how many processes can compute at once where `x` stands: on a CPU as many as it has cores to give."""
    if array_module(x) is not np:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def to_device(x: Array, device: str) -> Array:
    """Return `x` as an array on `device`; an array that is there already is returned as it is."""
    require_device(device)
    return cupy.asarray(x) if device == "cuda" else to_host(x)


def to_host(x: Array) -> np.ndarray:
    """Return `x` as a NumPy array; waits for a GPU that is still computing it."""
    return np.asarray(x) if array_module(x) is np else cupy.asnumpy(x)


def may_fork(x: Array) -> bool:
    """Return whether others may work on `x` in forks of this process: on Linux, and not on a GPU. See workers.py."""
    return array_module(x) is np and sys.platform == "linux"


def shared(x: Array) -> Array:
    """Return a copy of `x` in memory that this process shares with its later forks; where it may not fork, `x` itself.

    Raises: MemoryError if there is none.
    """
    if not may_fork(x):
        return x
    try:
        memory = mmap.mmap(-1, x.nbytes)
    except OSError as error:
        raise MemoryError(f"{x.nbytes:,} bytes to be shared: {error.strerror}") from None
    y = np.frombuffer(memory, dtype=x.dtype).reshape(x.shape)
    y[...] = x
    return y


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


def random_bytes(x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw one byte for every element of `x`.

    They are those of whole words, the lowest byte first. That takes a third of the time of `generator.bytes`, which
    draws halves of words, and copies them.
    """
    words = generator.integers(0, 2**64 - 1, size=-(-x.size // 8), dtype=np.uint64, endpoint=True)
    return words.astype("<u8", copy=False).view(np.uint8)[: x.size].reshape(x.shape)
