"""The matrix products of a training step and nothing else: a floor for all that compute with the same BLAS.

A product y = x @ w in the forward pass brings two in the backward pass, dx = dy @ w^T and dw = x^T @ dy. Norms,
softmax, dropout, residuals, the optimizer and all else are left out.

Every product has weights of its own, as in a step, and inputs of its own where a step has; and all go forward before
the first goes backward: when a layer's turn comes again, what it needs has left the cache. Gradients are used where
they were made, in the cache. A second floor, which no step can reach, repeats one product of each kind.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.clock import Clock
from benchmarks.sizes import Size


@dataclass(frozen=True)
class Product:
    """(rows, inner) @ (inner, columns), for a `stack` of such matrices at once, and `count` times in a step.

    uses: how many of these read the same rows.
    """

    rows: int
    inner: int
    columns: int
    count: int
    stack: int = 1
    uses: int = 1

    @property
    def left(self) -> tuple[int, ...]:
        return *self._stacked, self.rows, self.inner

    @property
    def right(self) -> tuple[int, ...]:
        return *self._stacked, self.inner, self.columns

    @property
    def result(self) -> tuple[int, ...]:
        return *self._stacked, self.rows, self.columns

    @property
    def _stacked(self) -> tuple[int, ...]:
        return () if self.stack == 1 else (self.stack,)

    def operations(self) -> int:
        """Return the multiplications and additions of all of them, forward and backward."""
        return 3 * 2 * self.rows * self.inner * self.columns * self.count * self.stack


def products(size: Size, batch: int) -> list[Product]:
    """Return the products of the forward pass over a batch of so many sentences."""
    tokens, width, hidden = batch * size.length, size.width, size.feed_forward_width
    stack, head = batch * size.heads, width // size.heads
    attentions = 3 * size.layers  # one in each block of the encoder, two in each of the decoder
    return [
        Product(tokens, width, width, 4 * attentions, uses=2),  # query, key, value from the same, mostly; output
        Product(size.length, head, size.length, attentions, stack),  # query @ key^T
        Product(size.length, size.length, head, attentions, stack),  # weights @ value
        Product(tokens, width, hidden, 2 * size.layers),
        Product(tokens, hidden, width, 2 * size.layers),
        Product(tokens, width, size.vocabulary, 1),  # the projection to the vocabulary
    ]


class Products:
    """The arrays of all products, and the products. The results have their place: no memory is asked for in a step.

    in_cache: whether all products of one kind have the same operands.
    weights_of: products of another share of the batch, which have the same weights.
    """

    def __init__(self, size: Size, batch: int, *, in_cache: bool = False, weights_of: Products | None = None):
        generator = np.random.default_rng(1)
        self.prepared: list[tuple[np.ndarray, ...]] = []
        for product in products(size, batch):
            dy = generator.random(product.result, np.float32)  # gradients are used at once, so their places serve again
            gradients = [np.empty(shape, np.float32) for shape in (product.left, product.right)]
            for i in range(product.count):
                if i == 0 or not (in_cache or i % product.uses):
                    x = generator.random(product.left, np.float32)
                if i == 0 or not in_cache:
                    w = generator.random(product.right, np.float32)
                    y = np.empty(product.result, np.float32)
                if weights_of is not None and product.stack == 1:
                    w = weights_of.prepared[len(self.prepared)][1]
                self.prepared.append((x, w, y, dy, *gradients))

    def __call__(self) -> None:
        for x, w, y, *_ in self.prepared:
            np.matmul(x, w, out=y)
        for x, w, _, dy, dx, dw in reversed(self.prepared):
            np.matmul(dy, w.swapaxes(-1, -2), out=dx)
            np.matmul(x.swapaxes(-1, -2), dy, out=dw)


def measure_floor(size: Size, clocks: tuple[Clock, Clock], *, in_cache: bool = False) -> float:
    """Return the seconds of a step of bare products.

    They are divided over the cores in both ways, by BLAS, and in two threads with half of the batch each; the faster
    way counts.
    """
    return min(_measure(size, replicas, clock, in_cache) for replicas, clock in zip((1, 2), clocks, strict=True))


def _measure(size: Size, replicas: int, clock: Clock, in_cache: bool) -> float:
    share = size.batch // replicas
    parts = [Products(size, share, in_cache=in_cache)]
    parts += [Products(size, share, in_cache=in_cache, weights_of=parts[0]) for _ in range(1, replicas)]
    with (
        ThreadPoolExecutor(replicas) as threads,
        threadpool_limits(limits=1 if replicas > 1 else None, user_api="blas"),
    ):
        while not clock.enough():
            list(threads.map(Products.__call__, parts))
            clock()
    return clock.median()
