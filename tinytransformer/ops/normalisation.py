"""Layer normalisation: every position gets mean 0 and standard deviation 1 before it is scaled and shifted."""

from __future__ import annotations

from tinytransformer.backend import array_module
from tinytransformer.ops.checks import require_shape
from tinytransformer.ops.sums import sum_last, sum_of_products, sum_to_last
from tinytransformer.tensor import op


@op
def layer_norm(x, gain, bias, *, eps=1e-5):
    """Normalise every position over its features, then scale and shift.

    Forward, for one position x of d features:

        mu   = mean(x)
        s    = sqrt(mean((x - mu)^2) + eps)
        xhat = (x - mu) / s
        y    = gain * xhat + bias

    Backward. Nudge x by x'; everything else moves by

        mu'   = mean(x')
        s'    = mean((x - mu) * x') / s = mean(xhat * x')          (the deviations sum to zero)
        xhat' = (x' - mu' - xhat * s') / s = (x' - mean(x') - xhat * mean(xhat * x')) / s

    Pair with the gradient: the loss moves by sum(dxhat * xhat'), with dxhat = dy * gain. The map x' -> xhat' is
    symmetric (so are the identity, the mean, and xhat on both sides), hence dx is the same map applied to dxhat:

        dx    = (dxhat - mean(dxhat) - xhat * mean(xhat * dxhat)) / s
        dgain = sum of dy * xhat over all positions
        dbias = sum of dy over all positions

    Shapes: x (..., d), gain (d,), bias (d,) -> (..., d).
    Raises: ShapeError if gain or bias is not (d,).
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450, equations 3 and 4.
    """
    require_shape("layer_norm", x.shape[-1:], gain=gain, bias=bias)
    d = x.shape[-1]
    centred = x - sum_last(x) / d
    inv_std = 1 / array_module(x).sqrt(sum_of_products(centred, centred) / d + eps)
    xhat = centred * inv_std

    def backward(dy):
        dxhat = dy * gain
        dx = inv_std * (dxhat - sum_last(dxhat) / d - xhat * (sum_of_products(xhat, dxhat) / d))
        return dx, sum_to_last(dy * xhat), sum_to_last(dy)

    return gain * xhat + bias, backward
