"""Embedding: from the id of a token to its vector."""

from __future__ import annotations

from tinytransformer.ops.checks import require, require_ids
from tinytransformer.ops.sums import rows_of, sum_rows_by_id
from tinytransformer.tensor import op


@op
def embedding(table, *, ids):
    """y = table[ids]: the row of the table that each id names.

    It is the product of one-hot rows with the table, without the multiplications by zero.

    Backward. y' at a position is the nudge of the row that its id names. A token that stands in many positions
    receives the sum of their gradients, a token that stands in none 0:

        dtable[v] = sum of dy over the positions with id v

    Shapes: table (V, d), ids (...) of integers -> (..., d).
    Raises: ShapeError if the table is not a matrix, TypeError if the ids are not integers, IndexError if one is
    not in [0, V).
    Source: Phuong and Hutter 2022, arXiv:2207.09238, algorithm 1.
    """
    require(table.ndim == 2, "embedding", f"table has shape {table.shape}, expected (V, d)")
    require_ids("embedding", ids, len(table))

    def backward(dy):
        return (sum_rows_by_id(rows_of(dy), ids.reshape(-1), len(table)),)

    return table[ids], backward
