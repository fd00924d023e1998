"""The tape: what was computed, and the chain rule that runs it backward.

The tape is not a list. Every operation that ran leaves a `Node`, which knows the Tensors that went in and how
to turn the gradient of the result into theirs; a Tensor points to the Node that made it. Nodes carry a number
that only grows, and a result is always made after its inputs. So the Nodes behind a loss, taken in falling
order of their numbers, are a valid order for the chain rule: when a Node's turn comes, everything that used
its result has already contributed to its gradient. A Tensor that no operation made, such as a weight, is a leaf: the
chain ends there, and what arrives is added to its `grad`.

For y = x * x + x the tape is  x (leaf) -> Node 0 (multiply) -> Node 1 (add), and dy = 1 goes back as

    Node 1, add:       1 to Node 0's result, 1 to x
    Node 0, multiply:  x to x, and once more x to x          x.grad = 1 + x + x
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Any

from tinytransformer import kernels
from tinytransformer.backend import Array, array_module, is_on_gpu
from tinytransformer.timing import timing

Backward = Callable[[Array], tuple[Array | None, ...]]

# Whether operations are written down, and whether their values are checked. A thread starts with the default of a
# ContextVar, so models that are trained in several threads cannot disturb each other.
recording: ContextVar[bool] = ContextVar("recording", default=True)
checking: ContextVar[bool] = ContextVar("checking", default=False)

_numbers = itertools.count()


class GraphError(RuntimeError):
    """A backward pass that cannot be run, or an operation that breaks its contract with the engine."""


class NonFiniteError(ArithmeticError):
    """Raised under `debugging()` by the first operation that yields an infinity or a NaN."""


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside the block: results require no gradient, and no memory is kept for them."""
    token = recording.set(False)
    try:
        yield
    finally:
        recording.reset(token)


@contextmanager
def debugging() -> Iterator[None]:
    """Inside the block, raise NonFiniteError at the first output or gradient that is not finite."""
    token = checking.set(True)
    try:
        yield
    finally:
        checking.reset(token)


class Node:
    """One entry of the tape: an operation that ran, on which Tensors, and its way back.

    Attributes:
        name: the operation's name.
        broadcasts: whether gradients have to be summed back to the shapes of the inputs.
        inputs: one Tensor per positional argument, or None where no gradient is wanted.
        backward: from the gradient of the result to one gradient, or None, per positional argument. It is
            None once it has run.
        number: larger than the number of any Node made before.
    """

    __slots__ = ("backward", "broadcasts", "inputs", "name", "number")

    def __init__(self, name: str, broadcasts: bool, inputs: list[Any], backward: Backward):
        self.name = name
        self.broadcasts = broadcasts
        self.inputs = inputs
        self.backward: Backward | None = backward
        self.number = next(_numbers)


def run_backward(root: Any, gradient: Array) -> None:
    """Apply the chain rule from the Tensor `root`, whose gradient is given, down to the leaves."""
    if root.node is None:
        _add_to_leaf(root, gradient)
        return
    gradients: dict[Any, Array] = {root.node: gradient}  # by Node; and by leaf on a GPU, which adds all up at the end
    # A gradient that came from an operation may be somebody else's too: `add` returns dz twice. So the first addition
    # makes a new array; that one is ours, and the next may be added to it in place.
    ours: set[Any] = set()
    for node in _nodes_behind(root.node):
        for x, dx in _run_node(node, gradients.pop(node)):
            owner = x.node or x
            if x.node is None and (x.grad is None or not is_on_gpu(dx)):
                _add_to_leaf(x, dx)
            elif owner not in gradients:
                gradients[owner] = dx
                continue  # no sum yet: `_run_node` has looked at it
            elif owner in ours:
                gradients[owner] += dx
            else:
                gradients[owner] = gradients[owner] + dx
                ours.add(owner)
            if checking.get():
                require_finite(node.name, "sum of gradients that it adds to", gradients.get(owner, x.grad))
    if gradients:  # on a GPU those of the leaves are left
        kernels.add_pairs([(leaf.grad, dx) for leaf, dx in gradients.items()])
        for leaf in gradients if checking.get() else ():
            require_finite("backward", "sum of the gradients of a leaf", leaf.grad)


def _nodes_behind(root: Node) -> list[Node]:
    """Return all Nodes that `root` depends on, itself first, each before the Nodes of its inputs."""
    found, stack = {root}, [root]
    while stack:  # a loop, since recursion ends at a depth of a thousand
        node = stack.pop()
        if node.backward is None:
            raise GraphError(f"backward: the graph behind {node.name!r} was freed by an earlier backward")
        for x in node.inputs:
            if x is not None and x.node is not None and x.node not in found:
                found.add(x.node)
                stack.append(x.node)
    return sorted(found, key=lambda node: node.number, reverse=True)


def _run_node(node: Node, dy: Array) -> list[tuple[Any, Array]]:
    """Run `node` backward and free it; return each input that wants a gradient, with that gradient."""
    assert node.backward is not None
    started = perf_counter() if (note := timing.get()) else 0.0
    inputs, gradients = node.inputs, node.backward(dy)
    if note:
        note(node.name, "backward", perf_counter() - started)
    node.inputs, node.backward = [], None  # here what the operation saved is let go
    if len(gradients) != len(inputs):
        raise GraphError(f"{node.name}: backward returned {len(gradients)} gradients for {len(inputs)} inputs")
    pairs = []
    for i, (x, dx) in enumerate(zip(inputs, gradients, strict=True)):
        if x is None or dx is None:
            continue
        if node.broadcasts:
            dx = sum_to_shape(dx, x.shape)
        if dx.shape != x.shape or dx.dtype != x.dtype:
            raise GraphError(
                f"{node.name}: backward returned a gradient of shape {dx.shape} and dtype {dx.dtype} "
                f"for input {i} of shape {x.shape} and dtype {x.dtype}"
            )
        if checking.get():
            require_finite(node.name, f"gradient of input {i}", dx)
        pairs.append((x, dx))
    return pairs


def _add_to_leaf(leaf: Any, gradient: Array) -> None:
    if leaf.grad is None:
        leaf.grad = gradient.copy()  # a copy: `gradient` may be somebody else's array, or a view of it
    else:
        leaf.grad += gradient  # in place: a Parameter's grad is a view of the flat gradient buffer


def sum_to_shape(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: an element that was used many times receives the sum of its gradients."""
    extra = gradient.ndim - len(shape)
    stretched = tuple(i for i, size in enumerate(gradient.shape) if i < extra or size != shape[i - extra])
    return gradient.sum(axis=stretched, keepdims=True).reshape(shape) if stretched else gradient


def require_finite(name: str, what: str, x: Array) -> None:
    """Raise NonFiniteError, naming the operation and which of its arrays, if `x` is not finite."""
    if not array_module(x).isfinite(x).all():
        raise NonFiniteError(f"{name}: the {what} is not finite (shape {x.shape})")
