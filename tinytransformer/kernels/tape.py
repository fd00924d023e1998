"""What a backward pass leaves for its end: to add the gradients of all leaves to what they have."""

from __future__ import annotations

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.launch import launch

THREADS, MOST_BLOCKS = 256, 256  # for each pair, as many as the largest needs
MOST_PAIRS = 65_535  # rows of blocks that a launch can have


def add_pairs(pairs: list[tuple[Array, Array]]) -> None:
    """Do x += y for all pairs; no x may lie in memory where another x or y does."""
    together: list[tuple[Array, Array]] = []
    for x, y in pairs:
        alike = x.dtype == y.dtype == pairs[0][0].dtype and x.shape == y.shape
        if alike and x.size and x.flags.c_contiguous and y.flags.c_contiguous and len(together) < MOST_PAIRS:
            together.append((x, y))
        else:
            x += y
    if together:
        like = together[0][0]
        numbers = [[x.data.ptr for x, _ in together], [y.data.ptr for _, y in together], [x.size for x, _ in together]]
        table = array_module(like).asarray(np.array(numbers, np.int64))
        blocks = min(-(-max(numbers[2]) // (4 * THREADS)), MOST_BLOCKS)
        launch("add_pairs", (blocks, len(together)), (THREADS,), like, table, len(together))
