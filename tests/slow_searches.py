"""Searches that are too slow to use, to hold those of decoding.py against: by the whole model, with plain lists."""

import itertools

import numpy as np

from tinytransformer.transformer import BEGIN, END, PAD, UNKNOWN

V = 6  # the four special tokens and two more
SPECIAL = (PAD, UNKNOWN, BEGIN)
SOURCES = [[4, 5, 5, 4], [5], [], [4, 4, 5, 5, 4, 5, 4], [5, 4]]
SHORTLISTS = [[END, 4], [END, 5, 4], [5, END, BEGIN, 4], [END], range(V)]
EXACT = {"rtol": 0, "atol": 1e-10}


def assert_same(hypotheses, rows):
    assert [(h.ids, h.finished) for h in hypotheses] == [(row[0], row[3]) for row in rows]
    np.testing.assert_allclose([h.log_probability for h in hypotheses], [row[1] for row in rows], **EXACT)
    np.testing.assert_allclose([h.score for h in hypotheses], [row[2] for row in rows], **EXACT)


def next_log_probabilities(model, source, beginnings, forbidden=()):
    """(N, T) of beginnings without BEGIN -> (N, T + 1, V), by the whole model, without padding and without a cache."""
    sources = np.array([[*source, END]] * len(beginnings))
    targets = np.array([[BEGIN, *beginning] for beginning in beginnings])
    logits = model(sources, targets).data
    result = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    result[..., list(forbidden)] = -np.inf
    return result


def score(log_probability, length, alpha):
    return log_probability * 6**alpha / (5 + length) ** alpha


def every_hypothesis(model, source, limit, alpha, forbidden=()):
    """Return all hypotheses of at most `limit` tokens: (ids, ln p, score, finished), finished first, best first."""
    words = [i for i in range(V) if i != END and i not in forbidden]
    beginnings = list(itertools.product(words, repeat=limit))
    table = next_log_probabilities(model, source, beginnings, forbidden)
    found = {}
    for beginning, log_p in zip(beginnings, table, strict=True):
        total = 0.0
        for t, word in enumerate(beginning):
            ended = total + log_p[t, END]
            found[beginning[:t], True] = ended, score(ended, t + 1, alpha)
            total += log_p[t, word]
        found[beginning, False] = total, score(total, limit, alpha)
    rows = [(list(ids), *values, finished) for (ids, finished), values in found.items()]
    return sorted(rows, key=lambda row: (not row[3], -row[2]))


def plain_beam_search(model, source, limit, beam, alpha, forbidden):
    """The same search for one sentence to its limit, written with sorted lists, computing every beginning anew.

    Return what it finds, as `every_hypothesis` does, and for each length the best log-probability of what goes on.
    """
    live, found, best = [([], 0.0)], [], []
    for length in range(1, limit + 1):
        table = next_log_probabilities(model, source, [ids for ids, _ in live], forbidden)[:, -1]
        candidates = [
            ([*ids, token], total + table[i, token]) for i, (ids, total) in enumerate(live) for token in range(V)
        ]
        kept = sorted((c for c in candidates if c[1] > -np.inf), key=lambda candidate: -candidate[1])[:beam]
        found += [(ids[:-1], total, score(total, length, alpha), True) for ids, total in kept if ids[-1] == END]
        live = [(ids, total) for ids, total in kept if ids[-1] != END]
        best.append(max((total for _, total in live), default=-np.inf))
        if not live:
            break
    found += [(ids, total, score(total, limit, alpha), False) for ids, total in live]
    return sorted(found, key=lambda row: (not row[3], -row[2])), best
