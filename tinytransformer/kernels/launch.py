"""Compile the kernels, and start them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from tinytransformer.backend import Array, array_module

SOURCES = (
    "common",
    "columns",
    "tape",
    "linear",
    "layer_norm",
    "attention",
    "products",
    "dropout",
    "cross_entropy",
    "embedding",
    "adam",
)
PRECISIONS = {"float32": ("float", "s"), "float64": ("double", "d")}  # what C++ calls them, and cuBLAS
MOST_THREADS = 1024  # that a block can have


def source() -> str:
    """Return the code of all kernels; a compiler is to be told what REAL stands for."""
    return "\n".join((Path(__file__).parent / f"{name}.cu").read_text("utf-8") for name in SOURCES)


def launch_rows(name: str, rows: int, width: int, like: Array, *arguments: Any) -> None:
    """Start a kernel with a block of threads for every row, of whose `width` a thread has about four elements."""
    if rows:
        launch(name, (rows,), (min(32 * max(1, -(-width // 128)), MOST_THREADS),), like, *arguments)


def launch_elements(name: str, count: int, like: Array, *arguments: Any) -> None:
    """Start a kernel with a thread for every element."""
    if count:
        launch(name, (-(-count // 256),), (256,), like, *arguments)


def launch(name: str, blocks: tuple[int, ...], threads: tuple[int, ...], like: Array, *arguments: Any) -> None:
    """Start a kernel in the precision of `like`.

    arguments: arrays, and numbers of the very kind that the kernel expects, since nobody converts them: an int of
        Python becomes a `whole` (and 0 stands for an array that is not given), a float a `double`, a bool a `bool`, a
        numpy.uint64 a `word`.
    """
    key = type(like), name, like.dtype.char  # the type, since tests know more than one
    kernel = _kernels.get(key)
    if kernel is None:
        kernel = _kernels[key] = _module(array_module(like), like.dtype.name).get_function(name)
    kernel(blocks, threads, arguments)


_kernels: dict[tuple[type, str, str], Any] = {}


@cache
def _module(cupy: Any, dtype: str) -> Any:
    real, _ = names_of(dtype)
    return cupy.RawModule(code=source(), options=(f"-DREAL={real}",))


def names_of(dtype: str) -> tuple[str, str]:
    """Return what C++ calls a precision, and the letter that cuBLAS has for it. Raises: TypeError if they have none."""
    if dtype not in PRECISIONS:
        raise TypeError(f"on a GPU there is {' and '.join(PRECISIONS)}, got {dtype}")
    return PRECISIONS[dtype]
