"""The matrix products of a training step and nothing else: a floor for all that compute with the same BLAS.

A product y = x @ w in the forward pass brings two in the backward pass, dx = dy @ w^T and dw = x^T @ dy. Norms,
softmax, dropout, residuals, the optimizer and all else are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.clock import Clock
from benchmarks.sizes import Size


@dataclass(frozen=True)
class Product:
    """(rows, inner) @ (inner, columns), for a `stack` of such matrices at once, and `count` times in a step."""

    rows: int
    inner: int
    columns: int
    count: int
    stack: int = 1

    def operations(self) -> int:
        """Return the multiplications and additions of all of them, forward and backward."""
        return 3 * 2 * self.rows * self.inner * self.columns * self.count * self.stack


def products(size: Size, batch: int) -> list[Product]:
    """Return the products of the forward pass over a batch of so many sentences."""
    tokens, width, hidden = batch * size.length, size.width, size.feed_forward_width
    stack, head = batch * size.heads, width // size.heads
    attentions = 3 * size.layers  # one in each block of the encoder, two in each of the decoder
    return [
        Product(tokens, width, width, 4 * attentions),  # query, key, value, output
        Product(size.length, head, size.length, attentions, stack),  # query @ key^T
        Product(size.length, size.length, head, attentions, stack),  # weights @ value
        Product(tokens, width, hidden, 2 * size.layers),
        Product(tokens, hidden, width, 2 * size.layers),
        Product(tokens, width, size.vocabulary, 1),  # the projection to the vocabulary
    ]


class Products:
    """The arrays of all products, and the products. The results have their place: no memory is asked for in a step."""

    def __init__(self, size: Size, batch: int):
        generator = np.random.default_rng(1)
        self.prepared = [(product.count, list(_arrays(product, generator))) for product in products(size, batch)]

    def __call__(self) -> None:
        for count, (x, w, y, dx, dw) in self.prepared:
            for _ in range(count):
                np.matmul(x, w, out=y)
                np.matmul(y, w.swapaxes(-1, -2), out=dx)
                np.matmul(x.swapaxes(-1, -2), y, out=dw)


def _arrays(product: Product, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield x, w, y, dx and dw."""
    stack = () if product.stack == 1 else (product.stack,)
    left, right = (*stack, product.rows, product.inner), (*stack, product.inner, product.columns)
    yield generator.random(left, dtype=np.float32)
    yield generator.random(right, dtype=np.float32)
    for shape in ((*stack, product.rows, product.columns), left, right):
        yield np.empty(shape, np.float32)


def measure_floor(size: Size, clocks: tuple[Clock, Clock]) -> float:
    """Return the seconds of a step of bare products.

    They are divided over the cores in both ways, by BLAS, and in two threads with half of the batch each; the faster
    way counts.
    """
    return min(_measure(size, replicas, clock) for replicas, clock in zip((1, 2), clocks, strict=True))


def _measure(size: Size, replicas: int, clock: Clock) -> float:
    parts = [Products(size, size.batch // replicas) for _ in range(replicas)]
    with (
        ThreadPoolExecutor(replicas) as threads,
        threadpool_limits(limits=1 if replicas > 1 else None, user_api="blas"),
    ):
        while not clock.enough():
            list(threads.map(Products.__call__, parts))
            clock()
    return clock.median()
