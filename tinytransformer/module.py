"""Parameters, the modules that own them, and the two flat arrays that hold them all.

A Module is an object with Parameters, and other Modules, among its attributes. A name is the path to a Parameter:
`decoder.blocks.0.cross_attention.query.weight`.

When a model is complete, `FlatParameters` lays all its parameters end to end in one array and all their gradients
in another, and every Parameter becomes a view into the two. An optimizer step, clipping, zeroing or a checkpoint is
then one operation on one vector, however many parameters the model has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module, shared, to_device
from tinytransformer.tensor import Tensor

Shapes = dict[str, tuple[int, ...]]
SHOWN = 10  # differences that a message names


class Parameter(Tensor):
    """A Tensor that is learned. Once the model is complete, `data` and `grad` are views of its flat buffers."""

    __slots__ = ()

    def __init__(self, data: Array):
        super().__init__(data, requires_grad=True)


class Module:
    """Something that owns Parameters, itself or through the Modules among its attributes."""

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield every Parameter with its dotted name, in the order in which the attributes were set.

        A Parameter that stands in several places, a tied weight, is yielded once, under its first name.
        """
        seen: set[int] = set()
        for name, parameter in _walk(self, ""):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def summary(self) -> str:
        """Return a table of the parameters: a line for each with name, shape and count, and the total."""
        rows = [(name, str(p.shape), p.data.size) for name, p in self.named_parameters()]
        widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
        lines = [f"{name:{widths[0]}}  {shape:{widths[1]}}  {count:>12,}" for name, shape, count in rows]
        total = f"{'total':{widths[0]}}  {'':{widths[1]}}  {sum(row[2] for row in rows):>12,}"
        return "\n".join([*lines, total])


def _walk(value: Any, name: str) -> Iterator[tuple[str, Parameter]]:
    """Yield the Parameters at and below `value`, which stands under `name`."""
    if isinstance(value, Parameter):
        yield name, value
    elif isinstance(value, Module):
        for attribute, child in vars(value).items():
            yield from _walk(child, f"{name}.{attribute}" if name else attribute)
    elif isinstance(value, list | tuple):
        for i, child in enumerate(value):
            yield from _walk(child, f"{name}.{i}")


class FlatParameters:
    """All parameters of a model in one contiguous array, and all their gradients in another.

    Matrices stand first, gains and biases last, so that what weight decay applies to is one slice.

    dtype, device: of the buffers.
    of: the parameters of a model of the same configuration; this one then uses the same data, and has only its
        gradients for itself, in memory that later forks share.

    Attributes:
        data, grad: arrays of shape (number of parameters,); every Parameter's `data` and `grad` are views of them.
        decayed: how many elements at the front belong to matrices.
        named: each Parameter by its dotted name, in the order of the buffers.
    """

    def __init__(
        self, module: Module, *, dtype: Any = np.float32, device: str = "cpu", of: FlatParameters | None = None
    ):
        ordered = sorted(module.named_parameters(), key=lambda item: item[1].data.ndim < 2)
        self.named: dict[str, Parameter] = dict(ordered)
        self.decayed = sum(p.data.size for p in self.named.values() if p.data.ndim >= 2)
        size = sum(p.data.size for p in self.named.values())
        self.data: Array = to_device(np.zeros(size, dtype), device) if of is None else of.data
        xp = array_module(self.data)
        self.grad: Array = xp.zeros_like(self.data) if of is None else shared(xp.zeros_like(self.data))
        if of is None:
            for parameter, part in self._parts():
                self.data[part] = xp.asarray(parameter.data.reshape(-1).astype(dtype))
        self._make_views()

    def move(self, copy: Callable[[Array], Array]) -> None:
        """Let a `copy` of the two buffers take their place."""
        self.data, self.grad = copy(self.data), copy(self.grad)
        self._make_views()

    def _make_views(self) -> None:
        """Let every Parameter be a view of its place in the buffers."""
        for parameter, part in self._parts():
            parameter.data = self.data[part].reshape(parameter.shape)
            parameter.grad = self.grad[part].reshape(parameter.shape)

    def _parts(self) -> Iterator[tuple[Parameter, slice]]:
        """Yield each Parameter with its place in the buffers."""
        start = 0
        for parameter in self.named.values():
            yield parameter, slice(start, start := start + parameter.data.size)

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        self.grad.fill(0)

    def shapes(self) -> Shapes:
        """Return the shape of every Parameter by its name."""
        return {name: parameter.shape for name, parameter in self.named.items()}

    def load(self, arrays: dict[str, Array]) -> None:
        """Copy `arrays`, by name, into the parameters.

        Raises: ValueError that lists the names that are missing, unknown, or of another shape; then nothing has
        been copied.
        """
        found = {name: tuple(array.shape) for name, array in arrays.items()}
        if problems := differences(found, self.shapes()):
            raise ValueError(f"the weights do not fit the model: {problems}")
        for name, parameter in self.named.items():
            parameter.data[...] = array_module(self.data).asarray(arrays[name])


def differences(found: Shapes, expected: Shapes) -> str:
    """Return, in one line, which names are missing, unknown, or of another shape, the first few; "" if none is."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    shown, more = problems[:SHOWN], len(problems) - SHOWN
    return "; ".join(shown + [f"and {more:,} more"] * (more > 0))
