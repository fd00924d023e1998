"""Layer normalisation: every position gets mean 0 and, but for eps, standard deviation 1; then a scale and a shift."""

from __future__ import annotations

from tinytransformer import kernels
from tinytransformer.backend import array_module, is_on_gpu
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

    Backward. Nudge x by x'. From s^2 = mean((x - mu)^2) + eps follows 2 * s * s' = 2 * mean((x - mu) * (x' - mu')), in
    which mu' drops out, because mean(x - mu) = 0. So

        mu'   = mean(x')
        s'    = mean((x - mu) * x') / s = mean(xhat * x')
        xhat' = (x' - mu' - xhat * s') / s = (x' - mean(x') - xhat * mean(xhat * x')) / s
        y'    = gain' * xhat + gain * xhat' + bias'

    Pair with dy. With dxhat = dy * gain, what xhat' moves is sum(dxhat * xhat'), in three parts. A mean that stands
    beside x' can change sides, since sum(a) * mean(b) = mean(a) * sum(b):

        sum(dxhat * x')                       = sum(dxhat * x')
        sum(dxhat * mean(x'))                 = sum(mean(dxhat) * x')
        sum(dxhat * xhat * mean(xhat * x'))   = sum(xhat * mean(xhat * dxhat) * x')

        dx    = (dxhat - mean(dxhat) - xhat * mean(xhat * dxhat)) / s
        dgain = sum of dy * xhat over all positions         (gain and bias were used at every position)
        dbias = sum of dy over all positions

    (dx is to dxhat what xhat' is to x'. That is no law: here the map happens to be symmetric.)

    Shapes: x (..., d), gain (d,), bias (d,) -> (..., d).
    Raises: ShapeError if gain or bias is not (d,).
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450, equations 3 and 4.
    """
    require_shape("layer_norm", x.shape[-1:], gain=gain, bias=bias)
    if is_on_gpu(x):
        return kernels.layer_norm(x, gain, bias, eps)
    d = x.shape[-1]
    centred = x - sum_last(x) / d
    inv_std = 1 / array_module(x).sqrt(sum_of_products(centred, centred) / d + eps)
    xhat = centred * inv_std

    def backward(dy):
        dxhat = dy * gain
        dx = dxhat - sum_last(dxhat) / d
        dx -= xhat * (sum_of_products(xhat, dxhat) / d)
        dx *= inv_std
        return dx, sum_to_last(dy * xhat), sum_to_last(dy)

    y = gain * xhat
    y += bias
    return y, backward
