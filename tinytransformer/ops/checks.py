"""Errors that name the operation and say what was expected, raised before any work is done."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytransformer.backend import Array, is_on_gpu
from tinytransformer.tensor import ShapeError


def require_shape(name: str, shape: tuple[int, ...], **arrays: Array | None) -> None:
    """Raise ShapeError unless every array that is not None has this shape."""
    for argument, array in arrays.items():
        if array is not None and array.shape != shape:
            raise ShapeError(f"{name}: {argument} has shape {array.shape}, expected {shape}")


def require(condition: bool, name: str, message: str) -> None:
    """Raise ShapeError with the operation's name and `message` unless `condition` holds."""
    if not condition:
        raise ShapeError(f"{name}: {message}")


def require_axis(name: str, axis: int | tuple[int, ...] | None, x: Array) -> None:
    """Raise ShapeError unless `x` has the axis, or every one of the axes."""
    axes = () if axis is None else (axis,) if isinstance(axis, int) else axis
    for a in axes:
        require(-x.ndim <= a < x.ndim, name, f"axis {a} does not exist in shape {x.shape}")


def shape_of(x: Any) -> tuple[int, ...]:
    """Return the shape of an array, or of a number, which has no axes."""
    return getattr(x, "shape", ())


def require_broadcast(name: str, x: Any, y: Any) -> None:
    """Raise ShapeError unless `x` and `y`, arrays, numbers or shapes, can be broadcast to one shape."""
    shapes = [z if isinstance(z, tuple) else shape_of(z) for z in (x, y)]
    if shapes[0] == shapes[1]:  # as nearly always; to ask NumPy would take longer than a small addition
        return
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"{name}: shapes {shapes[0]} and {shapes[1]} do not broadcast") from None


def require_ids(name: str, ids: Array, count: int) -> None:
    """Raise TypeError unless `ids` are integers, IndexError unless each is in [0, count).

    Ids on a GPU are not read, since that would wait for it: they are to be checked before they go there.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name}: ids must be integers, got {ids.dtype}")
    if not is_on_gpu(ids) and ids.size and not (ids.min() >= 0 and ids.max() < count):
        bad = np.asarray(ids)[(ids < 0) | (ids >= count)].flat[0]
        raise IndexError(f"{name}: id {bad} is outside [0, {count})")


def require_rate(name: str, rate: float) -> None:
    """Raise ValueError unless `rate` is a share that can be dropped: 0 <= rate < 1."""
    if not 0 <= rate < 1:
        raise ValueError(f"{name}: rate is {rate}, expected 0 <= rate < 1")
