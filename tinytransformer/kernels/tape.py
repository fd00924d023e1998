"""What a backward pass leaves for its end: to add the gradients of all leaves to what they have."""

from __future__ import annotations

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.launch import launch

THREADS, MOST_BLOCKS = 256, 256  # for each pair, as many as the largest needs


def add_pairs(pairs: list[tuple[Array, Array]]) -> None:
    """Do x += y for all pairs; no x may be in two of them."""
    flat = [x.flags.c_contiguous and y.flags.c_contiguous and y.size > 0 for x, y in pairs]
    for (x, y), is_flat in zip(pairs, flat, strict=True):
        if not is_flat:
            x += y
    together = [pair for pair, is_flat in zip(pairs, flat, strict=True) if is_flat]
    if together:
        like = together[0][0]
        numbers = [[x.data.ptr for x, _ in together], [y.data.ptr for _, y in together], [x.size for x, _ in together]]
        table = array_module(like).asarray(np.array(numbers, np.int64))
        blocks = min(-(-max(numbers[2]) // (4 * THREADS)), MOST_BLOCKS)
        launch("add_pairs", (blocks, len(together)), (THREADS,), like, table, len(together))
