"""One contender translates one file: `python -m benchmarks.translating ours FILE --model RUN` prints time and text.

What is timed goes from lines of text to lines of text. Loading is not, and a few lines are translated before, so that
nothing is done for the first time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tinytransformer.backend import Array, keep_freed_memory
from tinytransformer.cache import Remaining
from tinytransformer.command_line import errors_in_one_line, hypotheses
from tinytransformer.data import read_lines
from tinytransformer.tensor import Tensor
from tinytransformer.transformer import Transformer
from tinytransformer.translation import Search, Translator

CONTENDERS = ("ours", "ours-shortlists", "ours-without-cache", "pytorch", "pytorch-shortlists", "ctranslate2")
WARM_UP = 8  # lines


class WithoutCache(Transformer):
    """The same model, without the cache: it computes all positions anew for every token."""

    def __init__(self, model: Transformer):
        vars(self).update(vars(model))

    def new_cache(self, sentences: int) -> Any:
        return Beginnings(sentences)

    def decode(self, target: Array, memory: Tensor, memory_mask: Array, *, cache: Any = None, **options: Any) -> Tensor:
        """(S, K) of the newest ids -> the features of their positions, (S, K, D)"""
        ids = cache.extend(target)
        sentences, beginnings, length = ids.shape
        each = Tensor(np.repeat(memory.data, beginnings, axis=0)), np.repeat(memory_mask, beginnings, axis=0)
        features = super().decode(ids.reshape(-1, length), *each).data[:, -1]
        return Tensor(features.reshape(sentences, beginnings, -1))


class Beginnings:
    """Stands in the place of a `cache.DecoderCache`, and holds the ids themselves instead of keys and values."""

    def __init__(self, sentences: int) -> None:
        self.ids = np.zeros((sentences, 1, 0), dtype=int)

    @property
    def length(self) -> int:
        return self.ids.shape[2]

    def extend(self, ids: np.ndarray) -> np.ndarray:
        self.ids = np.concatenate([self.ids, ids[..., None]], axis=2)
        return self.ids

    def follow(self, parents: np.ndarray) -> None:
        self.ids = np.take_along_axis(self.ids, parents[..., None], axis=1)

    def keep(self, remaining: Remaining) -> None:
        self.ids = self.ids[remaining.order]


def prepare(contender: str, translator: Translator, beam: int) -> Callable[[list[str]], list[str]]:
    """Return the function that translates lines."""
    if contender.startswith("pytorch"):
        from benchmarks.pytorch_decoding import (
            Decoder as PyTorchDecoder,
        )  # here, so that the others run without PyTorch in memory

        pytorch = PyTorchDecoder(translator)
        return lambda lines: with_ids(translator, lines, lambda sources: pytorch.translate(sources, beam))
    if contender == "ctranslate2":
        from benchmarks.ctranslate2_decoding import Decoder as CTranslate2Decoder

        ctranslate2 = CTranslate2Decoder(translator)
        return lambda lines: with_ids(translator, lines, lambda sources: ctranslate2.translate(sources, beam))
    keep_freed_memory()  # as translate.py does
    if contender == "ours-without-cache":
        translator.model = WithoutCache(translator.model)
    return lambda lines: translator.translate(lines, Search(beam))


def with_ids(
    translator: Translator, lines: list[str], translate: Callable[[list[list[int]]], list[list[int]]]
) -> list[str]:
    """Translate lines by a function from ids to ids; an empty line stays one."""
    full = [i for i, line in enumerate(lines) if line.strip()]
    found = translate([translator.tokenizer.encode(lines[i]) for i in full])
    texts = {i: translator.tokenizer.decode(ids) for i, ids in zip(full, found, strict=True)}
    return [texts.get(i, "") for i in range(len(lines))]


def measure_translation(contender: str, translator: Translator, lines: list[str], beam: int) -> dict[str, Any]:
    """Return the seconds that all `lines` took, and the translations."""
    translate = prepare(contender, translator, beam)
    translate(lines[:WARM_UP])
    started = time.perf_counter()
    translations = translate(lines)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "translations": translations}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.translating", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("source", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--beam", type=hypotheses, default=1)
    options = parser.parse_args()
    with errors_in_one_line("benchmarks.translating"):
        translator = Translator.load(options.model, shortlist=options.contender.endswith("-shortlists"))
        lines = read_lines(options.source)
        print(json.dumps(measure_translation(options.contender, translator, lines, options.beam)))


if __name__ == "__main__":
    main()
