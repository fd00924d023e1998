"""What a decoder keeps of the tokens before, so that the keys and values of each are computed once.

A beam search follows several beginnings of a sentence at once, and most of what they say they have in common. They are
paths in one tree, whose nodes are tokens. So the tree is kept: every node has a place among the keys and values, and a
beginning sees the places on its path. Where one beginning goes on in two ways and another is given up, no key moves,
only paths change; and the place of a node that is on no path any more is taken by the next.

For decoding alone: no gradient flows through what is kept here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.tensor import Tensor

ROOM = 16  # places there is room for at first


class Tree:
    """The beginnings of S sentences, K of each, as paths over C places.

    paths: whether a place lies on the path of a beginning, (S, K, C). places: those of the newest tokens, (S, K).
    length: how many tokens each beginning has.
    """

    def __init__(self, sentences: int):
        self.paths = np.zeros((sentences, 1, 0), dtype=bool)  # each sentence begins with one beginning, of no tokens
        self.places = np.zeros((sentences, 1), dtype=int)
        self.length = 0

    def grow(self) -> None:
        """Find a place for one more token of each beginning; its path leads there."""
        count = self.paths.shape[1]
        taken = self.paths.any(axis=1)
        missing = int(taken.sum(axis=1).max(initial=0)) + count - taken.shape[1]
        if missing > 0:
            self.paths = np.pad(self.paths, ((0, 0), (0, 0), (0, missing)))
            taken = np.pad(taken, ((0, 0), (0, missing)))
        self.places = np.argsort(taken, axis=1, kind="stable")[:, :count]  # those that are free come first
        np.put_along_axis(self.paths, self.places[..., None], True, axis=2)
        self.length += 1

    def follow(self, parents: np.ndarray) -> None:
        """Go on with these beginnings of each sentence, (S, K'); one may be named several times, or not at all."""
        self.paths = np.take_along_axis(self.paths, parents[..., None], axis=1)

    def keep(self, order: np.ndarray) -> None:
        """Go on with these sentences, in this order."""
        self.paths = self.paths[order]


class AttentionCache:
    """The keys and values that one attention looks at, (S, H, places, D / H).

    In self-attention they are those of a tree. In cross-attention, without one, they are those of the memory.
    """

    def __init__(self, tree: Tree | None = None):
        self.tree = tree
        self.key: Array | None = None
        self.value: Array | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Put the keys and values of the newest tokens, (S, H, K, D / H), in their places; return those of all places.

        Without a tree, keep these.
        """
        if self.tree is None:
            self.key, self.value = key.data, value.data
            return key, value
        self.key = self._put(key.data, self.tree, self.key)
        self.value = self._put(value.data, self.tree, self.value)
        places = self.tree.paths.shape[2]
        return Tensor(self.key[:, :, :places]), Tensor(self.value[:, :, :places])

    @staticmethod
    def _put(new: Array, tree: Tree, old: Array | None) -> Array:
        """Return `old`, with more room if there are more places, and `new` in its places."""
        xp, places = array_module(new), tree.paths.shape[2]
        sentences, heads, _, features = new.shape
        if old is None or old.shape[2] < places:
            # A place has its heads side by side, as they come, and is never without a number: 0 * nan is no 0.
            more = xp.zeros((sentences, max(ROOM, 2 * places), heads, features), dtype=new.dtype).swapaxes(1, 2)
            if old is not None:
                more[:, :, : old.shape[2]] = old
            old = more
        old.swapaxes(1, 2)[xp.arange(sentences)[:, None], xp.asarray(tree.places)] = new.swapaxes(1, 2)
        return old

    def keep(self, order: Array) -> None:
        """Go on with these sentences, in this order."""
        if self.key is not None and self.value is not None:
            self.key, self.value = keep_rows(self.key, order), keep_rows(self.value, order)


def keep_rows(x: Array, order: np.ndarray) -> Array:
    """Return the rows `order` of x, which is overwritten: only those are copied that move."""
    xp = array_module(x)
    moved = np.flatnonzero(order != np.arange(len(order)))
    if len(moved):
        x[xp.asarray(moved)] = x[xp.asarray(order[moved])]
    return x[: len(order)]


class BlockCache:
    """What a Block keeps between the steps of decoding."""

    def __init__(self, tree: Tree):
        self.self_attention = AttentionCache(tree)
        self.cross_attention = AttentionCache()


class DecoderCache:
    """What all blocks keep of the beginnings of a batch of sentences: each sentence begins with one, of no tokens."""

    def __init__(self, blocks: int, sentences: int):
        self.tree = Tree(sentences)
        self.blocks = [BlockCache(self.tree) for _ in range(blocks)]

    def grow(self, xp: Any) -> Array | None:
        """Make room for a token more; return the mask of self-attention, (S, 1, K, places), None if all is seen."""
        self.tree.grow()
        return None if self.tree.paths.all() else xp.asarray(self.tree.paths[:, None])

    def follow(self, parents: np.ndarray) -> None:
        """Go on with these beginnings of each sentence, (S, K'); one may be named several times, or not at all."""
        self.tree.follow(parents)

    def keep(self, order: np.ndarray) -> None:
        """Go on with these sentences, in this order; those that stay at their place cost nothing."""
        self.tree.keep(order)
        for block in self.blocks:
            block.self_attention.keep(order)
            block.cross_attention.keep(order)
