"""The parts a Transformer is made of. Each holds its parameters and says in one line what it computes.

Shapes are (batch, time, feature), written (B, T, D); heads (B, H, T, D / H). Randomness is an argument: parts are
built from a generator that draws their weights, and drop out in a call only if it is handed a generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module, is_on_gpu
from tinytransformer.cache import AttentionCache, BlockCache
from tinytransformer.module import Module, Parameter
from tinytransformer.ops import attention, dropout, embedding, gelu, layer_norm, linear, relu, reshape, transpose
from tinytransformer.ops.blockwise import LONG, MANY_ON_A_GPU, blockwise_attention
from tinytransformer.tensor import Tensor

ACTIVATIONS = {"relu": relu, "gelu": gelu}


class Linear(Module):
    """y = x @ weight + bias. The weight is drawn Glorot-uniform, the bias is zero.

    Source of the weights: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural
    networks", equation 16.
    """

    def __init__(self, inputs: int, outputs: int, generator: np.random.Generator, *, bias: bool = True):
        limit = math.sqrt(6 / (inputs + outputs))
        self.weight = Parameter(generator.uniform(-limit, limit, (inputs, outputs)))
        self.bias = Parameter(np.zeros(outputs)) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)"""
        return linear(x, self.weight, self.bias)


class Embedding(Module):
    """A vector for every token, drawn with standard deviation D^-1/2 and multiplied by sqrt(D) on the way out.

    So the vectors have elements of order one, as the positions added to them have, and the same table can serve
    as the output projection.
    Source: Vaswani et al. 2017, section 3.4.
    """

    def __init__(self, count: int, width: int, generator: np.random.Generator):
        self.table = Parameter(generator.normal(0, width**-0.5, (count, width)))
        self.scale = math.sqrt(width)

    def __call__(self, ids: Array) -> Tensor:
        """(B, T) of token ids -> (B, T, D)"""
        return embedding(self.table, ids=ids) * self.scale


class LayerNorm(Module):
    """Normalise every position over its features, then scale and shift; see `ops.layer_norm`."""

    def __init__(self, width: int):
        self.gain = Parameter(np.ones(width))
        self.bias = Parameter(np.zeros(width))

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return layer_norm(x, self.gain, self.bias)


class LearnedPositions(Module):
    """A learned vector for every position, up to a fixed length.

    Source: Gehring et al. 2017, arXiv:1705.03122, section 3.1.
    """

    def __init__(self, length: int, width: int, generator: np.random.Generator):
        self.table = Parameter(generator.normal(0, 1, (length, width)))

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """(B, T, D), whose first position is `first` -> (B, T, D) with the positions added

        Raises: ValueError if the sequence is longer than the table.
        """
        last, length = first + x.shape[1], self.table.shape[0]
        if last > length:
            raise ValueError(f"a sequence of {last} tokens is too long: {length} positions have been learned")
        return x + self.table[first:last]


class SinusoidalPositions(Module):
    """A fixed wave for every feature, so that a shift of position is a rotation, alike everywhere.

        p[t, 2i]     = sin(t / 10000^(2i / D))
        p[t, 2i + 1] = cos(t / 10000^(2i / D))

    Source: Vaswani et al. 2017, section 3.5.
    """

    def __init__(self, width: int):
        self.width = width
        self.tables: dict[Any, Array] = {}  # by dtype and array module; recomputed when too short

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """(B, T, D), whose first position is `first` -> (B, T, D) with the positions added"""
        xp, last = array_module(x.data), first + x.shape[1]
        table = self.tables.get((xp, x.dtype))
        if table is None or len(table) < last:
            table = xp.asarray(sinusoidal_table(2 * last, self.width).astype(x.dtype))
            self.tables[xp, x.dtype] = table
        return x + table[first:last]


def sinusoidal_table(length: int, width: int) -> np.ndarray:
    """Return the (length, width) table of `SinusoidalPositions`, in float64; the width is even."""
    angle = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)  # (length, width / 2)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(length, width)


def is_long(query: Tensor, key: Tensor) -> bool:
    """Return whether to attend block by block: (B, H, T_query, D / H), (B, H, T_key, D / H)."""
    sentences, heads, queries, _ = query.shape
    pairs = queries * key.shape[2]
    return sentences * heads * pairs >= MANY_ON_A_GPU if is_on_gpu(query.data) else pairs >= LONG


class MultiHeadAttention(Module):
    """Attention in H subspaces at once, and a projection of what they found, side by side.

        head_i = attention(x @ W_query_i + b_query_i, memory @ W_key_i + b_key_i, memory @ W_value_i + b_value_i)
        y      = concatenate(head_1, ..., head_H) @ W_output + b_output

    The heads' matrices stand side by side in one D x D matrix each for query, key and value. The biases are those of
    algorithm 5; section 3.2.2 has none.
    Source: Vaswani et al. 2017, section 3.2.2; Phuong and Hutter 2022, algorithm 5.
    """

    def __init__(self, width: int, heads: int, rate: float, generator: np.random.Generator):
        self.query = Linear(width, width, generator)
        self.key = Linear(width, width, generator)
        self.value = Linear(width, width, generator)
        self.output = Linear(width, width, generator)
        self.heads = heads
        self.rate = rate

    def __call__(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Array | None = None,
        causal: bool = False,
        generator: Any = None,
        cache: AttentionCache | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)

        memory: what keys and values are made from, (B, T_key, D); x itself if None (self-attention).
        mask, causal: as in `ops.attention`.
        cache: for decoding alone, where it keeps keys and values from step to step; cache.py explains it. In
            self-attention they are those of the tokens before, x holds the newest tokens of T beginnings side by side,
            and `mask` says what each of them sees. In cross-attention they are those of the memory.
        """
        query = self._split(self.query(x))
        if memory is not None and cache is not None and cache.key is not None and cache.value is not None:
            key, value = Tensor(cache.key), Tensor(cache.value)
        else:
            source = x if memory is None else memory
            key, value = self._split(self.key(source)), self._split(self.value(source))
            if cache is not None:
                key, value = cache.extend(key, value)
        attend = blockwise_attention if is_long(query, key) else attention
        heads = attend(
            query, key, value, mask=mask, causal=causal, rate=self.rate, generator=generator
        )  # (B, H, T, D / H)
        return self.output(reshape(transpose(heads, axes=(0, 2, 1, 3)), shape=x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, H, T, D / H)"""
        batch, time, width = x.shape
        return transpose(reshape(x, shape=(batch, time, self.heads, width // self.heads)), axes=(0, 2, 1, 3))


class FeedForward(Module):
    """Two linear maps with a bend between them, at every position alike: y = activation(x @ W_1 + b_1) @ W_2 + b_2.

    Source: Vaswani et al. 2017, equation 2.
    """

    def __init__(self, width: int, hidden: int, activation: str, generator: np.random.Generator):
        self.expand = Linear(width, hidden, generator)
        self.contract = Linear(hidden, width, generator)
        self.activation = ACTIVATIONS[activation]

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return self.contract(self.activation(self.expand(x)))


class Block(Module):
    """Self-attention, cross-attention if there is a memory to attend to, feed-forward; a residual around each.

    post-norm:  x = norm(x + dropout(sublayer(x)))      (Vaswani et al. 2017, section 3.1)
    pre-norm:   x = x + dropout(sublayer(norm(x)))      (Xiong et al. 2020, arXiv:2002.04745, figure 1)
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        heads: int,
        generator: np.random.Generator,
        *,
        cross_attention: bool,
        pre_norm: bool = True,
        activation: str = "relu",
        rate: float = 0.0,
        attention_rate: float = 0.0,
    ):
        self.self_attention = MultiHeadAttention(width, heads, attention_rate, generator)
        self.self_attention_norm = LayerNorm(width)
        self.cross_attention: MultiHeadAttention | None = None
        if cross_attention:
            self.cross_attention = MultiHeadAttention(width, heads, attention_rate, generator)
            self.cross_attention_norm = LayerNorm(width)
        self.feed_forward = FeedForward(width, hidden, activation, generator)
        self.feed_forward_norm = LayerNorm(width)
        self.pre_norm = pre_norm
        self.rate = rate

    def __call__(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        *,
        mask: Array | None = None,
        memory_mask: Array | None = None,
        causal: bool = False,
        generator: Any = None,
        cache: BlockCache | None = None,
    ) -> Tensor:
        """(B, T, D) -> (B, T, D)

        mask, causal: for self-attention, memory_mask: for cross-attention; as in `ops.attention`.
        Raises: ValueError for a memory that nothing attends to, or cross-attention without one.
        """
        if (memory is None) != (self.cross_attention is None):
            raise ValueError("a block takes a memory exactly if it has cross-attention")
        own, cross = (None, None) if cache is None else (cache.self_attention, cache.cross_attention)

        def to_itself(y):
            return self.self_attention(y, mask=mask, causal=causal, generator=generator, cache=own)

        x = self._residual(x, self.self_attention_norm, to_itself, generator)
        if (cross_attention := self.cross_attention) is not None:

            def to_memory(y):
                return cross_attention(y, memory, mask=memory_mask, generator=generator, cache=cross)

            x = self._residual(x, self.cross_attention_norm, to_memory, generator)
        return self._residual(x, self.feed_forward_norm, self.feed_forward, generator)

    def _residual(self, x: Tensor, norm: LayerNorm, sublayer: Callable[[Tensor], Tensor], generator: Any) -> Tensor:
        if self.pre_norm:
            return x + dropout(sublayer(norm(x)), rate=self.rate, generator=generator)
        return norm(x + dropout(sublayer(x), rate=self.rate, generator=generator))
