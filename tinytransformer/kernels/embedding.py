"""The gradient of an embedding."""

from __future__ import annotations

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.launch import launch_rows


def sum_rows_by_id(rows: Array, ids: Array, count: int) -> Array:
    """`ops.sums.sum_rows_by_id`."""
    xp, d = array_module(rows), rows.shape[-1]
    rows, ids = xp.ascontiguousarray(rows), xp.ascontiguousarray(ids.astype(np.int64, copy=False))
    sums = xp.empty((count, d), rows.dtype)
    launch_rows("sum_rows_by_id", count, d, rows, rows, ids, sums, len(ids), d)
    return sums
