"""What kind of mistake a wrong gradient holds, told from the gradient itself and the right one beside it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytransformer.backend import Array
from tinytransformer.gradcheck.check import TOLERANCE
from tinytransformer.gradcheck.exercise import input_names
from tinytransformer.tape import sum_to_shape
from tinytransformer.tensor import OPS, Operation, Tensor


@dataclass(frozen=True)
class Call:
    """One call of an attempt: y = attempt(*inputs, **options), and its gradients for dy, beside the right ones."""

    attempt: Operation
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    y: Array
    dy: Array
    theirs: tuple[Any, ...]
    right: tuple[Array | None, ...]

    def shapes(self) -> str:
        inputs = ", ".join("None" if x is None else str(np.shape(x)) for x in self.inputs)
        return f"{inputs} -> {np.shape(self.y)}"

    def again(self, dy: Array, position: int) -> tuple[Array, Array]:
        """Return the gradient at `position` for another dy, the attempt's and the right one."""
        _, backward = self.attempt.plain(*self.inputs, **copy.deepcopy(self.options))
        right = right_gradients(self.attempt.name, self.inputs, self.options, dy)[position]
        assert right is not None
        return sum_to_shape(backward(dy)[position], right.shape), right


def right_gradients(name: str, inputs: tuple[Any, ...], options: dict[str, Any], dy: Array) -> tuple[Array | None, ...]:
    """Return the gradients that the package finds, each in the shape of its input."""
    tensors = [None if x is None else Tensor(x, requires_grad=True) for x in inputs]
    OPS[name](*tensors, **copy.deepcopy(options)).backward(dy)
    return tuple(x and x.grad for x in tensors)


def explanations(call: Call, position: int) -> Iterator[str]:
    """Yield every explanation of the wrong gradient at `position`, the most telling first.

    No text depends on the sizes of the case, so that the one can be found that explains most cases.
    """
    theirs, right = call.theirs[position], call.right[position]
    assert right is not None
    if theirs is None:
        yield "it is None, which counts as NaN; but the result does depend on this input"
    elif not hasattr(theirs, "shape"):
        yield f"it is a {type(theirs).__name__}, and has to be an array"
    elif theirs.dtype != right.dtype:
        yield f"it is an array of {theirs.dtype}, and has to have the dtype of the input"
    elif theirs.shape != right.shape and not (call.attempt.broadcasts and fits(right.shape, theirs.shape)):
        yield of_shape(theirs, right)
    else:
        yield from of_values(call, sum_to_shape(theirs, right.shape), position)


def of_shape(theirs: Array, right: Array) -> str:
    """What would give the gradient its right shape, and whether it would be right then."""
    if theirs.ndim >= 2 and theirs.swapaxes(-1, -2).shape == right.shape:
        remedy, changed = "it is transposed", theirs.swapaxes(-1, -2)
    elif theirs.size == right.size:
        remedy, changed = "reshape it", theirs.reshape(right.shape)
    elif fits(right.shape, theirs.shape):
        remedy = "a sum is missing, over the axes along which the input was used again and again"
        changed = sum_to_shape(theirs, right.shape)
    elif fits(theirs.shape, right.shape):
        remedy, changed = (
            "axes are missing, summed over or still to be repeated along",
            np.broadcast_to(theirs, right.shape),
        )
    else:
        return "it has not the shape of the input"
    return f"it has not the shape of the input: {remedy}" + ("" if close(changed, right) else " (then look again)")


def of_values(call: Call, theirs: Array, position: int) -> Iterator[str]:
    right = call.right[position]
    assert right is not None
    if not np.isfinite(theirs).all():
        yield "it holds NaN or infinities: is something divided by zero?"
    elif not right.any():
        yield "it has to be zero here: the result does not change with this input"
    elif not theirs.any():
        yield "it is zero everywhere"
    else:
        found = list(of_factor(call, theirs, right))
        if right.size > 1:  # of one number everything is a multiple
            found += of_arrays(call, theirs, right, position)
            found += of_terms(call, theirs, right)
            found += of_dependence(call, theirs, right, position)
            found += of_elements(theirs, right)
            if not found and theirs.shape == call.dy.shape and close(theirs, call.dy):
                found = ["it is the gradient of the result, unchanged"]  # which says less than any other
        yield from found


def of_factor(call: Call, theirs: Array, right: Array) -> Iterator[str]:
    """A number by which all elements are off."""
    factor = float((theirs * right).sum() / (right * right).sum())
    if not close(theirs, factor * right):
        return
    if close(factor, -1):
        yield "its sign is turned"
    width, reduced = (right.shape or (1,))[-1], right.size / np.size(call.y)
    names = {
        "sqrt(d), d being the size of the last axis": math.sqrt(width),
        "d, the size of the last axis": width,
        "n, the number of elements that become one": reduced,
        "the number of rows": right.size / width,
    }
    for name, size in names.items():
        if size > 1 and close(abs(factor), size):
            yield f"it is too large by a factor of {name}"
        if size > 1 and close(abs(factor), 1 / size):
            yield f"it is too small by a factor of {name}"
    if right.size > 1:
        yield f"it is {factor:.7g} times the right one"
        yield "it is a multiple of the right one, but another multiple in every case: a size or a count"


def of_arrays(call: Call, theirs: Array, right: Array, position: int) -> Iterator[str]:
    """Another array in the place of the right one, or as a factor of it."""
    names = input_names(call.attempt.plain)
    for i, (name, gradient) in enumerate(zip(names, call.right, strict=False)):
        if i != position and gradient is not None and gradient.shape == right.shape and close(theirs, gradient):
            yield f"it is d{name}, the gradient of another input: in what order are they returned?"
    if right.ndim >= 2 and right.shape[-1] == right.shape[-2] and close(theirs.swapaxes(-1, -2), right):
        yield "it is transposed"
    inputs = dict(zip(names, call.inputs, strict=False))
    factors = {"the gradient of the result": call.dy, "the result": call.y, **inputs}
    for name, factor in factors.items():
        if np.ndim(factor) and fits(factor.shape, right.shape):
            if close(theirs * factor, right):
                yield f"a factor is missing: {name}"
            if close(theirs, right * factor):
                yield f"a factor is one too many, or a division by it is missing: {name}"
    if close(np.sort(theirs, axis=None), np.sort(right, axis=None)):
        yield "it holds the right numbers in the wrong places: an axis, or the order of rows or elements"


def of_terms(call: Call, theirs: Array, right: Array) -> Iterator[str]:
    """One term missing, or wrong, of those that hold a sum over an axis."""
    axis = call.options.get("axis", -1)
    if not isinstance(axis, int) or right.ndim == 0 or right.shape[axis] == 1:
        return
    off = right - theirs
    if close(off, np.broadcast_to(off.mean(axis, keepdims=True), off.shape)):
        yield "along the axis it is off by the same amount everywhere: a term is missing or wrong, a mean or a sum"
    inputs = dict(zip(input_names(call.attempt.plain), call.inputs, strict=False))
    arrays = {"the result": call.y, "e^the result": np.exp(call.y), **inputs}
    for name, array in arrays.items():
        if np.shape(array) != right.shape:
            continue
        centred = array - array.mean(axis, keepdims=True)
        for label, term in ((name, array), (f"{name} minus its mean", centred)):
            if close(off, along(off, term, axis) * term):
                yield f"along the axis it is off by a multiple of {label}: a term is missing or wrong, with a sum in it"
    if close(theirs, along(theirs, right, axis) * right):
        yield "along the axis it is off by a factor, another one in every row: something with one value per row"


def of_dependence(call: Call, theirs: Array, right: Array, position: int) -> Iterator[str]:
    """The gradients for other dy: none, a single one, and the same everywhere."""
    if close(call.again(0 * call.dy, position)[0], theirs):
        yield "it does not change with the gradient of the result: where does that come in?"
        return
    if call.dy.shape == right.shape:
        single = np.zeros_like(call.dy)
        single.flat[0] = 1
        theirs, rights = call.again(single, position)
        if not theirs.flat[1:].any() and rights.flat[1:].any():
            yield "each element takes its own dy alone, but an input moves other elements of the result as well"
    theirs, rights = call.again(np.ones_like(call.dy), position)
    if np.abs(theirs - rights).max() <= TOLERANCE * np.abs(right).max():
        yield "it is right where dy is the same everywhere, and only there: which elements of dy belong where?"


def of_elements(theirs: Array, right: Array) -> Iterator[str]:
    """Some elements wrong, and others right."""
    wrong = np.abs(theirs - right) > TOLERANCE * np.abs(right).max()
    if wrong.all():
        return
    if not theirs[wrong].any():
        yield "some elements are zero that must not be; all others are right"
    elif not right[wrong].any():
        yield "some elements have to be zero; all others are right"
    else:
        yield "some elements are wrong, all others right: what sets those apart?"


def along(x: Array, y: Array, axis: int) -> Array:
    """Return the numbers c, one along the axis, for which c * y comes closest to x."""
    return (x * y).sum(axis, keepdims=True) / np.maximum((y * y).sum(axis, keepdims=True), 1e-300)


def close(x: Any, y: Any) -> bool:
    return bool(np.linalg.norm(x - y) <= TOLERANCE * np.linalg.norm(y))


def fits(shape: tuple[int, ...], full: tuple[int, ...]) -> bool:
    """Return whether an array of `shape` can be stretched to `full`."""
    return len(shape) <= len(full) and all(a in (1, b) for a, b in zip(shape[::-1], full[::-1], strict=False))
