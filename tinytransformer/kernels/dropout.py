"""Dropout with random bytes that are never stored: whoever wants one computes it, from a key and its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.launch import launch_elements


@dataclass(frozen=True)
class Dropping:
    """What is dropped: the same elements wherever it is applied.

    key: of numpy.random.Philox, whose bytes decide, in the order of the elements. A byte below `threshold` drops;
    what is kept is multiplied by `factor`.
    """

    key: np.uint64
    threshold: int
    factor: float

    @classmethod
    def drawn(cls, threshold: int, factor: float, generator: Any) -> Dropping:
        """Return one with a new key, which `generator` draws on the host."""
        return cls(np.uint64(generator.bit_generator.random_raw()), threshold, factor)


def drop(x: Array, dropping: Dropping, *, out: Array | None = None) -> Array:
    """Return `x` times the mask; `out`, whose elements lie in order, may be `x` itself."""
    xp = array_module(x)
    y = xp.empty(x.shape, x.dtype) if out is None else out
    x = xp.ascontiguousarray(x)
    launch_elements("dropout", -(-x.size // 8), x, x, y, x.size, dropping.key, dropping.threshold, dropping.factor)
    return y
