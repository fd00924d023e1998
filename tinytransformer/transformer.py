"""The whole model: an encoder reads the source, a decoder writes the target, one token after the other.

Both are a `Stack`: token embeddings, positions, blocks. The encoder's blocks see the whole source. The decoder's see
only the past of the target, and, through cross-attention, all that the encoder made of the source.

    memory   = encoder(source)                                       (B, T_source, D)
    features = decoder(target, memory)                               (B, T_target, D)
    logits   = features @ W_output                                   (B, T_target, V): a score for every next token
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module
from tinytransformer.cache import DecoderCache
from tinytransformer.layers import (
    ACTIVATIONS,
    Block,
    Embedding,
    LayerNorm,
    LearnedPositions,
    Linear,
    SinusoidalPositions,
)
from tinytransformer.module import FlatParameters, Module
from tinytransformer.ops import dropout, linear, reshape, transpose
from tinytransformer.ops.checks import require_ids
from tinytransformer.tensor import Tensor

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3  # the ids that every vocabulary reserves

POSITIONS = ("sinusoidal", "learned")
NORMS = ("pre", "post")
MOST_LAYERS = 100  # of encoder or decoder; each takes memory and time, however narrow it is


@dataclass(frozen=True)
class TransformerConfig:
    """Everything that shapes a Transformer, in the order in which it is met.

    source_vocabulary, target_vocabulary: number of tokens, V.
    tied_embeddings: whether source embedding, target embedding and output projection are one table.
    positions: "sinusoidal", or "learned" for at most `max_length` tokens.
    width: features per position, D; heads divide it.
    feed_forward_width: features inside the feed-forward layer.
    norm: "pre" or "post", where the layer norms stand; see `layers.Block`.
    activation: "relu" or "gelu".
    dropout: on embeddings and on the output of every sublayer; attention_dropout: on attention weights.

    Raises: ValueError that names the field for a value that cannot be.
    """

    source_vocabulary: int
    target_vocabulary: int
    tied_embeddings: bool = True
    positions: str = "sinusoidal"
    max_length: int = 1024
    width: int = 512
    feed_forward_width: int = 2048
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    norm: str = "pre"
    activation: str = "relu"
    dropout: float = 0.1
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds: dict[str, Any] = {"int": int, "bool": bool, "str": str, "float": (int, float)}
            if not isinstance(value, kinds[str(field.type)]) or (isinstance(value, bool) and field.type != "bool"):
                raise ValueError(f"{field.name} is {value!r}, expected {field.type}")
            most = MOST_LAYERS if field.name.endswith("layers") else 2**31 - 1
            if field.type == "int" and not 1 <= value <= most:
                raise ValueError(f"{field.name} is {value}, expected at least 1 and at most {most:,}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 <= {name} < 1")
        choices = {"positions": POSITIONS, "norm": NORMS, "activation": (*ACTIVATIONS,)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected one of: {', '.join(allowed)}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width is {self.width}, expected an even number that its {self.heads} heads divide")
        if self.tied_embeddings and self.source_vocabulary != self.target_vocabulary:
            raise ValueError(
                "tied_embeddings needs one vocabulary, but source_vocabulary is "
                f"{self.source_vocabulary} and target_vocabulary is {self.target_vocabulary}"
            )

    def parameter_count(self) -> int:
        """Return how many numbers a Transformer of this shape learns, without making one."""
        D, hidden, norm = self.width, self.feed_forward_width, 2 * self.width
        attention, feed_forward = 4 * (D * D + D), D * hidden + hidden + hidden * D + D
        encoder = self.encoder_layers * (attention + feed_forward + 2 * norm)
        decoder = self.decoder_layers * (2 * attention + feed_forward + 3 * norm)
        tables = self.source_vocabulary + (0 if self.tied_embeddings else 2 * self.target_vocabulary)
        tables += 2 * self.max_length if self.positions == "learned" else 0
        last_norms = 2 * norm if self.norm == "pre" else 0
        return tables * D + encoder + decoder + last_norms


# Shapes to choose from by name. "base" has the sizes of the base model in Vaswani et al. 2017, table 3; "tiny" those of
# Wu et al. 2021, "Good for Misconceived Reasons", for Multi30k.
PRESETS: dict[str, dict[str, Any]] = {
    "toy": {"width": 64, "feed_forward_width": 256, "heads": 4, "encoder_layers": 2, "decoder_layers": 2},
    "tiny": {"width": 128, "feed_forward_width": 256, "heads": 4, "encoder_layers": 4, "decoder_layers": 4},
    "small": {"width": 256, "feed_forward_width": 1024, "heads": 4, "encoder_layers": 3, "decoder_layers": 3},
    "base": {"width": 512, "feed_forward_width": 2048, "heads": 8, "encoder_layers": 6, "decoder_layers": 6},
}


class Stack(Module):
    """Embeddings plus positions, then blocks: an encoder; with cross-attention a decoder.

    Called with `causal=True`, an encoder is what a language model is made of.
    """

    def __init__(
        self,
        config: TransformerConfig,
        embedding: Embedding,
        layers: int,
        generator: np.random.Generator,
        *,
        cross_attention: bool,
    ):
        self.embedding = embedding
        self.positions = (
            LearnedPositions(config.max_length, config.width, generator)
            if config.positions == "learned"
            else SinusoidalPositions(config.width)
        )
        self.blocks = [
            Block(
                config.width,
                config.feed_forward_width,
                config.heads,
                generator,
                cross_attention=cross_attention,
                pre_norm=config.norm == "pre",
                activation=config.activation,
                rate=config.dropout,
                attention_rate=config.attention_dropout,
            )
            for _ in range(layers)
        ]
        # Pre-norm leaves the sum of all residuals unnormalised, so one more norm follows the last block.
        self.norm = LayerNorm(config.width) if config.norm == "pre" else None
        self.rate = config.dropout

    def __call__(
        self,
        ids: Array,
        memory: Tensor | None = None,
        *,
        mask: Array | None = None,
        memory_mask: Array | None = None,
        causal: bool = False,
        generator: Any = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """(B, T) of token ids -> (B, T, D)

        cache: for decoding alone (see cache.py). The ids are then the newest of K beginnings of each sentence, (B, K),
            and what each of them sees the cache knows, in place of `mask` and `causal`.
        The other arguments are those of `layers.Block`.
        """
        if cache is None:
            x = self.positions(self.embedding(ids), 0)
        else:  # side by side in the array, all stand at one position, and each sees its own past
            x = reshape(self.positions(self.embedding(ids.reshape(-1, 1)), cache.length), shape=(*ids.shape, -1))
            mask, causal = cache.grow(ids), False
        x = dropout(x, rate=self.rate, generator=generator)
        for i, block in enumerate(self.blocks):
            x = block(
                x,
                memory,
                mask=mask,
                memory_mask=memory_mask,
                causal=causal,
                generator=generator,
                cache=None if cache is None else cache.blocks[i],
            )
        return x if self.norm is None else self.norm(x)


class Blank:
    """Draws zeros that take no memory, for weights that nobody will read."""

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        return np.broadcast_to(0.0, shape)

    normal = uniform


class Transformer(Module):
    """The encoder-decoder of Vaswani et al. 2017, figure 1; Phuong and Hutter 2022, algorithm 8.

    generator: draws the initial weights.
    dtype, device: of the parameters, and so of everything that is computed with them.
    of: the parameters of a model of the same shape, to be used in place of own ones; see `replica`.
    """

    def __init__(
        self,
        config: TransformerConfig,
        generator: np.random.Generator,
        *,
        dtype: Any = np.float32,
        device: str = "cpu",
        of: FlatParameters | None = None,
    ):
        self.config = config
        source = Embedding(config.source_vocabulary, config.width, generator)
        target = source
        self.output = None
        if not config.tied_embeddings:
            target = Embedding(config.target_vocabulary, config.width, generator)
            self.output = Linear(config.width, config.target_vocabulary, generator, bias=False)
        self.encoder = Stack(config, source, config.encoder_layers, generator, cross_attention=False)
        self.decoder = Stack(config, target, config.decoder_layers, generator, cross_attention=True)
        self.parameters = FlatParameters(self, dtype=dtype, device=device, of=of)

    def replica(self) -> Transformer:
        """Return a model over the same parameters, with gradients of its own: to compute at the same time as this."""
        blank: Any = Blank()
        return Transformer(self.config, blank, of=self.parameters)

    def place_source(self, ids: Array) -> Array:
        """Return source ids where the parameters are. Raises: IndexError for an id that must not go to a GPU."""
        return self._place("source", ids, self.config.source_vocabulary)

    def place_target(self, ids: Array) -> Array:
        """Return target ids where the parameters are, as `place_source` does."""
        return self._place("target", ids, self.config.target_vocabulary)

    def _place(self, side: str, ids: Array, count: int) -> Array:
        xp = array_module(self.parameters.data)
        if xp is not np:  # a GPU takes an id that is out of range for another, in silence; on a CPU operations look
            require_ids(side, ids, count)
        return xp.asarray(ids)

    def __call__(self, source: Array, target: Array, generator: Any = None) -> Tensor:
        """Score every next token of the target.

        source: (B, T_source) token ids, padded with PAD at the end. target: (B, T_target), beginning with BEGIN.
        generator: for dropout; without one nothing is dropped.
        Returns the logits, (B, T_target, V): those at position t are for the token at t + 1.
        """
        memory, memory_mask = self.encode(source, generator)
        return self.project(self.decode(target, memory, memory_mask, generator=generator))

    def encode(self, source: Array, generator: Any = None) -> tuple[Tensor, Array]:
        """(B, T_source) -> the memory (B, T_source, D), and its mask (B, 1, 1, T_source): True on real tokens"""
        mask = (source != PAD)[:, None, None, :]
        return self.encoder(source, mask=mask, generator=generator), mask

    def decode(
        self,
        target: Array,
        memory: Tensor,
        memory_mask: Array,
        *,
        generator: Any = None,
        cache: DecoderCache | None = None,
    ) -> Tensor:
        """(B, T_target) of ids -> features (B, T_target, D)

        Padding stands at the end, so the causal mask alone hides it from every real token before it.

        cache: for decoding alone (see cache.py). The ids are then the newest of K beginnings of each sentence, (B, K).
        """
        return self.decoder(
            target,
            memory,
            memory_mask=memory_mask,
            causal=True,
            generator=generator,
            cache=cache,
        )

    def project(self, features: Tensor) -> Tensor:
        """(..., D) -> logits (..., V)"""
        if self.output is None:
            return linear(features, transpose(self.decoder.embedding.table, axes=(1, 0)), None)
        return self.output(features)

    def projection(self) -> Array:
        """Return the matrix of `project`, (D, V): a view of parameters."""
        return self.decoder.embedding.table.data.T if self.output is None else self.output.weight.data

    def new_cache(self, sentences: int) -> DecoderCache:
        """Return an empty cache for decoding a batch of so many sentences token by token."""
        return DecoderCache(len(self.decoder.blocks), sentences)
