"""A trained model as something that translates lines of text."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from tinytransformer.backend import cores
from tinytransformer.candidates import Rest
from tinytransformer.checkpoint import load_model
from tinytransformer.decoding import Hypothesis, Sampling, beam_search, greedy, sample
from tinytransformer.shortlist import Shortlist
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import Transformer
from tinytransformer.workers import hire, one_thread_of_blas

BATCH_TOKENS = 24576  # decoded together, padding included: of a source once, and once for each row of its beam
AS_LARGE = 5  # beginnings of a sentence take as much memory as the columns of the projection on its shortlist
WORTH_A_CORE = 2048  # source tokens that are worth a process of their own, beam included
MOST = 1 << 16  # tokens of a line in any case: a model that never ends a translation would not end either
LONGEST = 1024  # tokens of a line, END included, where positions set no end: attention takes memory in their square


@dataclass(frozen=True)
class Search:
    """How to look for a translation.

    beam: hypotheses followed at once; 1 is greedy search. alpha: see `decoding.length_penalty`.
    max_length: the most tokens of a translation, END included; by default what the training data show to be enough.
    count: how many translations of a line are wanted; greedy search and sampling give one.
    sampling: draw instead of searching. Line i of a text draws from (seed, i); first_line: the number of the first,
        where a text is translated in parts.
    """

    beam: int = 1
    alpha: float = 0.6
    max_length: int | None = None
    count: int = 1
    sampling: Sampling | None = None
    first_line: int = 0


GREEDY = Search()


@dataclass(frozen=True)
class Translation:
    """A translation and its score, a log-probability divided by `decoding.length_penalty`."""

    text: str
    score: float


class Translator:
    """A model, its tokenizer, and how long a translation may become.

    length_ratio: tokens of target per token of source that occur in the training data.
    shortlist: searches look at no other tokens than those it names; without one, and where tokens are drawn, at all.
        Then the parameters of the model have to stay as they are (see `candidates.Rest`).
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, length_ratio: float, shortlist: Shortlist | None = None
    ):
        self.model = model
        self.tokenizer = tokenizer
        self.length_ratio = length_ratio
        self.shortlist = shortlist
        self.rest = Rest(model) if shortlist else None
        self.forbidden = tokenizer.forbidden()  # once: it looks at the whole vocabulary
        trained = model.config.max_length
        unlearned = min(max(trained, LONGEST), MOST)
        self.longest = trained if model.config.positions == "learned" else unlearned  # END included

    @classmethod
    def load(cls, directory: Path, *, device: str = "cpu", shortlist: bool = False) -> Translator:
        """Load what a training run left in `directory`; its shortlist if asked for. Raises: as `load_model`."""
        model, tokenizer, config = load_model(directory, device=device)
        asked_for = Shortlist.load(directory, tokenizer) if shortlist else None
        return cls(model, tokenizer, config.length_ratio, asked_for)

    def translate(self, lines: Sequence[str], search: Search = GREEDY) -> list[str]:
        """Return the best translation of every line, in order; of an empty line, an empty line."""
        return [found[0].text if found else "" for found in self.hypotheses(lines, search)]

    def hypotheses(self, lines: Sequence[str], search: Search = GREEDY) -> list[list[Translation]]:
        """Return the translations of every line, in order, the best first; of an empty line none.

        Of a line that has more tokens than `longest`, the beginning is translated.
        """
        sources = [self.tokenizer.encode(line)[: self.longest - 1] for line in lines]  # END follows
        found: list[list[Translation]] = [[] for _ in lines]
        todo = sorted((i for i, line in enumerate(lines) if line.strip()), key=lambda i: -len(sources[i]))
        # The products of single positions are too small to share among cores, so each core has sentences of its own.
        tokens = search.beam * sum(len(sources[i]) + 1 for i in todo)
        count = max(1, min(cores(self.model.parameters.data), len(todo), tokens // WORTH_A_CORE))
        rows = 1 + (search.beam if self.shortlist is None else max(search.beam, AS_LARGE))
        groups = [divide(todo[i::count], sources, BATCH_TOKENS // rows) for i in range(count)]
        ended = threading.Event()

        def search_all(group: list[list[int]]) -> list[list[Hypothesis]]:
            return [found for batch in group if not ended.is_set() for found in self._search(batch, sources, search)]

        with ExitStack() as stack:
            stack.enter_context(one_thread_of_blas())
            workers = [hire(search_all, self.model.parameters.data, stack) for _ in groups[1:]]
            stack.callback(ended.set)  # first of all, since a thread is waited for
            for worker, group in zip(workers, groups[1:], strict=True):
                worker.ask(group)
            results = [search_all(groups[0]), *(worker.answer() for worker in workers)]
        for group, result in zip(groups, results, strict=True):
            for i, hypotheses in zip(chain.from_iterable(group), result, strict=True):
                found[i] = [Translation(self.tokenizer.decode(h.ids), h.score) for h in hypotheses]
        return found

    def _search(self, batch: list[int], sources: list[list[int]], search: Search) -> list[list[Hypothesis]]:
        """Search for the translations of a batch: of the sources with these numbers."""
        texts = [sources[i] for i in batch]
        limits = [min(search.max_length or self.limit(len(text)), self.longest) for text in texts]
        forbidden, alpha = self.forbidden, search.alpha
        if search.sampling is not None:
            generators = [np.random.default_rng([search.sampling.seed, search.first_line + i]) for i in batch]
            drawn = sample(self.model, texts, limits, generators, search.sampling, forbidden=forbidden, alpha=alpha)
            return [[hypothesis] for hypothesis in drawn]
        lists = [self.shortlist.of(text) for text in texts] if self.shortlist else None
        if search.beam == 1:
            found = greedy(
                self.model, texts, limits, forbidden=forbidden, alpha=alpha, shortlists=lists, rest=self.rest
            )
            return [[hypothesis] for hypothesis in found]
        return beam_search(
            self.model,
            texts,
            limits,
            beam=search.beam,
            count=search.count,
            forbidden=forbidden,
            alpha=alpha,
            shortlists=lists,
            rest=self.rest,
        )

    def is_too_long(self, line: str) -> bool:
        """Return whether only the beginning of `line` can be translated."""
        return len(self.tokenizer.encode(line)) >= self.longest

    def limit(self, length: int) -> int:
        """Return the most tokens that the translation of a source of `length` tokens may have, END included.

        More than 99.9 % of the training pairs need, so that it cuts runaways and not translations.
        """
        return math.ceil(self.length_ratio * length) + 10


def divide(order: list[int], sources: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """Divide sources, whose numbers are given with the longest first, into batches of at most `most` tokens."""
    batches = []
    while order:
        size = max(1, most // (len(sources[order[0]]) + 1))
        batches.append(order[:size])
        order = order[size:]
    return batches
