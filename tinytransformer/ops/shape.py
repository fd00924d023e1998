"""Operations that move elements without changing them. Their gradients move them back."""

from __future__ import annotations

from types import EllipsisType

import numpy as np

from tinytransformer.backend import array_module
from tinytransformer.ops.checks import require, require_axis, require_ids
from tinytransformer.ops.sums import sum_rows_by_id
from tinytransformer.tensor import ShapeError, op


@op
def reshape(x, *, shape):
    """y = the elements of x, in the same order, in another shape.

    Backward. y' is x' in the new shape, so dx is dy in the old one.

    Shapes: x any, y `shape`, in which one size may be -1. y is a view where x allows it.
    Raises: ShapeError if the number of elements differs.
    """
    try:
        y = x.reshape(shape)
    except ValueError:
        raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fit {shape}") from None

    def backward(dy):
        return (dy.reshape(x.shape),)

    return y, backward


@op
def transpose(x, *, axes):
    """y = x with its axes in another order: axis i of y is axis axes[i] of x.

    Backward. y' is x' with its axes reordered, so dx is dy with its axes put back: axis axes[i] of dx is axis i
    of dy.

    Shapes: x any; `axes` names every axis of x once. y is a view.
    Raises: ShapeError if `axes` is not a permutation of the axes of x.
    """
    axes = tuple(a % x.ndim if -x.ndim <= a < x.ndim else a for a in axes)
    require(
        sorted(axes) == list(range(x.ndim)),
        "transpose",
        f"axes {axes} are not a permutation of the {x.ndim} axes of shape {x.shape}",
    )

    def backward(dy):
        inverse = sorted(range(x.ndim), key=axes.__getitem__)  # where axis 0 of x went, axis 1, ...
        return (dy.transpose(inverse),)

    return x.transpose(axes), backward


@op
def concatenate(*xs, axis=-1):
    """y = the arrays xs, one after the other along `axis`.

    Backward. Each array went into one slice of y; its gradient is that slice of dy.

    Shapes: alike but for `axis`, whose sizes add up.
    Raises: ShapeError if there is no array, or the other sizes differ.
    """
    require(len(xs) > 0, "concatenate", "needs at least one array")
    require_axis("concatenate", axis, xs[0])
    axis %= xs[0].ndim
    for x in xs:
        require(
            x.ndim == xs[0].ndim
            and x.shape[:axis] + x.shape[axis + 1 :] == xs[0].shape[:axis] + xs[0].shape[axis + 1 :],
            "concatenate",
            f"shapes {xs[0].shape} and {x.shape} differ in more than axis {axis}",
        )

    def backward(dy):
        slices, start = [], 0
        for x in xs:
            stop = start + x.shape[axis]
            slices.append(dy[(slice(None),) * axis + (slice(start, stop),)])
            start = stop
        return tuple(slices)

    return array_module(xs[0]).concatenate(xs, axis=axis), backward


@op
def getitem(x, *, key):
    """y = x[key], for a key of integers, slices, None and Ellipsis.

    Backward. The elements that were taken get their dy, all others 0. No element can be taken twice, so putting
    is enough and nothing has to be added up; `gather` and `embedding` are for ids that repeat.

    Shapes: as in NumPy. y is a view, unless the key names a single element.
    Raises: TypeError if the key holds an array or a list; ShapeError if an index does not exist.
    """
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, bool) or not isinstance(part, int | np.integer | slice | EllipsisType | None):
            raise TypeError(f"getitem: keys are integers and slices, got {type(part).__name__}; use gather")
    try:
        y = x[key]
    except IndexError:
        raise ShapeError(f"getitem: key {key} does not exist in shape {x.shape}") from None

    def backward(dy):
        dx = array_module(x).zeros_like(x)
        dx[key] = dy
        return (dx,)

    return y, backward


@op
def gather(x, *, ids):
    """y[..., k] = x[..., ids[..., k]]: from every row, the elements that its ids name.

    Backward. y'[..., k] = x'[..., ids[..., k]]. An element that was taken several times receives the sum of its
    gradients:

        dx[..., j] = sum of dy[..., k] over the k with ids[..., k] = j

    Shapes: x (..., n), ids (..., m) with the same leading sizes -> (..., m).
    Raises: ShapeError if the leading sizes differ, TypeError or IndexError for ids that are no indices.
    """
    require(
        ids.ndim == x.ndim and ids.shape[:-1] == x.shape[:-1],
        "gather",
        f"ids of shape {ids.shape} do not match x of shape {x.shape} in all axes but the last",
    )
    require_ids("gather", ids, x.shape[-1])
    xp = array_module(x)

    def backward(dy):
        width = x.shape[-1]
        row = xp.arange(x.size // width).reshape(*x.shape[:-1], 1)
        flat_ids = row * width + ids.astype(row.dtype)  # where each taken element lies in x, laid out flat
        sums = sum_rows_by_id(dy.reshape(-1, 1), flat_ids.reshape(-1), x.size)  # see sums.py
        return (sums.reshape(x.shape),)

    return xp.take_along_axis(x, ids, axis=-1), backward
