"""The most probable of the tokens that may come next.

Every step of decoding ends with a logit for each token of the vocabulary, for every beginning: thousands, of which a
search wants the best few, with their probabilities. To ask one thing after the other of all of them would take longer
than the product that made them. So a few beginnings at a time are asked everything while their logits are in the cache,
and the best tokens are looked for in the few groups that can hold them.

Or only the tokens of a shortlist are asked for, which is another search; see shortlist.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tinytransformer.backend import Array, array_module, to_host
from tinytransformer.cache import Remaining
from tinytransformer.data import pad
from tinytransformer.ops.checks import require_ids
from tinytransformer.ops.sums import few_rows, is_moderate, row_blocks, sum_last, sum_of_products
from tinytransformer.transformer import Transformer

GROUP = 16  # tokens in a group
BLOCK = 1 << 22  # logits that are computed at a time on a CPU: each time BLAS has to read the whole projection
ENOUGH = 256  # rows that are worth a product of their own, on a CPU


class Candidates:
    """Finds the most probable next tokens from the features of what has been decoded.

    forbidden: ids that are never chosen. They have their part in the probabilities of the others, though.
    """

    def __init__(self, model: Transformer, forbidden: Sequence[int]):
        xp = array_module(model.parameters.data)
        self.on_cpu = xp is np
        # In this order BLAS reads it faster, by as much however few the rows are: in ten steps the copy has paid.
        self.projection = np.ascontiguousarray(model.projection()) if self.on_cpu else model.projection()
        self.forbidden = xp.asarray(sorted(set(forbidden)), dtype=int)  # each once, or sums would count it again

    def logits(self, features: Array) -> tuple[Array, Array]:
        """(rows, D) -> the logits, (rows, V), -inf where forbidden, and ln(sum(e^logits)) before that, (rows, 1).

        Their difference would be the log-probabilities, but those are wanted of a few tokens.
        """
        return self._grouped(features)[:2]

    def best(self, features: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the `count` most probable tokens of each row, the best first, and ln of their probabilities.

        (rows, D) -> two arrays (rows, min(count, V))
        """
        xp = array_module(features)
        tokens, logs = [], []
        for part in self.parts(len(features)):
            logits, norms, maxima = self._grouped(features[part])
            found = _where_largest(logits, maxima, min(count, logits.shape[1]))
            tokens.append(to_host(found))
            logs.append(to_host(xp.take_along_axis(logits, found, axis=1) - norms))
        return np.concatenate(tokens), np.concatenate(logs)

    def _grouped(self, features: Array) -> tuple[Array, Array, Array]:
        """Return what `logits` does, and the largest logit in each group of tokens: (rows, groups)."""
        xp = array_module(features)
        logits = features @ self.projection
        rows, tokens = logits.shape
        groups = math.ceil(tokens / GROUP)
        norms, maxima = xp.empty((rows, 1), logits.dtype), xp.empty((rows, groups), logits.dtype)
        for few in few_rows(logits):
            seen = logits[few]
            apart = seen[:, self.forbidden]  # in the sum, but in no group
            seen[:, self.forbidden] = -math.inf
            maxima[few] = _maxima_of_groups(seen, groups)
            top = xp.concatenate([maxima[few], apart], axis=1).max(axis=1, keepdims=True)
            if is_moderate(top):  # then so is the sum of each row, and a pass over all logits is saved
                taken, exps = xp.zeros_like(top), xp.exp(seen)
            else:
                taken, exps = top, seen - top  # so that nothing overflows; see `ops.logsumexp`
                xp.exp(exps, out=exps)
            sums = sum_last(exps) + xp.exp(apart - taken).sum(axis=1, keepdims=True)
            norms[few] = xp.maximum(top, taken + xp.log(sums))  # or rounding might make a probability of more than 1
        return logits, norms, maxima

    def parts(self, rows: int, most: int = BLOCK) -> list[slice]:
        """Divide rows into parts of at most so many logits; on a GPU, which waits for calls, all are one part."""
        tokens = self.projection.shape[1]
        return row_blocks(rows, tokens, most=most if self.on_cpu else rows * tokens)

    def continuations(
        self, features: Array, totals: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the best `count` continuations of each sentence, best first: their row, token and log-probability.

        A sentence has K rows, its beginnings, the best first. Since every token lowers ln p, a row that is no better
        than `count` continuations of those before it is passed over: on a CPU, which takes the best rows of all
        sentences first, then the second best, and so on, but enough rows at a time to be worth a product.

        features: (S, K, D). totals: log-probabilities of the beginnings, (S, K). Returns three arrays (S, count).
        """
        xp, (sentences, beam) = array_module(features), totals.shape
        sums, tokens = np.full((sentences, beam, count), -np.inf), np.zeros((sentences, beam, count), dtype=int)
        together = max(1, ENOUGH // sentences) if self.on_cpu else beam
        for first in range(0, beam, together):
            to_beat = np.sort(sums[:, : first + 1].reshape(sentences, -1))[:, -count, None]
            sentence, row = np.nonzero(totals[:, first : first + together] > to_beat)
            if len(row):
                found, logs = self.best(features[xp.asarray(sentence), xp.asarray(row + first)], count)
                logs = totals[sentence, row + first, None] + logs
                place = sentence[:, None], row[:, None] + first, np.arange(found.shape[1])
                tokens[place], sums[place] = found, np.fmax(logs, -np.inf)  # what is no number comes last
        return _best_of_all(tokens, sums, count)

    def keep(self, remaining: Remaining) -> None:
        """Go on with these sentences: all have the same candidates."""


class Rest:
    """Guesses what the tokens that nobody looks at add to the sum under the softmax, as if their logits were normal.

    The logit of token v is h . w_v, where h are the features. Over all V tokens its mean is h . mu and its variance
    h' C h, where mu is the mean of the w_v, and C their covariance. If z is normal, e^z has the mean
    e^(mean + variance / 2). So N tokens add about

        N * e^(h . mu + h' C h / 2)

    which takes D^2 multiplications in place of N * D. Among so many tokens the few that are looked at, which are the
    most probable, hardly count for mean and variance. But V logits have no tails as a normal distribution has: from a
    variance of 2 * ln V on, the guess would promise more than the largest of them adds, so there it ends. (Models that
    were trained with label smoothing have variances of 2 to 5, and 2 * ln V is 18 for 10,000 tokens.)

    Made once for a model; it does not follow its parameters.
    """

    def __init__(self, model: Transformer):
        projection = model.projection()
        self.mean = projection.mean(axis=1)
        apart = projection - self.mean[:, None]
        self.covariance = apart @ apart.T / projection.shape[1]
        self.most = 2 * math.log(projection.shape[1])

    def of_one(self, features: Array) -> Array:
        """Return ln of what one token adds on average: (..., D) -> (..., 1)"""
        variance = sum_of_products(features @ self.covariance, features)
        return (features @ self.mean)[..., None] + array_module(features).minimum(variance, self.most) / 2


class Shortlisted:
    """Finds the most probable next tokens among those of a shortlist, which each sentence has for itself.

    shortlists: for each sentence the ids that it may have, (n,), each once; those that are forbidden are taken off.
    rest: what all other tokens add to the sum, forbidden ones too; without it nothing, as if there were none.
    Raises: ValueError if a sentence is left without any; IndexError for what is no id.
    """

    def __init__(
        self, model: Transformer, forbidden: Sequence[int], shortlists: Sequence[np.ndarray], rest: Rest | None = None
    ):
        projection = model.projection()
        xp, (width, vocabulary) = array_module(projection), projection.shape
        may = np.ones(vocabulary, dtype=bool)
        may[list(forbidden)] = False
        lists = [np.asarray(ids, dtype=int) for ids in shortlists]
        for ids in lists:
            require_ids("shortlist", ids, vocabulary)
        allowed = [ids[may[ids]] for ids in lists]
        lengths = np.array([len(ids) for ids in allowed])
        if not lengths.all():
            raise ValueError(f"shortlist {lengths.argmin()} holds no id that is not forbidden")
        self.tokens = pad(allowed)
        # A copy for each sentence, in the order in which BLAS reads it fastest: it pays within a few steps.
        self.projection = xp.empty((len(lists), width, self.tokens.shape[1]), dtype=projection.dtype)
        for columns, ids in zip(self.projection, xp.asarray(self.tokens), strict=True):
            columns[...] = projection[:, ids]
        exists = np.arange(self.tokens.shape[1]) < lengths[:, None]
        self.hidden = xp.asarray(np.where(exists, 0, -np.inf).astype(projection.dtype)[:, None])  # -inf where padded
        with np.errstate(divide="ignore"):  # ln 0 is -inf, as it should be
            others = np.log(vocabulary - lengths).astype(projection.dtype)
        self.others = xp.asarray(others[:, None, None])  # ln of how many are not on the list
        self.rest = rest

    def best(self, features: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Candidates.best`, with a row for each sentence: (S, D) -> two arrays (S, min(count, n))"""
        tokens, logs = self._best(features[:, None], count)
        return tokens[:, 0], logs[:, 0]

    def continuations(
        self, features: Array, totals: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `Candidates.continuations`."""
        tokens, logs = self._best(features, count)
        return _best_of_all(tokens, np.fmax(totals[..., None] + logs, -np.inf), count)

    def _best(self, features: Array, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(S, K, D) -> tokens and logs, (S, K, min(count, n))"""
        xp = array_module(features)
        logits = features @ self.projection
        logits += self.hidden
        top = logits.max(axis=-1, keepdims=True)
        norms = top + xp.log(sum_last(xp.exp(logits - top)))
        if self.rest is not None:
            norms = xp.logaddexp(norms, self.others + self.rest.of_one(features))
        size = logits.shape[-1]
        found = _take_largest(logits.reshape(-1, size), min(count, size)).reshape(*logits.shape[:2], -1)
        logs = to_host(xp.take_along_axis(logits, found, axis=-1) - norms)
        return np.take_along_axis(self.tokens[:, None], to_host(found), axis=-1), logs

    def keep(self, remaining: Remaining) -> None:
        """Go on with these sentences."""
        self.tokens = self.tokens[remaining.order]
        self.projection, self.hidden = remaining.of(self.projection), remaining.of(self.hidden)
        self.others = remaining.of(self.others)


def _best_of_all(tokens: np.ndarray, sums: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, token and sum of the `count` largest sums of each sentence: (S, K, c) -> (S, min(count, K * c))"""
    token, total = tokens.reshape(len(tokens), -1), sums.reshape(len(sums), -1)
    order = np.argsort(-total, axis=1, kind="stable")[:, :count]  # equal ones in the order of their rows
    return order // sums.shape[2], np.take_along_axis(token, order, axis=1), np.take_along_axis(total, order, axis=1)


def _maxima_of_groups(x: Array, groups: int) -> Array:
    """Return the largest of each row in each group: (rows, n) -> (rows, groups). Place p is in group p mod groups."""
    xp = array_module(x)
    whole = x.shape[1] // groups * groups  # up to here there is one of each group after the other
    maxima = x[:, :whole].reshape(len(x), -1, groups).max(axis=1)
    rest = maxima[:, : x.shape[1] - whole]
    xp.maximum(rest, x[:, whole:], out=rest)
    return maxima


def _where_largest(x: Array, maxima: Array, count: int) -> Array:
    """Return where the `count` largest of each row stand, the largest first: (rows, n) -> (rows, count).

    They stand in the `count` groups with the largest maxima, and only into those we look.
    """
    xp, n, groups = array_module(x), x.shape[1], maxima.shape[1]
    if groups <= count:
        return _take_largest(x, count)
    group = xp.sort(_take_largest(maxima, count), axis=1)  # so that of equal ones in a slice the first is taken first
    places = (group[:, None, :] + groups * xp.arange(GROUP)[:, None]).reshape(len(x), -1)
    exists, places = places < n, xp.minimum(places, n - 1)  # some groups have one less than others
    return xp.take_along_axis(places, _take_largest(xp.take_along_axis(x, places, axis=1), count, exists), axis=1)


def _take_largest(x: Array, count: int, exists: Array | None = None) -> Array:
    """The same by taking out the largest `count` times; `exists`: at least `count` of each row that can be taken."""
    xp = array_module(x)
    left = xp.maximum(x, xp.finfo(x.dtype).min)  # from here on -inf is what is not there
    if exists is not None:
        left[~exists] = -math.inf
    rows, places = xp.arange(len(x)), []
    for _ in range(count):
        places.append(left.argmax(axis=1))
        left[rows, places[-1]] = -math.inf
    return xp.stack(places, axis=1)
