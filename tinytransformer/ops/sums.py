"""Sums, and what else is asked of rows again and again, each by the fastest route.

For sums that is BLAS on a CPU; a GPU adds as fast as it reads, and its products would round to TF32 where that is asked
for.
"""

from __future__ import annotations

import math

import numpy as np

from tinytransformer import kernels
from tinytransformer.backend import Array, is_on_gpu

SHORT = 64  # the longest rows whose maxima are taken column by column,
MANY = 16  # where there are so many times as many rows as columns
MODERATE = 60.0  # e^60 is 1e26: far from the ends of float32, however many are added up
FEW = 1 << 19  # elements that stay in the last cache, 2 MiB in float32; with fewer, calls cost more than that saves


def rows_of(x: Array) -> Array:
    """Lay all rows one below the other: (..., d) -> (N, d). With -1 for N, NumPy would not know it where d is 0."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def sum_to_last(x: Array) -> Array:
    """Sum over all axes but the last, on a CPU: (..., d) -> (d,)."""
    rows = rows_of(x)
    return _ones(len(rows), x.dtype) @ rows  # a product with ones: BLAS adds rows 2.5 times faster


def sum_last(x: Array) -> Array:
    """Sum over the last axis, and keep it: (..., d) -> (..., 1)."""
    if is_on_gpu(x):
        return x.sum(axis=-1, keepdims=True)
    return (rows_of(x) @ _ones(x.shape[-1], x.dtype)).reshape(*x.shape[:-1], 1)  # BLAS again


_longest_ones: dict[np.dtype, np.ndarray] = {}  # of each dtype


def _ones(count: int, dtype: np.dtype) -> np.ndarray:
    """Return so many ones, which cannot be written to: making them anew takes as long as adding up a small array."""
    ones = _longest_ones.get(dtype)
    if ones is None or len(ones) < count:
        ones = np.ones(count, dtype=dtype)
        ones.flags.writeable = False
        _longest_ones[dtype] = ones
    return ones[:count]


def sum_of_products(x: Array, y: Array) -> Array:
    """Sum x * y over the last axis, and keep it: (..., d), (..., d) -> (..., 1)."""
    if is_on_gpu(x):
        return (x * y).sum(axis=-1, keepdims=True)
    # This never makes the array x * y. Nor does vecdot, which is faster, but NumPy 2.0 gives other last bits by chance.
    return np.einsum("...d,...d->...", x, y)[..., None]


def max_last(x: Array) -> Array:
    """Take the largest over the last axis, and keep it: (..., d) -> (..., 1)."""
    if is_on_gpu(x):
        return x.max(axis=-1, keepdims=True)
    d = x.shape[-1]
    if d > SHORT or x.size < MANY * d * d:
        starts = np.arange(0, x.size, d)
        return np.maximum.reduceat(x.reshape(-1), starts).reshape(*x.shape[:-1], 1)  # begins a row faster than `max`
    largest = x[..., 0].copy()
    for i in range(1, d):  # a column at a time: NumPy takes longer to begin a short row than to read it
        np.maximum(largest, x[..., i], out=largest)
    return largest[..., None]


def is_moderate(scores: Array) -> bool:
    """Return whether e^scores neither overflows nor vanishes, even summed up, so that no maximum has to be taken out.

    scores: all, or only the largest of every row, which is enough: what vanishes beside that may.

    To find it out is cheap on a CPU; on a GPU the answer would have to be waited for.
    """
    if is_on_gpu(scores):
        return False
    return bool(scores.min(initial=0) > -MODERATE and scores.max(initial=0) < MODERATE)


def few_rows(x: Array) -> list[slice]:
    """Divide the rows of x, (rows, n), into blocks that stay in the cache while pass after pass goes over them.

    A GPU, for which every pass is a call, gets them all in one.
    """
    return row_blocks(*x.shape, most=x.size if is_on_gpu(x) else FEW)


def row_blocks(rows: int, n: int, *, most: int) -> list[slice]:
    """Divide rows of n elements into blocks of at most `most` elements, or of one row if that has more."""
    size = max(1, most // max(1, n))
    return [slice(first, first + size) for first in range(0, rows, size)]


def sum_rows_by_id(rows: Array, ids: Array, count: int) -> Array:
    """Add up the rows that carry the same id: rows (N, d), ids (N,) -> (count, d); no such row, zeros.

    Sorting by id puts equal ids next to each other, so each becomes one segment.
    """
    if is_on_gpu(rows):
        return kernels.sum_rows_by_id(rows, ids, count)
    sums = np.zeros((count, rows.shape[-1]), dtype=rows.dtype)
    if len(ids) == 0:
        return sums
    order = np.argsort(ids, kind="stable")
    rows, ids = rows[order], ids[order]
    first = np.ones(len(ids), dtype=bool)  # whether a segment begins here
    first[1:] = ids[1:] != ids[:-1]
    starts = np.flatnonzero(first)
    sums[ids[starts]] = np.add.reduceat(rows, starts, axis=0)
    return sums
