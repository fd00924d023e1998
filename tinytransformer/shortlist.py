"""Shortlists: of the vocabulary, the few hundred tokens that a translation of this sentence may need.

At every step a search asks for the logit of every token, and nearly all of them are of words that have nothing to do
with the sentence. Which ones it may need can be told beforehand: the most frequent tokens of the target language; the
likeliest translations of each token of the source; and these tokens themselves, since names are copied. A search that
looks at no others takes half of the time, and nearly always finds the same. It is another search, though: a token that
is not on the list is never produced, and what it adds to the sum under the softmax is guessed (`candidates.Rest`).

Source: Jean et al. 2015, arXiv:1412.2007, for a dictionary of words; L'Hostis, Grangier and Auli 2016,
arXiv:1610.00072, for what else can be put on such a list, and how much time it saves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from tinytransformer.checkpoint import CHANGED, CheckpointError, refused
from tinytransformer.data import Pair
from tinytransformer.reading import digest, read_arrays
from tinytransformer.transformer import END
from tinytransformer.writing import write_atomically

NAME = "shortlist.safetensors"

FREQUENT = 100  # tokens that are on every shortlist
ROOM = 30  # for so many more for each token of the source
TRANSLATIONS = 100  # that are kept of each token: of some, more are asked for than ROOM, since others share theirs
ROUNDS = 5  # of expectation maximisation; more change no order that matters
MOST = 1 << 23  # meetings of a source token with a target token that are learned from: so many take 400 MB
LONGEST = 256  # tokens; of a longer sentence the beginning is learned from


@dataclass(frozen=True)
class Shortlist:
    """Makes the shortlist of a sentence. Both sides share one vocabulary, of V tokens.

    translations: of every token its likeliest translations, (V, N) of int32, filled up with END.
    frequent: the most frequent target tokens, (F,) of int32.
    """

    translations: np.ndarray
    frequent: np.ndarray

    def save(self, directory: Path) -> None:
        """Write shortlist.safetensors into the directory of a run; the same shortlist gives the same bytes."""
        arrays = vars(self)
        content = safetensors.numpy.save(arrays, metadata={"sha256": digest(arrays)})
        write_atomically(directory / NAME, content)

    @classmethod
    def load(cls, directory: Path, vocabulary: int) -> Shortlist:
        """Read shortlist.safetensors. Raises: CheckpointError that names it and what is wrong with it."""
        path = directory / NAME
        if not path.exists():
            raise CheckpointError(f"{path} does not exist; train.py writes it, also with --resume")
        with refused(path):
            expected = {"translations": (vocabulary, TRANSLATIONS), "frequent": (min(FREQUENT, vocabulary),)}
            arrays, metadata = read_arrays(path, expected, np.int32)
            if metadata.get("sha256") != digest(arrays):
                raise ValueError(CHANGED)
            for name, ids in arrays.items():
                for outside in ids[(ids < 0) | (ids >= vocabulary)][:1]:
                    raise ValueError(f"{name} holds {outside}, which is no id of {vocabulary} tokens")
        return cls(**arrays)

    def of(self, source: Sequence[int]) -> np.ndarray:
        """Return the ids that a translation of `source` may have, each once, END among them.

        There is room for ROOM of them for each token, beside those that are frequent: first the likeliest translation
        of every token, then the second of every token, and so on.
        """
        own = np.array(source, dtype=int)
        ranked = np.concatenate([[END], self.frequent, own, self.translations[own].T.ravel()])
        return np.array([*dict.fromkeys(ranked.tolist())][: len(self.frequent) + ROOM * len(own)])


def learn(pairs: Sequence[Pair], vocabulary: int) -> Shortlist:
    """Learn from sentence pairs, (source, target) ids below `vocabulary`, what translates what.

    Every target token is taken for the translation of one token of its source, of each with the same chance whatever
    the order; t(f | e) is the probability that a source token e, where it is translated, becomes f. If it were known
    which, t would be a matter of counting. If t were known, one could tell which to expect: e has produced the f before
    us with probability

        t(f | e) / (sum over all e' of the source of t(f | e'))

    So both in turns, from equal t on: add up for all (e, f) what is expected, and divide by the sum for each e. Every
    round makes the corpus more probable.

    Of a large corpus every n-th pair is taken, so that no more than MOST tokens meet.
    Source: model 1 of Brown et al. 1993, "The Mathematics of Statistical Machine Translation", section 4.1 and 4.2.
    """
    source, target, place = _meetings(pairs)
    both, meeting = np.unique(source * vocabulary + target, return_inverse=True)
    e, f = np.divmod(both, vocabulary)
    t: np.ndarray = np.ones(len(both))
    for _ in range(ROUNDS):
        expected = t[meeting]
        expected /= np.bincount(place, expected)[place]
        t = np.bincount(meeting, expected)
        t = t / np.bincount(e, t)[e]
    order = np.lexsort((-t, e))
    rank = np.arange(len(e)) - np.searchsorted(e, e)  # in this order: which of the translations of its e each one is
    kept = rank < TRANSLATIONS
    translations = np.full((vocabulary, TRANSLATIONS), END, dtype=np.int32)
    translations[e[kept], rank[kept]] = f[order][kept]
    often = np.bincount([i for _, target in pairs for i in target], minlength=vocabulary)
    return Shortlist(translations, np.argsort(-often, kind="stable")[:FREQUENT].astype(np.int32))


def _meetings(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for every target token and every token of its source: the source token, the target token, and a number
    that all meetings of one target token have in common.
    """
    pairs = [(source[:LONGEST], target[:LONGEST]) for source, target in pairs]
    some = pairs[:: math.ceil(sum(len(s) * len(t) for s, t in pairs) / MOST)]
    sources = [np.tile(s, len(t)) for s, t in some]
    targets = [np.repeat(t, len(s)) for s, t in some]
    lengths = [len(s) for s, t in some for _ in t]
    return np.concatenate(sources), np.concatenate(targets), np.repeat(np.arange(len(lengths)), lengths)
