"""From a trained model to translations, a token at a time: greedy, by sampling, or by beam search.

All decode a batch of sentences at once, and keep the keys and values of what was decoded in a cache, so that each
step computes one position. Finished sentences leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinytransformer.backend import Array, array_module, to_host
from tinytransformer.cache import Remaining
from tinytransformer.candidates import Candidates, Rest, Shortlisted
from tinytransformer.data import pad
from tinytransformer.tape import no_grad
from tinytransformer.tensor import Tensor
from tinytransformer.transformer import BEGIN, END, Transformer

SORTED = 1 << 20  # logits that are sorted at a time, on a CPU, to draw from them: that takes many times their memory


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
    """The sentences that are being decoded, each in as many rows of the batch, and what the model knows of them."""

    def __init__(self, model: Transformer, sources: Sequence[Sequence[int]], candidates: Candidates | Shortlisted):
        self.model = model
        with no_grad():
            self.memory, self.mask = model.encode(model.place_source(pad([[*source, END] for source in sources])))
        self.candidates = candidates
        self.cache = model.new_cache(len(sources))

    def step(self, tokens: np.ndarray) -> Array:
        """Feed the newest tokens, (S, K); return the features that the next are told from, (S, K, D)."""
        xp = array_module(self.memory.data)
        return self.model.decode(xp.asarray(tokens), self.memory, self.mask, cache=self.cache).data

    def keep(self, staying: np.ndarray) -> np.ndarray:
        """Go on with some sentences, (S,) of bool; return where each of them stood before."""
        remaining = Remaining(staying, array_module(self.mask))
        self.cache.keep(remaining)
        self.candidates.keep(remaining)
        # Attention has the keys and values of the memory in its cache; a decoder without one reads the memory again.
        self.memory, self.mask = Tensor(remaining.of(self.memory.data)), remaining.of(self.mask)
        return remaining.order


def _candidates(
    model: Transformer, forbidden: Sequence[int], shortlists: Sequence[np.ndarray] | None, rest: Rest | None
) -> Candidates | Shortlisted:
    return Candidates(model, forbidden) if shortlists is None else Shortlisted(model, forbidden, shortlists, rest)


def greedy(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    forbidden: Sequence[int] = (),
    alpha: float = 0.6,
    shortlists: Sequence[np.ndarray] | None = None,
    rest: Rest | None = None,
) -> list[Hypothesis]:
    """Translate each source by the most probable token, again and again, until END.

    sources: token ids without END. limits: for each, the most tokens its translation may have, END included.
    forbidden: ids that are never produced. alpha: for the score; see `length_penalty`.
    shortlists: for each, the ids that its translation may have, END among them; without, all. rest: see `Shortlisted`.
    """

    candidates = _candidates(model, forbidden, shortlists, rest)

    def choose(features: Array, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tokens, logs = candidates.best(features, 1)
        return tokens[:, 0], logs[:, 0]

    return _token_by_token(_State(model, sources, candidates), limits, alpha, choose)


@dataclass(frozen=True)
class Sampling:
    """How to draw the next token.

    temperature: the log-probabilities are divided by it; below 1 the probable becomes more probable.
    top_k: draw from the k most probable tokens only (Fan, Lewis and Dauphin 2018, arXiv:1805.04833, section 5).
    top_p: draw from the fewest tokens that together have this probability, out of what the temperature and top_k leave,
        which adds up to 1 (Holtzman et al. 2020, arXiv:1904.09751, section 3.1).
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

    candidates = Candidates(model, forbidden)

    def draw(features: Array, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = candidates.parts(len(live), SORTED)
        drawn = [draw_for(live[part], *candidates.logits(features[part])) for part in parts]
        tokens, logs = zip(*drawn, strict=True)
        return np.concatenate(tokens), np.concatenate(logs)

    def draw_for(live: np.ndarray, logits: Array, norms: Array) -> tuple[np.ndarray, np.ndarray]:
        xp = array_module(logits)
        ranking = xp.argsort(-logits, axis=-1, kind="stable")[:, : sampling.top_k]
        logs = xp.take_along_axis(logits, ranking, axis=-1).astype(xp.float64)
        with np.errstate(over="ignore"):  # e^-inf is 0, as it should be
            chances = xp.exp((logs - logs[:, :1]) / sampling.temperature)
        chances /= chances.sum(axis=-1, keepdims=True)
        before = xp.cumsum(chances, axis=-1) - chances  # the probability of all that rank above
        chances *= before < sampling.top_p
        sums = xp.cumsum(chances, axis=-1)
        thrown = xp.asarray([generators[i].random() for i in live.tolist()])[:, None] * sums[:, -1:]
        passed = (sums <= thrown).sum(axis=-1, keepdims=True)  # how many tokens the throw goes beyond
        tokens = xp.take_along_axis(ranking, passed, axis=-1)
        return to_host(tokens)[:, 0], to_host(xp.take_along_axis(logits, tokens, axis=-1) - norms)[:, 0]

    return _token_by_token(_State(model, sources, candidates), limits, alpha, draw)


def _token_by_token(
    state: _State,
    limits: Sequence[int],
    alpha: float,
    choose: Callable[[Array, np.ndarray], tuple[np.ndarray, np.ndarray]],
) -> list[Hypothesis]:
    """Translate each source; `choose` picks the next tokens, given features and whose they are, with their ln p."""
    at_most = np.array(limits)
    with no_grad():
        chosen: list[list[int]] = [[] for _ in limits]
        totals = np.zeros(len(limits))
        live = np.arange(len(limits))  # which sentence each row of the batch decodes
        tokens = np.full(len(limits), BEGIN)
        while len(live):
            tokens, logs = choose(state.step(tokens[:, None])[:, 0], live)
            totals[live] += logs
            for sentence, newest in zip(live.tolist(), tokens.tolist(), strict=True):
                chosen[sentence].append(newest)
            ended = (tokens == END) | (at_most[live] <= state.cache.length)
            if ended.any():
                order = state.keep(~ended)
                live, tokens = live[order], tokens[order]
    return [_hypothesis(ids, total, alpha) for ids, total in zip(chosen, totals.tolist(), strict=True)]


def beam_search(
    model: Transformer,
    sources: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    beam: int,
    count: int = 1,
    forbidden: Sequence[int] = (),
    alpha: float = 0.6,
    shortlists: Sequence[np.ndarray] | None = None,
    rest: Rest | None = None,
) -> list[list[Hypothesis]]:
    """Translate each source by following the `beam` most probable beginnings at once.

    A step continues every beginning by every token, and keeps the best `beam` of all that come of it. Those that end,
    or are cut at the limit, are set aside. With a beam of 1 it is `greedy`.

    The search for a sentence ends when no beginning can come among its best `count` any more, so that the search to
    the limit would find the same. For ln p is at most 0, every further token lowers it, and a larger penalty brings it
    nearer to 0: what begins with this has no better score than ln p / length_penalty(limit).

    count: how many hypotheses of each source are wanted. alpha: not negative. The others: as for `greedy`.
    Returns for each source at most `count`, the best first; what was cut comes after all that ended.
    Raises: ValueError if count or alpha is out of range.
    Source: the search: Sutskever, Vinyals and Le 2014, arXiv:1409.3215, section 3.2; to end it at a bound: Huang, Zhao
    and Ma 2017, arXiv:1809.00069.
    """
    if count < 1 or alpha < 0:
        raise ValueError(f"count is {count} and alpha {alpha}; expected at least 1 and 0")
    found: list[list[Hypothesis]] = [[] for _ in sources]  # of each sentence the best `count` so far
    at_most = np.array(limits)
    penalties = np.array([length_penalty(limit, alpha) for limit in limits])
    with no_grad():
        state = _State(model, sources, _candidates(model, forbidden, shortlists, rest))
        live = np.arange(len(sources))  # which sentence each group of rows decodes
        totals = np.zeros((len(sources), 1))  # every sentence begins with one beginning, of no tokens
        history, tokens = np.zeros((len(sources), 1, 0), dtype=int), np.full((len(sources), 1), BEGIN)
        while len(live):
            parent, token, totals = state.candidates.continuations(state.step(tokens), totals, beam)
            state.cache.follow(parent)
            history = np.concatenate([np.take_along_axis(history, parent[..., None], 1), token[..., None]], axis=2)
            ended = (token == END) | (at_most[live] <= state.cache.length)[:, None]
            of_live = [found[i] for i in live.tolist()]
            _set_aside(of_live, history, np.where(ended, totals, -np.inf), count, alpha)
            to_beat = np.array([h[-1].score if len(h) == count else -np.inf for h in of_live])
            totals[ended | (totals <= (to_beat * penalties[live])[:, None])] = -np.inf  # these lead no further
            staying = totals.max(axis=1) > -np.inf
            if not staying.all():
                order = state.keep(staying)
                live, totals, history = live[order], totals[order], history[order]
            tokens = history[:, :, -1]
    return found


def _set_aside(
    found: list[list[Hypothesis]], history: np.ndarray, totals: np.ndarray, count: int, alpha: float
) -> None:
    """Add to what was found of each sentence those of its K rows that have a total, and keep the best `count`.

    history: their tokens, (S, K, T). totals: their log-probabilities, (S, K), -inf for those that are not meant.
    """
    for row, k in np.argwhere(totals > -np.inf).tolist():
        found[row].append(_hypothesis(history[row, k].tolist(), float(totals[row, k]), alpha))
        found[row].sort(key=lambda h: (not h.finished, -h.score))
        del found[row][count:]


def _hypothesis(tokens: list[int], log_probability: float, alpha: float) -> Hypothesis:
    """Make a hypothesis of all its tokens, END included if it ends with it."""
    finished = tokens[-1] == END
    ids = tokens[:-1] if finished else tokens
    return Hypothesis(ids, log_probability, log_probability / length_penalty(len(tokens), alpha), finished)
