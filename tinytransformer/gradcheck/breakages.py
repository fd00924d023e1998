"""Gradients broken on purpose: a checker is worth something only if it notices.

Every operation is built anew around its own array code, with a backward that spoils what the right one returns.
Some breakages fit any gradient (`EVERYWHERE`); others (`BY_HAND`) are mistakes that derivations really invite, such as
a forgotten term; and where an input was stretched, the sum that undoes it is left out. Each has to make at least one
case fail, unless `EXEMPT` says why none can.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np

from tinytransformer.backend import Array
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import FAIL, check
from tinytransformer.tensor import Operation

Gradients = tuple[Array | None, ...]


@dataclass(frozen=True)
class Pass:
    """One backward pass, with all that a wrong one may want: y = op(*inputs, **options), dy, right gradients."""

    plain: Callable[..., Any]
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    y: Array
    dy: Array
    right: Gradients

    def gradients(self, **changed: Any) -> Gradients:
        """Return the gradients that the operation would have found under other options."""
        return self.plain(*self.inputs, **{**self.options, **changed})[1](self.dy)


Spoil = Callable[[Pass], Gradients]


@dataclass(frozen=True)
class Breakage:
    """An operation with one mistake; `exemption` is the reason why no case can notice, or empty."""

    label: str
    broken: Operation
    exemption: str = ""


def breakages_of(operation: Operation) -> Iterator[Breakage]:
    """Yield every way in which the gradient of `operation` is broken on purpose."""
    full = CASES[operation.name][0]  # the first case of each operation takes every input, one by one
    for position, name in enumerate(full.input_names(operation)):
        for label, change in EVERYWHERE.items():
            yield Breakage(f"{name} {label}", rebuilt(operation, partial(at, position=position, change=change)))
    for label, spoil in BY_HAND.get(operation.name, {}).items():
        yield Breakage(label, rebuilt(operation, spoil), EXEMPT.get((operation.name, label), ""))
    if operation.broadcasts:
        yield Breakage("sum over broadcast axes left out", Operation(operation.plain))


def caught(breakage: Breakage, seed: int) -> bool:
    """Return whether any case fails. Inconclusive does not count: that verdict asks for a better case."""
    cases = CASES[breakage.broken.name]
    return any(result.verdict == FAIL for case in cases for result in check(breakage.broken, case, seed))


def rebuilt(operation: Operation, spoil: Spoil) -> Operation:
    """Return `operation` with `spoil` between its backward and the engine."""

    @wraps(operation.plain)
    def plain(*inputs: Any, **options: Any) -> tuple[Array, Callable[[Array], Gradients]]:
        unused = copy.deepcopy(options)  # with a generator that has not been drawn from
        y, backward = operation.plain(*inputs, **options)
        return y, lambda dy: spoil(Pass(operation.plain, inputs, unused, y, dy, backward(dy)))

    return Operation(plain, broadcasts=operation.broadcasts)


def at(call: Pass, position: int, change: Callable[[Array], Array]) -> Gradients:
    """Change the gradient of the input at `position`, where there is one."""
    gradients = list(call.right)
    if position < len(gradients) and gradients[position] is not None:
        gradients[position] = change(gradients[position])
    return tuple(gradients)


# Breakages of any gradient.


def largest_entry_dropped(dx: Array) -> Array:
    keep = np.ones(dx.shape)
    keep.flat[np.abs(dx).argmax()] = 0
    return dx * keep


def rolled(dx: Array) -> Array:
    """Give every row the gradient of the row before; where there is one row, roll its elements."""
    return np.roll(dx, 1, axis=0 if dx.shape[0] > 1 else -1) if dx.ndim else dx


EVERYWHERE: dict[str, Callable[[Array], Array]] = {
    "scaled by 1 + 1e-6": lambda dx: dx * (1 + 1e-6),
    "sign turned": np.negative,
    "largest entry dropped": largest_entry_dropped,
    "zeroed": np.zeros_like,
    "rolled by one": rolled,
}


# Breakages by hand. Three of the richest backwards are written out once more, as the docstrings of the operations
# derive them, with a switch at the term that a derivation may lose. As they stand, with no switch thrown, they are
# right, and the tests check that: so a breakage is caught for its one mistake.


def layer_norm_backward(call: Pass, *, mean_term: float = 1, xhat_term: float = 1) -> Gradients:
    x, gain, _ = call.inputs
    centred = x - x.mean(-1, keepdims=True)
    std = np.sqrt((centred**2).mean(-1, keepdims=True) + call.options.get("eps", 1e-5))
    xhat, dxhat = centred / std, call.dy * gain
    mean, slope = dxhat.mean(-1, keepdims=True), (xhat * dxhat).mean(-1, keepdims=True)
    return (dxhat - mean_term * mean - xhat_term * xhat * slope) / std, *call.right[1:]


def gelu_backward(call: Pass, *, du: bool = True) -> Gradients:
    (x,), scale = call.inputs, math.sqrt(2 / math.pi)
    t = np.tanh(scale * (x + 0.044715 * x**3))
    slope = scale * (1 + 3 * 0.044715 * x**2) if du else 1
    return (call.dy * 0.5 * (1 + t + x * (1 - t**2) * slope),)


def attention_backward(call: Pass, *, sum_term: float = 1) -> Gradients:
    """No softmax is needed: with the identity for values attention returns its weights, A, or P without dropout.

    And P * dP = P * m * dA = A * dA.
    """
    query, key, value = call.inputs
    identity = np.broadcast_to(np.eye(key.shape[-2]), (*key.shape[:-1], key.shape[-2]))
    used = call.plain(query, key, identity, **call.options)[0]
    weights = call.plain(query, key, identity, **{**call.options, "generator": None})[0]
    product = used * (call.dy @ value.swapaxes(-1, -2))
    dscores = product - sum_term * weights * product.sum(-1, keepdims=True)
    scale = 1 / math.sqrt(query.shape[-1])
    return scale * dscores @ key, scale * dscores.swapaxes(-1, -2) @ query, call.right[2]


def later_queries_overwrite(call: Pass) -> Gradients:
    """Put what each block of queries gives to dK and dV where it has to be added: only the last one stays."""
    last = call.dy.copy()
    block = call.options["block"]
    last[:, :, : (last.shape[2] - 1) // block * block] = 0  # all but the last block of queries
    return call.right[0], *call.plain(*call.inputs, **call.options)[1](last)[1:]


def unscaled(dx: Array) -> Array:
    """Take back the factor 1 / sqrt(d) of attention."""
    return dx * math.sqrt(dx.shape[-1])


def not_divided_by_the_sum(call: Pass) -> Gradients:
    """dx = dy * e^(x - max(x)) in logsumexp."""
    (x,), over = call.inputs, {"axis": call.options["axis"], "keepdims": True}
    return (call.right[0] * np.exp(x - x.max(**over)).sum(**over),)


def no_number_at_0(call: Pass) -> Gradients:
    """Find the other factors of a product, or power, by dividing it by x, which at 0 is 0 / 0."""
    with np.errstate(invalid="ignore"):
        return tuple(call.dy * call.options.get("exponent", 1) * call.y / x for x in call.inputs)


def middle_axis_put_last(call: Pass) -> Gradients:
    """Stretch dy along a new last axis, as it is right where the last was reduced."""
    if call.options["axis"] != 1 or call.options.get("keepdims"):
        return call.right
    (x,) = call.inputs
    return (
        np.broadcast_to(call.dy[..., None], x.shape) * (call.y.size / x.size if call.plain.__name__ == "mean" else 1),
    )


def ties_not_shared(call: Pass) -> Gradients:
    """Give each of k tied maxima dy instead of dy / k."""
    (x,), over = call.inputs, {"axis": call.options["axis"], "keepdims": True}
    return (call.right[0] * (x == x.max(**over)).sum(**over),)


def padding_not_masked(call: Pass) -> Gradients:
    real = call.options["targets"] != call.options.get("padding")
    return call.gradients(padding=None, count=call.options.get("count", max(real.sum(), 1)))


def repeats_overwrite(call: Pass) -> Gradients:
    """Put gradients where the ids point instead of adding them up: of a repeated id only the last one stays."""
    dx, ids = np.zeros(call.inputs[0].shape), call.options["ids"]
    if call.plain.__name__ == "gather":
        np.put_along_axis(dx, ids, call.dy, axis=-1)
    else:
        dx[ids] = call.dy
    return (dx,)


def not_transposed(call: Pass) -> Gradients:
    """dx = dz @ y and dy = x @ dz, where the shapes let one write that."""
    x, y = call.inputs
    square = x.shape[-1] == x.shape[-2] == y.shape[-1]
    return (call.dy @ y, x @ call.dy) if square else call.right


ATTENTION: dict[str, Spoil] = {
    "scale left out of dQ": lambda call: at(call, 0, unscaled),
    "dK from the unscaled query": lambda call: at(call, 1, unscaled),
    "sum left out of dS": lambda call: attention_backward(call, sum_term=0),
    "dropout forgotten in dP": lambda call: (*call.gradients(generator=None)[:2], call.right[2]),
    "dropout forgotten in dV": lambda call: (*call.right[:2], call.gradients(generator=None)[2]),
}

BY_HAND: dict[str, dict[str, Spoil]] = {
    "multiply": {"no number at 0": no_number_at_0},
    "power": {"no number at 0": no_number_at_0},
    "relu": {"slope 1 at 0": lambda call: (call.dy * (call.inputs[0] >= 0),)},
    "gelu": {"slope inside the tanh left out": lambda call: gelu_backward(call, du=False)},
    "sum": {"middle axis put last": middle_axis_put_last},
    "mean": {
        "middle axis put last": middle_axis_put_last,
        "not divided by n": lambda call: (call.right[0] * (call.inputs[0].size // call.y.size),),
    },
    "max": {"ties not shared": ties_not_shared},
    "logsumexp": {"not divided by the sum": not_divided_by_the_sum},
    "softmax": {"sum left out": lambda call: (call.y * call.dy,)},
    "log_softmax": {"sum left out": lambda call: (call.dy,)},
    "reshape": {"elements in column order": lambda call: (call.dy.reshape(call.inputs[0].shape, order="F"),)},
    "transpose": {"axes not inverted": lambda call: (call.dy.transpose(call.options["axes"]),)},
    "concatenate": {"slices in reverse": lambda call: call.right[::-1]},
    "gather": {"repeated ids overwrite": repeats_overwrite},
    "embedding": {"repeated ids overwrite": repeats_overwrite},
    "matmul": {"factors not transposed": not_transposed},
    "layer_norm": {
        "mean term left out": lambda call: layer_norm_backward(call, mean_term=0),
        "xhat term left out": lambda call: layer_norm_backward(call, xhat_term=0),
    },
    "dropout": {
        "mask forgotten": lambda call: (call.dy,),
        "kept elements not scaled": lambda call: (call.dy * (call.right[0] != 0),),
    },
    "attention": ATTENTION,
    "blockwise_attention": {**ATTENTION, "later queries overwrite": later_queries_overwrite},
    "cross_entropy": {
        "smoothing left out": lambda call: call.gradients(label_smoothing=0.0),
        "not divided by the count": lambda call: call.gradients(count=1),
        "padding not masked": padding_not_masked,
    },
}

EXEMPT = {
    ("relu", "slope 1 at 0"): "a kink, where no difference is a derivative; tests/ops holds the convention",
    ("max", "ties not shared"): "a tie is a kink, where no difference is a derivative; tests/ops holds it",
}
