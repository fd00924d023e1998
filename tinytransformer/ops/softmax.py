"""Softmax and its logarithm: from any numbers to probabilities."""

from __future__ import annotations

from tinytransformer.backend import array_module
from tinytransformer.ops.checks import require_axis
from tinytransformer.tensor import op


@op
def softmax(x, *, axis=-1):
    """y = e^x / sum(e^x) along `axis`: positive numbers that sum to 1.

    Forward. Adding a constant to all of x changes nothing, as it cancels. So the largest x is subtracted first:
    no exponent is then above 0, and nothing overflows.

    Backward, for one row along the axis; rows do not see each other. Let s = sum(e^x), so y = e^x / s. Nudge x by x':

        s' = sum(e^x * x') = s * sum(y * x')
        y' = (e^x * x' - y * s') / s = y * (x' - sum(y * x'))

    Pair with dy. Let k = sum(dy * y), a number:

        L' = sum(dy * y * x') - k * sum(y * x') = sum(y * (dy - k) * x')

        dx = y * (dy - k) = y * (dy - sum(dy * y))

    The gradient sums to zero along the axis, since a constant added to x changes nothing.

    Shapes: any; y has the shape of x.
    Raises: ShapeError if x has no such axis.
    Source: Phuong and Hutter 2022, arXiv:2207.09238, section 5, algorithm 4.
    """
    require_axis("softmax", axis, x)
    y = array_module(x).exp(x - x.max(axis=axis, keepdims=True))
    y /= y.sum(axis=axis, keepdims=True)

    def backward(dy):
        return (y * (dy - (dy * y).sum(axis=axis, keepdims=True)),)

    return y, backward


@op
def log_softmax(x, *, axis=-1):
    """y = ln(softmax(x)) = x - ln(sum(e^x)) along `axis`.

    Taking the logarithm of `softmax` would give -inf where a probability is too small for a float; this form
    stays finite.

    Backward, for one row. With p = e^y, the probabilities, and the nudge of ln(sum(e^x)) from `logsumexp`:

        y' = x' - sum(p * x')

    Pair with dy. L' = sum(dy * x') - sum(dy) * sum(p * x'):

        dx = dy - p * sum(dy)

    Shapes: any; y has the shape of x.
    Raises: ShapeError if x has no such axis.
    """
    require_axis("log_softmax", axis, x)
    xp = array_module(x)
    centred = x - x.max(axis=axis, keepdims=True)
    y = centred - xp.log(xp.exp(centred).sum(axis=axis, keepdims=True))

    def backward(dy):
        return (dy - xp.exp(y) * dy.sum(axis=axis, keepdims=True),)

    return y, backward
