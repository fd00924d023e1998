"""The Tensor, and the registry of operations.

An operation is plain array code. It takes arrays and returns its result together with a function that turns
the gradient of the result into the gradients of its inputs. `@op` makes it an `Operation`: it unwraps the
Tensors, calls the array code, and writes down on the tape what has to be undone, where a gradient is wanted.

    loss = cross_entropy(linear(x, weight, bias), targets=ids)   # forward: two operations, two entries
    loss.backward()                                              # backward: weight.grad is dL/dweight
"""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from time import perf_counter
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.tape import (
    Backward,
    GraphError,
    Node,
    checking,
    recording,
    require_finite,
    run_backward,
)
from tinytransformer.timing import timing

OPS: dict[str, Operation] = {}


class ShapeError(ValueError):
    """Arrays whose shapes do not fit together, or do not fit the operation."""


class Tensor:
    """An array that remembers how it was made.

    Attributes:
        data: the array, NumPy or CuPy. No operation writes into it: the optimizer does, and loading weights.
        grad: dL/ddata after `backward()`, an array of the same shape, or None. Leaves alone keep one.
        requires_grad: whether gradients flow to this Tensor.

    Raises: TypeError if an integer or boolean array asks for a gradient.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    __iter__ = None  # or Python would iterate by __getitem__, and run into the end
    __array_ufunc__ = None  # so that `array + tensor` reaches Tensor.__radd__, not an array of objects

    def __init__(self, data: Any, *, requires_grad: bool = False):
        self.data: Array = data if hasattr(data, "dtype") else np.asarray(data)
        if requires_grad and self.data.dtype.kind != "f":
            raise TypeError(f"only floating Tensors have gradients, and this one is {self.data.dtype}")
        self.grad: Array | None = None
        self.requires_grad = requires_grad
        self.node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def __repr__(self) -> str:
        return f"Tensor({self.data!r}{', requires_grad=True' if self.requires_grad else ''})"

    def detach(self) -> Tensor:
        """Return a Tensor over the same data that no gradient flows through."""
        return Tensor(self.data)

    def backward(self, gradient: Array | None = None) -> None:
        """Add dL/dx to the `grad` of every leaf x that this Tensor was made from.

        The graph is consumed: each Node lets go of its inputs and of all it saved as soon as it has run.

        gradient: dL/dself, an array of this Tensor's shape and dtype, but not the `grad` of a leaf, which changes
            meanwhile. May be left out for a scalar: then the Tensor itself is the loss L, and dL/dself is 1.
        Raises: GraphError if the Tensor is not recorded, is not a scalar and has no `gradient`, or its
            graph has been freed by an earlier backward; ShapeError or TypeError if `gradient` does not fit.
        """
        if not self.requires_grad:
            raise GraphError("backward: this Tensor requires no gradient, so nothing was recorded")
        run_backward(self, _upstream_gradient(self, gradient))

    # The operators. They look their operation up by name, because operations stand in ops/, which imports this file.

    def __add__(self, other: Any) -> Tensor:
        return OPS["add"](self, other)

    def __radd__(self, other: Any) -> Tensor:
        return OPS["add"](other, self)

    def __sub__(self, other: Any) -> Tensor:
        return OPS["subtract"](self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return OPS["subtract"](other, self)

    def __mul__(self, other: Any) -> Tensor:
        return OPS["multiply"](self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return OPS["multiply"](other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return OPS["divide"](self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return OPS["divide"](other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return OPS["matmul"](self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return OPS["matmul"](other, self)

    def __neg__(self) -> Tensor:
        return OPS["negate"](self)

    def __pow__(self, exponent: float) -> Tensor:
        return OPS["power"](self, exponent=exponent)

    def __getitem__(self, key: Any) -> Tensor:
        return OPS["getitem"](self, key=key)


class Operation:
    """A differentiable operation: call it with Tensors, or call `plain` with arrays.

    Attributes:
        plain: the array code, as it stands in the source.
        broadcasts: whether the engine sums each gradient back to the shape of its input.
    """

    def __init__(self, plain: Callable[..., tuple[Array, Backward]], *, broadcasts: bool = False):
        self.plain = plain
        self.broadcasts = broadcasts
        self.name: str = plain.__name__
        update_wrapper(self, plain)

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        """Run the operation on Tensors, arrays (constants), Python numbers or None; record it if need be.

        Raises: TypeError for other inputs, for a Tensor among the options, if the arrays do not share one floating
        dtype, or if the result has another.
        """
        if any(isinstance(option, Tensor) for option in options.values()):
            raise TypeError(f"{self.name}: a Tensor is passed by position, and never by name")
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        dtype = _common_dtype(self.name, arrays)
        started = perf_counter() if (note := timing.get()) else 0.0
        data, backward = self.plain(*arrays, **options)
        if note:
            note(self.name, "forward", perf_counter() - started)
        if dtype is not None and data.dtype != dtype:
            raise TypeError(f"{self.name}: made {data.dtype} of {dtype}; are all options Python numbers?")
        if checking.get():
            require_finite(self.name, "output", data)
        result = Tensor(data)
        if recording.get():
            wanted = [x if isinstance(x, Tensor) and x.requires_grad else None for x in inputs]
            if any(x is not None for x in wanted):
                result.requires_grad = True
                result.node = Node(self.name, self.broadcasts, wanted, backward)
        return result


def op(plain: Callable[..., Any] | None = None, *, broadcasts: bool = False) -> Any:
    """Register array code as an Operation: `@op`, or `@op(broadcasts=True)`."""
    if plain is None:
        return lambda function: op(function, broadcasts=broadcasts)
    operation = Operation(plain, broadcasts=broadcasts)
    OPS[operation.name] = operation
    return operation


def _upstream_gradient(root: Tensor, gradient: Array | None) -> Array:
    if gradient is None:
        if root.data.size != 1:
            raise GraphError(
                f"backward: a Tensor of shape {root.shape} is not a scalar; pass dL/dx for it as `gradient`"
            )
        return array_module(root.data).ones_like(root.data)
    if gradient.shape != root.shape:
        raise ShapeError(f"backward: `gradient` has shape {gradient.shape}, expected {root.shape}")
    if gradient.dtype != root.dtype:
        raise TypeError(f"backward: `gradient` is {gradient.dtype}, expected {root.dtype}")
    return gradient


def _common_dtype(name: str, arrays: list[Any]) -> np.dtype | None:
    """Return the floating dtype that all arrays share; None if there is no array."""
    # Python numbers are weak: they take the dtype of the array beside them, so they do not count.
    common: np.dtype | None = None
    for x in arrays:
        dtype = getattr(x, "dtype", None)
        if dtype is None:
            if not (x is None or isinstance(x, int | float)):
                raise TypeError(f"{name}: inputs are Tensors, arrays or numbers, got {type(x).__name__}")
        elif common is None:
            common = dtype
        elif dtype is not common and dtype != common:
            raise _mixed(name, arrays)
    if common is not None and common.kind != "f":
        raise _mixed(name, arrays)
    return common


def _mixed(name: str, arrays: list[Any]) -> TypeError:
    found = ", ".join(str(x.dtype) for x in arrays if hasattr(x, "dtype"))
    return TypeError(f"{name}: inputs must share one floating dtype, got {found}")
