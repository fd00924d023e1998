"""What a decoder keeps of the tokens before, so that the keys and values of each are computed once.

A beam search follows several beginnings of a sentence at once, and most of what they say they have in common. They are
paths in one tree, whose nodes are tokens. So the tree is kept: every node has a place among the keys and values, and a
beginning sees the places on its path. Where one beginning goes on in two ways and another is given up, nothing is
copied, only paths change; and the place of a node that is on no path any more is taken by the next.

For decoding alone: no gradient flows through what is kept here. Keys and values have to be finite: what is hidden has
weight 0, and 0 * nan is nan, so that one beginning without a number would leave its whole sentence without.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.tensor import ShapeError, Tensor

ROOM = 16  # places there is room for at first


class Tree:
    """The beginnings of S sentences, K of each, as paths over C places. It is kept on the host, where the search is.

    paths: whether a place lies on the path of a beginning, (S, K, C). length: how many tokens each beginning has.
    newest: the places of the tokens that the last `grow` made room for, as an index of arrays (S, C, ...), on the
        device.
    """

    def __init__(self, sentences: int):
        self.paths = np.zeros((sentences, 1, 0), dtype=bool)  # each sentence begins with one beginning, of no tokens
        self.newest: tuple[Array, ...] = ()
        self.length = 0

    def grow(self, xp: Any = np) -> None:
        """Find a place for one more token of each beginning; its path leads there."""
        sentences, count, _ = self.paths.shape
        taken = self.paths.any(axis=1)
        missing = int(taken.sum(axis=1).max(initial=0)) + count - taken.shape[1]
        if missing > 0:
            self.paths = np.pad(self.paths, ((0, 0), (0, 0), (0, missing)))
            taken = np.pad(taken, ((0, 0), (0, missing)))
        places = np.argsort(taken, axis=1, kind="stable")[:, :count]  # those that are free come first
        np.put_along_axis(self.paths, places[..., None], True, axis=2)
        self.newest = xp.arange(sentences)[:, None], xp.asarray(places)
        self.length += 1

    def follow(self, parents: np.ndarray) -> None:
        """Go on with these beginnings of each sentence, (S, K'); one may be named several times, or not at all."""
        self.paths = np.take_along_axis(self.paths, parents[..., None], axis=1)

    def keep(self, remaining: Remaining) -> None:
        """Go on with these sentences."""
        self.paths = self.paths[remaining.order]


class Remaining:
    """The sentences that go on when others of a batch have ended: the last ones fill the gaps, so that few move.

    staying: which they are, (S,) of bool. order: where each of them stood before.
    """

    def __init__(self, staying: np.ndarray, xp: Any = np):
        count = np.count_nonzero(staying)
        gaps = np.flatnonzero(~staying[:count])
        self.order = np.arange(count)
        self.order[gaps] = count + np.flatnonzero(staying[count:])
        self.gaps, self.fillers = xp.asarray(gaps), xp.asarray(self.order[gaps])

    def of(self, x: Array) -> Array:
        """(S, ...) -> (remaining, ...): the beginning of x itself, which stays in memory, and is overwritten."""
        if self.gaps.size:
            x[self.gaps] = x[self.fillers]
        return x[: len(self.order)]


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
        places = self.tree.paths.shape[2]
        self.key = _with_room(self.key, key.data, places)
        self.value = _with_room(self.value, value.data, places)
        for kept, new in ((self.key, key), (self.value, value)):
            kept.swapaxes(1, 2)[self.tree.newest] = new.data.swapaxes(1, 2)
        return Tensor(self.key[:, :, :places]), Tensor(self.value[:, :, :places])

    def keep(self, remaining: Remaining) -> None:
        """Go on with these sentences."""
        if self.key is not None and self.value is not None:
            self.key, self.value = remaining.of(self.key), remaining.of(self.value)


def _with_room(old: Array | None, like: Array, places: int) -> Array:
    """Return `old`, or a larger array that begins with it, if there are more places than it has room for."""
    if old is not None and old.shape[2] >= places:
        return old
    sentences, heads, _, features = like.shape
    # Zeros, since a place that a sentence has not used has weight 0. In memory a place has its heads side by side, as
    # they come.
    new = array_module(like).zeros((sentences, max(ROOM, 2 * places), heads, features), dtype=like.dtype).swapaxes(1, 2)
    if old is not None:
        new[:, :, : old.shape[2]] = old
    return new


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

    @property
    def length(self) -> int:
        """How many tokens each beginning has."""
        return self.tree.length

    def grow(self, ids: Array) -> Array | None:
        """Make room for a token more; return the mask of self-attention, (S, 1, K, places), None if all is seen.

        ids: the tokens, (S, K). Raises: ShapeError if there are not as many beginnings.
        """
        expected = self.tree.paths.shape[:2]
        if ids.shape != expected:
            raise ShapeError(f"decode: ids of shape {ids.shape} do not fit the beginnings in the cache, {expected}")
        xp = array_module(ids)
        self.tree.grow(xp)
        return None if self.tree.paths.all() else xp.asarray(self.tree.paths[:, None])

    def follow(self, parents: np.ndarray) -> None:
        """Go on with these beginnings of each sentence, (S, K'); one may be named several times, or not at all."""
        self.tree.follow(parents)

    def keep(self, remaining: Remaining) -> None:
        """Go on with these sentences."""
        self.tree.keep(remaining)
        for block in self.blocks:
            block.self_attention.keep(remaining)
            block.cross_attention.keep(remaining)
