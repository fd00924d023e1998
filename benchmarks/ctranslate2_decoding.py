"""Decoding by CTranslate2, an engine in C++ for translation alone, with the same weights in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import ctranslate2
import numpy as np
from ctranslate2.specs import TransformerSpec

from benchmarks.exporting import require_exportable
from tinytransformer.layers import sinusoidal_table
from tinytransformer.transformer import BEGIN, END, UNKNOWN, Transformer
from tinytransformer.translation import Search, Translator

BATCH_TOKENS = 4096  # source tokens decoded together, beam included
LONGEST = 2048  # positions, more than any translation here has


class Decoder:
    """Translates ids into ids. CTranslate2 forms the batches, and divides the work over the cores.

    Its score divides by length^alpha where `decoding.length_penalty` divides by ((5 + length) / 6)^alpha, and its
    search ends when as many hypotheses as the beam is wide have ended, so with a beam it finds another translation here
    and there. It has one limit of length for all sources, the largest of theirs, so a translation that repeats itself
    without end is cut later.
    """

    def __init__(self, translator: Translator):
        self.limit = translator.limit
        with tempfile.TemporaryDirectory() as directory:
            convert(translator.model).save(directory)
            self.engine = ctranslate2.Translator(directory, device="cpu", compute_type="float32")

    def translate(self, sources: Sequence[Sequence[int]], beam: int) -> list[list[int]]:
        """Return the best translation of each source."""
        results = self.engine.translate_batch(
            [[str(i) for i in [*source, END]] for source in sources],
            beam_size=beam,
            length_penalty=Search().alpha,
            max_batch_size=BATCH_TOKENS // beam,
            batch_type="tokens",
            max_decoding_length=max((self.limit(len(source)) for source in sources), default=1),
        )
        return [[int(token) for token in result.hypotheses[0]] for result in results]


def convert(model: Transformer) -> TransformerSpec:
    """Return `model` as CTranslate2 describes one; its tokens are the ids in decimal digits."""
    require_exportable(model.config)
    config, weights = model.config, {name: p.data for name, p in model.parameters.named.items()}
    spec = TransformerSpec.from_config((config.encoder_layers, config.decoder_layers), config.heads, pre_norm=True)
    spec.config.layer_norm_epsilon = 1e-5
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = str(UNKNOWN), str(BEGIN), str(END)
    spec.config.decoder_start_token = str(BEGIN)
    vocabulary = [str(i) for i in range(config.target_vocabulary)]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)

    table = weights["encoder.embedding.table"]
    for embeddings in (spec.encoder.embeddings[0], spec.decoder.embeddings, spec.decoder.projection):
        embeddings.weight = table
    for name, stack in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        stack.position_encodings.encodings = sinusoidal_table(LONGEST, config.width).astype(np.float32)
        _set_norm(stack.layer_norm, weights, f"{name}.norm")
        for i, layer in enumerate(stack.layer):
            _set_block(layer, weights, f"{name}.blocks.{i}.")
    spec.validate()
    spec.optimize(quantization="float32")
    return spec


def _set_block(layer: Any, weights: dict[str, np.ndarray], block: str) -> None:
    _set_norm(layer.self_attention.layer_norm, weights, f"{block}self_attention_norm")
    attention = f"{block}self_attention."
    _set_linear(layer.self_attention.linear[0], weights, *(f"{attention}{part}" for part in ("query", "key", "value")))
    _set_linear(layer.self_attention.linear[1], weights, f"{attention}output")
    if f"{block}cross_attention.query.weight" in weights:
        _set_norm(layer.attention.layer_norm, weights, f"{block}cross_attention_norm")
        attention = f"{block}cross_attention."
        _set_linear(layer.attention.linear[0], weights, f"{attention}query")
        _set_linear(layer.attention.linear[1], weights, f"{attention}key", f"{attention}value")
        _set_linear(layer.attention.linear[2], weights, f"{attention}output")
    _set_norm(layer.ffn.layer_norm, weights, f"{block}feed_forward_norm")
    _set_linear(layer.ffn.linear_0, weights, f"{block}feed_forward.expand")
    _set_linear(layer.ffn.linear_1, weights, f"{block}feed_forward.contract")


def _set_norm(norm: Any, weights: dict[str, np.ndarray], name: str) -> None:
    norm.gamma, norm.beta = weights[f"{name}.gain"], weights[f"{name}.bias"]


def _set_linear(linear: Any, weights: dict[str, np.ndarray], *names: str) -> None:
    """Several projections of the same features become one; CTranslate2 has outputs first."""
    linear.weight = np.concatenate([weights[f"{name}.weight"].T for name in names])
    linear.bias = np.concatenate([weights[f"{name}.bias"] for name in names])
