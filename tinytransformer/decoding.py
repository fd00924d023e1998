"""From a trained model to translations, a token at a time: greedy, by sampling, or by beam search.

All decode a batch of sentences at once, and keep the keys and values of what was decoded in a cache, so that each
step computes one position. Finished sentences leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinytransformer.backend import Array, array_module, to_host
from tinytransformer.data import pad
from tinytransformer.layers import BlockCache
from tinytransformer.ops import log_softmax
from tinytransformer.tape import no_grad
from tinytransformer.tensor import Tensor
from tinytransformer.transformer import BEGIN, END, Transformer


@dataclass(frozen=True)
class Hypothesis:
    """A translation: its ids without BEGIN and END, ln of its probability, END included, and its score.

    finished: whether it ends with END, or was cut at the length limit.
    """

    ids: list[int]
    log_probability: float
    score: float
    finished: bool


def length_penalty(length: int, alpha: float) -> float:
    """Return what a log-probability of `length` tokens, END included, is divided by to make it a score.

    Every token lowers the probability of a sentence, so without it the short ones would win.
    Source: Wu et al. 2016, arXiv:1609.08144, equation 14; alpha = 0.6 in Vaswani et al. 2017, section 6.1.
    """
    return ((5 + length) / 6) ** alpha


class _State:
    """The sentences that are being decoded: `width` rows of the batch each, and what the model knows of them."""

    def __init__(self, model: Transformer, sources: Sequence[Sequence[int]], width: int, forbidden: Sequence[int]):
        self.model = model
        self.width = width
        xp = array_module(model.parameters.data)
        memory, mask = model.encode(model.place_source(pad([[*source, END] for source in sources])))
        rows = xp.asarray(np.repeat(np.arange(len(sources)), width))
        self.memory, self.mask = Tensor(memory.data[rows]), mask[rows]
        self.cache: list[BlockCache] = model.new_cache()
        self.length = 0
        self.banned = xp.zeros(model.config.target_vocabulary, dtype=memory.dtype)
        self.banned[xp.asarray(forbidden, dtype=int)] = -np.inf

    def step(self, tokens: np.ndarray) -> Array:
        """Feed one more token per row, (rows,); return the log-probabilities of the next, (rows, V)."""
        xp = array_module(self.memory.data)
        features = self.model.decode(
            xp.asarray(tokens)[:, None], self.memory, self.mask, first=self.length, cache=self.cache
        )
        self.length += 1
        return log_softmax(self.model.project(features)).data[:, 0] + self.banned

    def select(self, rows: np.ndarray, *, sentences: np.ndarray | None = None) -> None:
        """Continue with these rows, in this order; `sentences` are the remaining ones if some have ended."""
        xp = array_module(self.memory.data)
        for block in self.cache:
            block.self_attention.select(xp.asarray(rows))
        if sentences is None:
            return  # all rows of one sentence share its memory, so it stays in place
        kept = (sentences[:, None] * self.width + np.arange(self.width)).reshape(-1)
        for block in self.cache:
            block.cross_attention.select(xp.asarray(kept))
        self.memory, self.mask = Tensor(self.memory.data[xp.asarray(kept)]), self.mask[xp.asarray(kept)]


def greedy(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    forbidden: Sequence[int] = (),
    alpha: float = 0.6,
) -> list[Hypothesis]:
    """Translate each source by the most probable token, again and again, until END.

    sources: token ids without END. limits: for each, the most tokens its translation may have, END included.
    forbidden: ids that are never produced. alpha: for the score; see `length_penalty`.
    """
    return _token_by_token(model, sources, limits, forbidden, alpha, lambda scores, live: scores.argmax(axis=-1))


@dataclass(frozen=True)
class Sampling:
    """How to draw the next token.

    temperature: the log-probabilities are divided by it; below 1 the probable becomes more probable.
    top_k: draw from the k most probable tokens only (Fan, Lewis and Dauphin 2018, arXiv:1805.04833, section 5).
    top_p: draw from the fewest tokens that together have this probability (Holtzman et al. 2020, arXiv:1904.09751,
        section 3.1).
    """

    seed: int = 1
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0


def sample(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    generators: Sequence[np.random.Generator],
    sampling: Sampling,
    *,
    forbidden: Sequence[int] = (),
    alpha: float = 0.6,
) -> list[Hypothesis]:
    """Translate each source by drawing every token from what the model holds probable.

    generators: one for each source, so that what is drawn does not depend on what else is in the batch.
    The other arguments are those of `greedy`; log_probability is the model's own, whatever the temperature.
    """

    def draw(scores: Array, live: np.ndarray) -> Array:
        xp = array_module(scores)
        ranking = xp.argsort(-scores, axis=-1, kind="stable")[:, : sampling.top_k]
        logs = xp.take_along_axis(scores, ranking, axis=-1).astype(xp.float64)
        chances = xp.exp((logs - logs[:, :1]) / sampling.temperature)
        chances /= chances.sum(axis=-1, keepdims=True)
        before = xp.cumsum(chances, axis=-1) - chances  # the probability of all that rank above
        chances *= before < sampling.top_p
        sums = xp.cumsum(chances, axis=-1)
        thrown = xp.asarray([generators[i].random() for i in live.tolist()])[:, None] * sums[:, -1:]
        passed = (sums <= thrown).sum(axis=-1, keepdims=True)  # how many tokens the throw goes beyond
        return xp.take_along_axis(ranking, passed, axis=-1)[:, 0]

    return _token_by_token(model, sources, limits, forbidden, alpha, draw)


def _token_by_token(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    forbidden: Sequence[int],
    alpha: float,
    choose: Callable[[Array, np.ndarray], Array],
) -> list[Hypothesis]:
    """Translate each source; `choose` picks the next tokens, given their log-probabilities and whose they are."""
    with no_grad():
        state = _State(model, sources, 1, forbidden)
        ids: list[list[int]] = [[] for _ in sources]
        totals = np.zeros(len(sources))
        finished = np.zeros(len(sources), dtype=bool)
        live = np.arange(len(sources))  # which sentence each row of the batch decodes
        tokens = np.full(len(sources), BEGIN)
        while len(live):
            scores = state.step(tokens)
            chosen = choose(scores, live)
            tokens = to_host(chosen)
            totals[live] += to_host(scores[array_module(scores).arange(len(live)), chosen])
            finished[live] = tokens == END
            for sentence, token in zip(live.tolist(), tokens.tolist(), strict=True):
                if token != END:
                    ids[sentence].append(token)
            going_on = [not finished[i] and len(ids[i]) < limits[i] for i in live.tolist()]
            if not all(going_on):
                stay = np.flatnonzero(going_on)
                state.select(stay, sentences=stay)
                live, tokens = live[stay], tokens[stay]
    return [_hypothesis(i, float(total), bool(end), alpha) for i, total, end in zip(ids, totals, finished, strict=True)]


def beam_search(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    beam: int,
    forbidden: Sequence[int] = (),
    alpha: float = 0.6,
) -> list[list[Hypothesis]]:
    """Translate each source by following the `beam` most probable beginnings at once.

    A beginning that reaches END among the best `beam` candidates of a step is set aside as finished. The search for a
    sentence ends when `beam` of its hypotheses have finished, or at its limit. With a beam of 1 it is `greedy`.

    Arguments as for `greedy`. Returns for each source at most `beam` hypotheses, finished ones first, best score
    first.
    Source: Wu et al. 2016, arXiv:1609.08144, section 7.
    """
    found: list[list[Hypothesis]] = [[] for _ in sources]
    with no_grad():
        state = _State(model, sources, beam, forbidden)
        live = np.arange(len(sources))  # which sentence each group of `beam` rows decodes
        totals = np.full((len(sources), beam), -np.inf)
        totals[:, 0] = 0  # all rows begin alike, so one of them has to stand for all
        history = np.zeros((len(sources), beam, 0), dtype=int)
        tokens = np.full(len(sources) * beam, BEGIN)
        while len(live):
            candidates = _best_candidates(state.step(tokens), totals, 2 * beam)
            _set_finished_aside(found, live, history, *candidates, alpha)
            # Each row has one way to end, so of 2 * beam candidates at least `beam` go on; the sort is stable.
            going_on = np.argsort(candidates[1] == END, axis=1, kind="stable")[:, :beam]
            parent, token, totals = (np.take_along_axis(x, going_on, axis=1) for x in candidates)
            history = np.concatenate([np.take_along_axis(history, parent[..., None], 1), token[..., None]], axis=2)
            stay = []
            for row, sentence in enumerate(live.tolist()):
                if len(found[sentence]) < beam and history.shape[2] >= limits[sentence]:
                    cut = zip(history[row].tolist(), totals[row].tolist(), strict=True)
                    found[sentence] += [_hypothesis(ids, t, False, alpha) for ids, t in cut if t > -np.inf]
                elif len(found[sentence]) < beam:
                    stay.append(row)
            rows = (np.arange(len(live))[:, None] * beam + parent)[stay].reshape(-1)
            state.select(rows, sentences=np.array(stay, dtype=int) if len(stay) < len(live) else None)
            live, totals, history = live[stay], totals[stay], history[stay]
            tokens = history[:, :, -1].reshape(-1)
    return [sorted(h, key=lambda h: (not h.finished, -h.score))[:beam] for h in found]


def _best_candidates(scores: Array, totals: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best `count` continuations of each sentence, best first: their row, token and log-probability.

    scores: log-probabilities of the next token, (S * K, V). totals: those of the beginnings, (S, K).
    Returns three arrays (S, count).
    """
    xp = array_module(scores)
    sentences, beam = totals.shape
    vocabulary = scores.shape[-1]
    sums = scores.reshape(sentences, beam, vocabulary) + xp.asarray(totals, dtype=scores.dtype)[..., None]
    sums = sums.reshape(sentences, beam * vocabulary)
    count = min(count, beam * vocabulary)
    top = xp.argpartition(sums, -count, axis=1)[:, -count:]
    index, total = to_host(top), to_host(xp.take_along_axis(sums, top, axis=1)).astype(float)
    order = np.lexsort((index, -total), axis=1)  # equal sums in the order of their index, on every machine
    index, total = np.take_along_axis(index, order, axis=1), np.take_along_axis(total, order, axis=1)
    return index // vocabulary, index % vocabulary, total


def _set_finished_aside(
    found: list[list[Hypothesis]],
    live: np.ndarray,
    history: np.ndarray,
    parent: np.ndarray,
    token: np.ndarray,
    total: np.ndarray,
    alpha: float,
) -> None:
    """Add to `found` the candidates that end, of those that rank among the best K of their sentence."""
    beam = history.shape[1]
    ended = (token[:, :beam] == END) & (total[:, :beam] > -np.inf)
    for row, k in np.argwhere(ended):
        ids = history[row, parent[row, k]].tolist()
        found[live[row]].append(_hypothesis(ids, float(total[row, k]), True, alpha))


def _hypothesis(ids: list[int], log_probability: float, finished: bool, alpha: float) -> Hypothesis:
    length = len(ids) + finished
    return Hypothesis(ids, log_probability, log_probability / length_penalty(length, alpha), finished)
