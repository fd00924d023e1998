"""Parameters, the modules that own them, and the two flat arrays that hold them all.

A Module is an object with Parameters, and other Modules, among its attributes. A name is the path to a Parameter:
`decoder.blocks.0.cross_attention.query.weight`.

When a model is complete, `FlatParameters` lays all its parameters end to end in one array and all their gradients
in another, and every Parameter becomes a view into the two. An optimizer step, clipping, zeroing or a checkpoint is
then one operation on one vector, however many parameters the model has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module, to_device
from tinytransformer.tensor import Tensor


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
    shared: the parameters of a model of the same configuration; this one then uses the same data, and has only its
        gradients for itself.

    Attributes:
        data, grad: arrays of shape (number of parameters,); every Parameter's `data` and `grad` are views of them.
        decayed: how many elements at the front belong to matrices.
        named: each Parameter by its dotted name, in the order of the buffers.
    """

    def __init__(
        self, module: Module, *, dtype: Any = np.float32, device: str = "cpu", shared: FlatParameters | None = None
    ):
        ordered = sorted(module.named_parameters(), key=lambda item: item[1].data.ndim < 2)
        self.named: dict[str, Parameter] = dict(ordered)
        self.decayed = sum(p.data.size for p in self.named.values() if p.data.ndim >= 2)
        if shared is None:
            pieces = [p.data.reshape(-1) for p in self.named.values()]
            self.data: Array = to_device(np.concatenate(pieces).astype(dtype), device)
        else:
            self.data = shared.data
        self.grad: Array = array_module(self.data).zeros_like(self.data)
        start = 0
        for parameter in self.named.values():
            stop = start + parameter.data.size
            shape = parameter.data.shape
            parameter.data = self.data[start:stop].reshape(shape)
            parameter.grad = self.grad[start:stop].reshape(shape)
            start = stop

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        self.grad.fill(0)

    def load(self, arrays: dict[str, Array]) -> None:
        """Copy `arrays`, by name, into the parameters.

        Raises: ValueError that lists every name that is missing, unknown, or of another shape; then nothing has
        been copied.
        """
        problems = [f"{name} is missing" for name in self.named if name not in arrays]
        problems += [f"{name} is unknown" for name in arrays if name not in self.named]
        problems += [
            f"{name} has shape {tuple(arrays[name].shape)}, expected {parameter.shape}"
            for name, parameter in self.named.items()
            if name in arrays and tuple(arrays[name].shape) != parameter.shape
        ]
        if problems:
            raise ValueError("the weights do not fit the model: " + "; ".join(problems))
        for name, parameter in self.named.items():
            parameter.data[...] = array_module(self.data).asarray(arrays[name])
