"""A trained model as something that translates lines of text."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from tinytransformer.checkpoint import load_model
from tinytransformer.decoding import Hypothesis, beam_search, greedy
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import Transformer


class Translator:
    """A model, its tokenizer, and how long a translation may become.

    length_ratio: tokens of target per token of source that occur in the training data.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, length_ratio: float):
        self.model = model
        self.tokenizer = tokenizer
        self.length_ratio = length_ratio
        learned = model.config.positions == "learned"
        self.longest = model.config.max_length if learned else sys.maxsize  # tokens, END included

    @classmethod
    def load(cls, directory: Path, *, device: str = "cpu") -> Translator:
        """Load what a training run left in `directory`. Raises: as `checkpoint.load_model`."""
        model, tokenizer, config = load_model(directory, device=device)
        return cls(model, tokenizer, config.length_ratio)

    def translate(
        self,
        lines: Sequence[str],
        *,
        beam: int = 1,
        alpha: float = 0.6,
        batch_tokens: int = 4096,
        progress: Callable[[int], object] = lambda count: None,
    ) -> list[str]:
        """Return a translation of every line, in order; of an empty line, an empty line.

        Of a line that is longer than the positions that the model has learned, the beginning is translated.

        beam: hypotheses followed at once; 1 is greedy search. alpha: see `decoding.length_penalty`.
        batch_tokens: source tokens decoded together, padding and beam included.
        progress: is told, after each batch, how many lines it held.
        """
        sources = [self.tokenizer.encode(line)[: self.longest - 1] for line in lines]  # END follows
        translations = [""] * len(lines)
        todo = sorted((i for i, line in enumerate(lines) if line.strip()), key=lambda i: len(sources[i]))
        with threadpool_limits(limits=1, user_api="blas"):  # products of single positions are too small to share
            while todo:
                longest = len(sources[todo[-1]]) + 1
                size = max(1, batch_tokens // (longest * beam))
                todo, batch = todo[:-size], todo[-size:]
                for i, best in zip(batch, self._search([sources[i] for i in batch], beam, alpha), strict=True):
                    translations[i] = self.tokenizer.decode(best.ids)
                progress(len(batch))
        return translations

    def _search(self, sources: list[list[int]], beam: int, alpha: float) -> list[Hypothesis]:
        limits = [self.limit(len(source)) for source in sources]
        forbidden = self.tokenizer.forbidden()
        if beam == 1:
            return greedy(self.model, sources, limits, forbidden=forbidden, alpha=alpha)
        return [h[0] for h in beam_search(self.model, sources, limits, beam=beam, forbidden=forbidden, alpha=alpha)]

    def limit(self, length: int) -> int:
        """Return the most tokens that the translation of a source of `length` tokens may have, END included.

        More than 99.9 % of the training pairs need, so that it cuts runaways and not translations.
        """
        return min(math.ceil(self.length_ratio * length) + 10, self.longest)
