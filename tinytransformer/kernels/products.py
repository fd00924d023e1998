"""Matrix products by cuBLAS, asked without CuPy's `matmul`.

That one takes as long to get ready as the GPU takes to multiply. And it copies the matrices of a batch first unless
they lie at equal distances: those of attention do not, as the heads of a sentence lie side by side. But cuBLAS also
takes a list of addresses.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.launch import launch_elements, names_of

NOT, TRANSPOSED = 0, 1  # what cuBLAS calls these, and the two modes it multiplies in
FLOAT32_MATH, TF32_MATH = 0, 3


def product(x: Array, y: Array) -> Array:
    """Return x @ y: (n, k), (k, m) -> (n, m), in float32 or float64."""
    xp, (n, k), m = array_module(x), x.shape, y.shape[1]
    if n * m * k == 0:
        return xp.zeros((n, m), x.dtype)
    z = xp.empty((n, m), x.dtype)
    (x, x_mode, x_apart), (y, y_mode, y_apart) = _dense(x), _dense(y)
    one, zero, name = _numbers(x.dtype)
    # cuBLAS has matrices column by column, NumPy row by row: what is x here it reads as x^T. So it makes z^T = y^T x^T.
    sizes, at = (y_mode, x_mode, m, n, k, one), (y.data.ptr, y_apart, x.data.ptr, x_apart, zero, z.data.ptr, m)
    _multiply(xp, name + "gemm", *sizes, *at)
    return z


def products(x: Array, y: Array, z: Array) -> Array:
    """Write x @ y into `z` and return it: (B, H, n, k), (B, H, k, m), (B, H, n, m), in float32 or float64.

    `z` must lie row by row.
    """
    xp, (batch, heads, n, m), k = array_module(x), z.shape, x.shape[-1]
    if z.size * k == 0:
        z.fill(0)
        return z
    (x, x_mode, x_apart), (y, y_mode, y_apart), (_, _, z_apart) = _dense(x), _dense(y), _dense(z)
    count = batch * heads
    places = xp.empty((3, count), np.int64)
    begins = (x.data.ptr, *x.strides[:2], y.data.ptr, *y.strides[:2], z.data.ptr, *z.strides[:2])
    launch_elements("addresses", count, x, places, count, heads, *begins)
    (one, zero, name), first = _numbers(x.dtype), places.data.ptr
    sizes, at = (y_mode, x_mode, m, n, k, one), (first + 8 * count, y_apart, first, x_apart, zero, first + 16 * count)
    _multiply(xp, name + "gemmBatched", *sizes, *at, z_apart, count)
    return z


def _multiply(xp: Any, name: str, *arguments: int) -> None:
    cublas, handle = xp.cuda.cublas, xp.cuda.device.get_cublas_handle()
    multiply = getattr(cublas, name)
    if not in_tf32():
        multiply(handle, *arguments)
        return
    cublas.setMathMode(handle, TF32_MATH)
    try:
        multiply(handle, *arguments)
    finally:
        cublas.setMathMode(handle, FLOAT32_MATH)  # as CuPy expects it


@cache
def in_tf32() -> bool:
    """Return what `backend.set_precision` has settled before the first product."""
    return os.environ.get("CUPY_TF32") == "1"


def _dense(x: Array) -> tuple[Array, int, int]:
    """Return `x`, whether it lies column by column (TRANSPOSED), and how many elements its rows, or columns, are apart.

    A copy where it lies in neither way, as an array that was stretched by broadcasting.
    """
    (rows, columns), (down, right), size = x.shape[-2:], x.strides[-2:], x.itemsize
    if (right == size or columns == 1) and (down >= columns * size or rows == 1):
        return x, NOT, max(down // size, columns)
    if (down == size or rows == 1) and (right >= rows * size or columns == 1):
        return x, TRANSPOSED, max(right // size, rows)
    return array_module(x).ascontiguousarray(x), NOT, columns


_kept: list[np.ndarray] = []  # so that they stay where they are


@cache
def _numbers(dtype: np.dtype) -> tuple[int, int, str]:
    """Return the addresses of a one and a zero, and the letter that cuBLAS has for their kind."""
    _, letter = names_of(dtype.name)
    pair = np.array([1, 0], dtype)
    _kept.append(pair)
    return pair.ctypes.data, pair.ctypes.data + dtype.itemsize, letter
