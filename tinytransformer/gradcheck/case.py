"""One case: what to draw for the inputs of an operation, and how to call it on them.

Inputs are float64 and of order one. Some are kept away from kinks, because a finite difference that reaches across
one says nothing, and some come in awkward layouts of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import numpy as np

from tinytransformer.backend import array_module
from tinytransformer.tensor import Operation, Tensor

Draw = Callable[[np.random.Generator], np.ndarray]  # the same seed draws the same numbers


class Case:
    """One way to call an operation.

    label: what is special about it.
    draws: one per input.
    zero: names of the inputs whose gradient is zero by nature.
    call: for inputs that do not go into the operation one by one, a function that takes the operation and the
        inputs, Tensors or arrays, and runs it. Its parameters are named as the operation names them, and an
        input used twice goes by the name of its first use.
    options: the operation's keyword-only arguments. A function among them is called for a fresh value each time.
    """

    def __init__(
        self, label: str, *draws: Draw, zero: tuple[str, ...] = (), call: Callable | None = None, **options: Any
    ):
        self.label, self.draws, self.zero, self.call, self.options = label, draws, zero, call, options

    def run(self, operation: Operation, inputs: list[Any]) -> Tensor:
        """Call the operation; arrays among its options are put where the inputs are."""
        xp = array_module(inputs[0].data if isinstance(inputs[0], Tensor) else inputs[0])
        options = {name: value() if callable(value) else value for name, value in self.options.items()}
        options = {name: xp.asarray(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
        return self.call(operation, *inputs) if self.call else operation(*inputs, **options)

    def input_names(self, operation: Operation) -> list[str]:
        """Return the name of each input, as `call` has it, or else the operation; of `*xs`: xs[0], xs[1], ..."""
        parameters = list(signature(self.call or operation.plain).parameters.values())[1 if self.call else 0 :]
        if parameters[0].kind is Parameter.VAR_POSITIONAL:
            return [f"{parameters[0].name}[{i}]" for i in range(len(self.draws))]
        return [parameter.name for parameter in parameters[: len(self.draws)]]


def anywhere(*shape: int) -> Draw:
    return lambda generator: generator.uniform(-1.5, 1.5, shape)


def positive(*shape: int) -> Draw:
    return lambda generator: generator.uniform(1, 2, shape)


def off_zero(*shape: int) -> Draw:
    """Positive and negative in turn, at least 1 from zero."""
    return lambda generator: generator.uniform(1, 2, shape) * np.resize([1.0, -1.0], shape)


def with_zeros(*shape: int) -> Draw:
    """Every second element is exactly 0."""
    return lambda generator: generator.uniform(1, 2, shape) * np.resize([1.0, 0.0, -1.0, 0.0], shape)


def far(*shape: int) -> Draw:
    """Around 45: the scores of such keys are too large for `attention` to leave their maximum in."""
    return lambda generator: generator.uniform(43.5, 46.5, shape)


def separated(*shape: int) -> Draw:
    """Numbers in random order, 0.1 apart: more than nine steps of the numerical derivative."""
    return lambda generator: 0.1 * generator.permutation(int(np.prod(shape))).reshape(shape)


def transposed(draw: Draw, axis: int = -1, other: int = -2) -> Draw:
    """A view with two axes exchanged."""
    return lambda generator: draw(generator).swapaxes(axis, other)


def strided(draw: Draw) -> Draw:
    """A view of every second element along the last axis."""
    return lambda generator: draw(generator)[..., ::2]


def dice() -> np.random.Generator:
    """A fresh generator that always throws the same, so that every evaluation drops the same elements."""
    return np.random.Generator(np.random.SFC64(7))
