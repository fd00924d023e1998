"""Arrays as nested lists of floats: all that the oracles need to loop over scalars."""

import math
from itertools import product

import numpy as np


def shape_of(x):
    """Return the sizes of a nested list; a number has none."""
    shape = []
    while isinstance(x, list):
        shape.append(len(x))
        x = x[0]
    return tuple(shape)


def positions(shape):
    """Iterate over all index tuples of a shape, the last index fastest."""
    return product(*map(range, shape))


def at(x, index):
    """Return the element (or the sub-list) of `x` at an index tuple."""
    for i in index:
        x = x[i]
    return x


def build(shape, element, index=()):
    """Return the nested list whose entry at every index tuple is element(index)."""
    if not shape:
        return element(index)
    return [build(shape[1:], element, (*index, i)) for i in range(shape[0])]


def flatten(x):
    """Return all numbers of a nested list, the last index fastest."""
    return [at(x, index) for index in positions(shape_of(x))]


def elementwise(function):
    """Return the function of a nested list that applies `function` to every number."""
    return lambda x, **options: build(shape_of(x), lambda index: function(at(x, index), **options))


def stretched_at(x, index):
    """Return the element that `x` shows at `index` once it is broadcast: sizes of 1 are repeated."""
    shape = shape_of(x)
    return at(x, [0 if size == 1 else i for size, i in zip(shape, index[len(index) - len(shape) :], strict=True)])


def common_shape(a, b):
    """Return the shape that two shapes broadcast to."""
    length = len(a) if len(a) > len(b) else len(b)
    a, b = (1,) * (length - len(a)) + tuple(a), (1,) * (length - len(b)) + tuple(b)
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


def broadcasting(function):
    """Return the function of two nested lists that applies `function` to pairs of numbers."""

    def apply(x, y):
        shape = common_shape(shape_of(x), shape_of(y))
        return build(shape, lambda index: function(stretched_at(x, index), stretched_at(y, index)))

    return apply


def reducing(function):
    """Return the reduction of a nested list that makes one number of every group of numbers along `axis`."""

    def apply(x, axis, keepdims):
        shape = shape_of(x)
        axes = range(len(shape)) if axis is None else [axis] if isinstance(axis, int) else axis
        axes = {a % len(shape) for a in axes}
        groups = {}
        for index in positions(shape):
            kept = tuple(0 if i in axes and keepdims else n for i, n in enumerate(index) if keepdims or i not in axes)
            groups.setdefault(kept, []).append(at(x, index))
        reduced = [1 if i in axes else n for i, n in enumerate(shape) if keepdims or i not in axes]
        return build(reduced, lambda index: function(groups[index]))

    return apply


def drawn_bytes(generator, count):
    """Draw whole words of 64 bits and cut them into bytes, the lowest first."""
    words = generator.integers(0, 2**64 - 1, size=math.ceil(count / 8), dtype="uint64", endpoint=True).tolist()
    return b"".join(word.to_bytes(8, "little") for word in words)[:count]


class InBlocks:
    """A generator for an array (B, H, T_query, T_key) whose bytes are drawn block after block, as by the operation.

    It gives their words in the order of the array; 0 where none was drawn, since `causal` hides the whole block.
    """

    def __init__(self, generator, shape, causal, block):
        self.generator, self.shape, self.causal, self.block = generator, shape, causal, block

    def integers(self, *limits, size, **options):
        drawn, (batch, heads, queries, keys) = bytearray(8 * size), self.shape
        for head, i in product(range(batch * heads), range(0, queries, self.block)):
            rows = range(i, min(i + self.block, queries))
            seen = [j for j in range(keys) if not self.causal or keys - j >= queries - rows[-1]]
            for j in seen[:: self.block]:
                columns = len(seen[j : j + self.block])
                chunks = rows_of(drawn_bytes(self.generator, len(rows) * columns), columns)
                for row, chunk in zip(rows, chunks, strict=True):
                    start = (head * queries + row) * keys + j
                    drawn[start : start + columns] = chunk
        return np.frombuffer(drawn, dtype="<u8")  # an array, as NumPy's generators give one


def rows_of(sequence, width):
    """Cut a sequence into pieces of equal width."""
    return [sequence[start : start + width] for start in range(0, len(sequence), width)]
