"""Matrix products: where nearly all the arithmetic of a Transformer is done."""

from __future__ import annotations

from tinytransformer import kernels
from tinytransformer.backend import is_on_gpu
from tinytransformer.ops.checks import require, require_broadcast, require_shape, shape_of
from tinytransformer.ops.sums import rows_of, sum_to_last
from tinytransformer.tensor import op


@op(broadcasts=True)
def matmul(x, y):
    """z = x @ y, a matrix product for every pair of matrices in a batch.

    Forward: z[i, j] = sum over k of x[i, k] * y[k, j].

    Backward. Nudge both; as a product has it, z' = x' @ y + x @ y'. The first part moves L by

        sum over i, j of dz[i, j] * (sum over k of x'[i, k] * y[k, j])
            = sum over i, k of (sum over j of dz[i, j] * y[k, j]) * x'[i, k]

    and the bracket before x'[i, k] is the entry [i, k] of a product with y transposed. Likewise for y':

        dx = dz @ y^T
        dy = x^T @ dz

    Shapes: arrays x (..., n, k), y (..., k, m) -> (..., n, m); the leading axes broadcast.
    Raises: ShapeError if there are fewer than two axes, the inner sizes differ, or the others do not broadcast.
    """
    left, right = shape_of(x), shape_of(y)
    require(
        len(left) >= 2 and len(right) >= 2 and left[-1] == right[-2],
        "matmul",
        f"shapes {left} and {right} do not fit as (..., n, k) and (..., k, m)",
    )
    require_broadcast("matmul", left[:-2], right[:-2])

    def backward(dz):
        return dz @ y.swapaxes(-1, -2), x.swapaxes(-1, -2) @ dz

    return x @ y, backward


@op
def linear(x, weight, bias):
    """y = x @ weight + bias, at every position alike.

    Backward. Let the rows of x and y be all positions, one below the other. Then y' = x' @ weight + x @ weight' +
    bias', with the same bias' in every row, and as for `matmul`

        dx      = dy @ weight^T
        dweight = x^T @ dy                  (a sum over all positions, since each used the same weight)
        dbias   = sum of dy over all positions      (so did the bias)

    Shapes: x (..., n), weight (n, m), bias (m,) or None -> (..., m).
    Raises: ShapeError if they do not fit.
    """
    require(
        weight.ndim == 2 and x.ndim >= 1 and x.shape[-1] == weight.shape[0],
        "linear",
        f"x of shape {x.shape} and weight of shape {weight.shape} do not fit as (..., n) and (n, m)",
    )
    require_shape("linear", weight.shape[1:], bias=bias)
    if is_on_gpu(x):
        return kernels.linear(x, weight, bias)
    rows = rows_of(x)  # one large product; at three axes NumPy makes one per sentence
    y = rows @ weight
    if bias is not None:
        y += bias

    def backward(dy):
        dy = rows_of(dy)
        dx = (dy @ weight.T).reshape(x.shape)
        return dx, rows.T @ dy, None if bias is None else sum_to_last(dy)

    return y.reshape(*x.shape[:-1], weight.shape[1]), backward
