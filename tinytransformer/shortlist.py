"""Shortlists: of the vocabulary, the few hundred tokens that a translation of this sentence may need.

At every step a search asks for the logit of every token, and nearly all of them are of words that have nothing to do
with the sentence. Which ones it may need can be told beforehand: the most frequent tokens of the target language; the
tokens of the source, since names are copied; and the likeliest translations of each of these. To look at no others is
another search, though: a token that is not on the list is never produced, and what it adds to the sum under the softmax
is guessed (`candidates.Rest`). What that saves, and what it costs: docs/performance.md.

Source: Jean et al. 2015, arXiv:1412.2007, for a dictionary of words; L'Hostis, Grangier and Auli 2016,
arXiv:1610.00072, for what else can be put on such a list, and how much time it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy

from tinytransformer.checkpoint import CHANGED, CheckpointError, refused
from tinytransformer.data import Pair
from tinytransformer.reading import digest, read_arrays
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import END
from tinytransformer.writing import write_atomically

NAME = "shortlist.safetensors"

FREQUENT = 100  # tokens that are on every shortlist
ROOM = 15  # for so many more for each token of the source, itself included
TRANSLATIONS = 100  # that are kept of each token: of some, more are asked for than ROOM, since others share theirs
ROUNDS = 5  # of expectation maximisation; after 50, lists hold 0.1 % more of the tokens of a text
MOST = (
    1 << 23
)  # meetings of a source token with a target token that are learned from: so many take 430 MB, or 750 if all differ
LONGEST = 256  # tokens; of a longer sentence the beginning is learned from


@dataclass(frozen=True, eq=False)
class Shortlist:
    """Makes the shortlist of a sentence. Both sides share one vocabulary, of V tokens.

    translations: of every token its likeliest translations, (V, N) of int32, filled up with END.
    frequent: the most frequent target tokens, (F,) of int32.
    """

    translations: np.ndarray
    frequent: np.ndarray

    def save(self, directory: Path, tokenizer: Tokenizer) -> None:
        """Write shortlist.safetensors into the directory of a run; the same shortlist gives the same bytes."""
        arrays = {name: np.ascontiguousarray(array) for name, array in vars(self).items()}
        content = safetensors.numpy.save(arrays, metadata={"sha256": digest(arrays, tokenizer.digest())})
        write_atomically(directory / NAME, content)

    @classmethod
    def load(cls, directory: Path, tokenizer: Tokenizer) -> Shortlist:
        """Read shortlist.safetensors. Raises: CheckpointError that names it and what is wrong with it."""
        path, vocabulary = directory / NAME, len(tokenizer)
        if not path.exists():
            raise CheckpointError(f"{path} does not exist; train.py writes it, also with --resume")
        with refused(path):
            expected = {"translations": (vocabulary, TRANSLATIONS), "frequent": (min(FREQUENT, vocabulary),)}
            arrays, metadata = read_arrays(path, expected, np.int32)
            if metadata.get("sha256") != digest(arrays, tokenizer.digest()):
                raise ValueError(f"{CHANGED}, or it belongs to another vocabulary; train.py --resume makes it again")
            for name, ids in arrays.items():
                if (outside := ids[(ids < 0) | (ids >= vocabulary)]).size:
                    raise ValueError(f"{name} holds {outside[0]}, which is no id of {vocabulary} tokens")
        return cls(**arrays)

    def of(self, source: Sequence[int]) -> np.ndarray:
        """Return the ids that a translation of `source` may have, each once, END among them.

        As far as there is room: first the likeliest translation of every token, then the second of every token, and so
        on.
        """
        own = np.array(source, dtype=int)
        ranked = np.concatenate([[END], self.frequent, own, self.translations[own].T.ravel()])
        return np.array([*dict.fromkeys(ranked.tolist())][: 1 + len(self.frequent) + ROOM * len(own)])


def learn(pairs: Sequence[Pair], vocabulary: int, generator: np.random.Generator) -> Shortlist:
    """Learn from sentence pairs, (source, target) ids below `vocabulary`, what translates what.

    Every target token is taken for the translation of one token of its source, of any with the same chance, whatever
    the order; t(f | e) is the probability that a source token e, where it is translated, becomes f. Which one it was is
    not known, but if t were, one could tell what to expect: the f before us came from e with probability

        t(f | e) / (sum over all e' of the source of t(f | e'))

    Add this up over the corpus, and c(e, f) is how often e is expected to have become f. And if c were counted and not
    expected, t would follow: the text is most probable where the sum of c(e, f) * ln t(f | e) is largest, and since the
    t(f | e) of each e have to add up to 1, that is where they are in proportion to c:

        t(f | e) = c(e, f) / (sum over all f' of c(e, f'))

    So each from the other in turns, beginning with a t that prefers nothing. No round makes the text less probable
    (Dempster, Laird and Rubin 1977).

    An empty word, which would account for what no source token explains, is left out: such tokens are frequent, and so
    on every shortlist.

    generator: where there are more meetings than MOST, it chooses the pairs to learn from.
    Raises: ValueError if no pair has tokens on both sides.
    Source: model 1 of Brown et al. 1993, "The Mathematics of Statistical Machine Translation", section 4.1.
    """
    meetings, lengths = _meetings(pairs, vocabulary, generator)
    starts = np.cumsum(lengths) - lengths  # of each target token its meetings stand in a row
    both, meeting = np.unique(meetings, return_inverse=True)
    del meetings
    e, f = np.divmod(both, vocabulary)
    t: np.ndarray = np.ones(len(both))
    for _ in range(ROUNDS):
        expected = t[meeting]
        expected /= np.repeat(np.add.reduceat(expected, starts), lengths)
        counts = np.bincount(meeting, expected)
        t = counts / np.bincount(e, counts)[e]
    order = np.lexsort((-t, e))
    rank = np.arange(len(e)) - np.searchsorted(e, e)  # in this order: which of the translations of its e each one is
    kept = rank < TRANSLATIONS
    translations = np.full((vocabulary, TRANSLATIONS), END, dtype=np.int32)
    translations[e[kept], rank[kept]] = f[order][kept]
    often = np.zeros(vocabulary, dtype=int)
    for _, target in pairs:
        np.add.at(often, target, 1)
    return Shortlist(translations, np.argsort(-often, kind="stable")[:FREQUENT].astype(np.int32))


def _meetings(pairs: Sequence[Pair], vocabulary: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return e * vocabulary + f for every target token f and every token e of its source; and of each f how many."""
    sizes = np.array([min(len(source), LONGEST) * min(len(target), LONGEST) for source, target in pairs], dtype=int)
    chosen = generator.permutation(np.flatnonzero(sizes))
    chosen = np.sort(chosen[np.cumsum(sizes[chosen]) <= MOST])
    if not len(chosen):
        raise ValueError("no pair has tokens on both sides")
    meetings, lengths = [], []
    for source, target in (pairs[i] for i in chosen.tolist()):
        e, f = np.array(source[:LONGEST]), np.array(target[:LONGEST])
        meetings.append(np.add.outer(f, vocabulary * e).ravel())
        lengths.append(np.full(len(f), len(e)))
    return np.concatenate(meetings), np.concatenate(lengths)
