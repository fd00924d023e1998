"""Reductions: many numbers become one. Their gradients go the other way, from one number to many."""

from __future__ import annotations

from tinytransformer.backend import Array, array_module
from tinytransformer.ops.checks import require_axis
from tinytransformer.tensor import op

Axis = int | tuple[int, ...] | None  # None means over everything


@op
def sum(x, *, axis: Axis = None, keepdims=False):
    """y = the sum of x over `axis`.

    Backward. y' is the sum of x' over the axis. In L' = sum(dy * y') every x' stands once, with the dy of the sum
    that it went into:

        dx = dy, repeated along the axis

    Shapes: x any; y loses `axis`, or keeps it with size 1 under `keepdims`.
    Raises: ShapeError if x has no such axis.
    """
    require_axis("sum", axis, x)

    def backward(dy):
        return (_repeat(dy, x, axis, keepdims),)

    return x.sum(axis=axis, keepdims=keepdims), backward


@op
def mean(x, *, axis: Axis = None, keepdims=False):
    """y = the sum of x over `axis`, divided by the number n of elements in each sum.

    Backward. As for the sum, with y' = sum(x') / n:

        dx = dy / n, repeated along the axis

    Shapes and errors: as `sum`.
    """
    require_axis("mean", axis, x)
    y = x.mean(axis=axis, keepdims=keepdims)

    def backward(dy):
        n = x.size // (y.size or 1)  # how many elements went into each mean
        return (_repeat(dy / n, x, axis, keepdims),)

    return y, backward


@op
def max(x, *, axis: Axis = None, keepdims=False):
    """y = the largest element of x along `axis`.

    Backward. y moves with the element that is largest. If k elements tie, the function has a kink; each of them
    gets an equal share, so that the gradient does not depend on their order:

        dx = dy / k at the elements that equal y, else 0

    Shapes and errors: as `sum`.
    """
    require_axis("max", axis, x)
    y = x.max(axis=axis, keepdims=True)

    def backward(dy):
        ties = (x == y).astype(x.dtype)
        return (_repeat(dy, x, axis, keepdims) * ties / ties.sum(axis=axis, keepdims=True),)

    return (y if keepdims else y.reshape(_reduced_shape(x, axis))), backward


@op
def logsumexp(x, *, axis: Axis = -1, keepdims=False):
    """y = ln(sum(e^x)) along `axis`: a smooth maximum, and the logarithm of what softmax divides by.

    Forward. Any constant m may be taken out: y = m + ln(sum(e^(x - m))). With m = max(x) no exponent is above
    0, so nothing overflows, and one is 0, so the sum is at least 1.

    Backward. Nudge x by x':

        y' = sum(e^x * x') / sum(e^x) = sum(p * x')     with p = e^x / sum(e^x), which is called softmax(x)

        dx = dy * p

    Shapes and errors: as `sum`.
    """
    require_axis("logsumexp", axis, x)
    xp = array_module(x)
    largest = x.max(axis=axis, keepdims=True)
    exps = xp.exp(x - largest)
    total = exps.sum(axis=axis, keepdims=True)
    y = largest + xp.log(total)

    def backward(dy):
        return (_repeat(dy, x, axis, keepdims) * exps / total,)

    return (y if keepdims else y.reshape(_reduced_shape(x, axis))), backward


def _reduced_shape(x: Array, axis: Axis) -> tuple[int, ...]:
    """Return the shape of `x` without `axis`."""
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    dropped = {a % x.ndim for a in axes}
    return tuple(size for i, size in enumerate(x.shape) if i not in dropped)


def _repeat(dy: Array, x: Array, axis: Axis, keepdims: bool) -> Array:
    """Repeat `dy` along the reduced `axis`, to the shape of `x`; a view, in which no element is copied."""
    xp = array_module(x)
    if axis is not None and not keepdims:
        dy = xp.expand_dims(dy, axis)
    return xp.broadcast_to(dy, x.shape)
