"""From parallel files to batches of token ids.

A corpus is two text files, UTF-8, in which line n of one is the translation of line n of the other. Lines end at
"\\n" and nowhere else: other characters that Unicode counts as line breaks may stand inside a sentence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinytransformer.backend import Array
from tinytransformer.timing import timed
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import BEGIN, END, PAD

Pair = tuple[list[int], list[int]]  # the ids of source and target, without BEGIN and END


class DataError(ValueError):
    """A text file that cannot be used; the message names the file and, where there is one, the line."""


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file. A byte order mark at its start and a "\\r" at a line's end are taken off.

    Raises: DataError if the file cannot be read or a line is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except ValueError:  # a name with a NUL in it, say
        raise DataError(f"{path}: no file can have this name") from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {number} is not UTF-8 (byte {content[error.start]:#04x})") from None
    lines = text.removeprefix("\ufeff").split("\n")
    if lines[-1] == "":
        lines.pop()  # what follows the last "\n" is not a line
    return [line.removesuffix("\r") for line in lines]


def read_parallel(source: Path, target: Path) -> tuple[list[str], list[str]]:
    """Return the lines of two files that translate each other line by line.

    Raises: DataError if a file cannot be read, the numbers of lines differ, or there is no line.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {len(sources)} lines but {target} has {len(targets)}; "
            "line n of one must be the translation of line n of the other"
        )
    if not any(s.strip() and t.strip() for s, t in zip(sources, targets, strict=True)):
        raise DataError(f"{source} and {target} hold no sentence pair")
    return sources, targets


@dataclass(frozen=True)
class Corpus:
    """Sentence pairs as token ids, and how many pairs were left out and why."""

    pairs: list[Pair]
    empty: int  # pairs with nothing on one side
    long: int  # pairs with more tokens on one side than allowed

    def notes(self, kind: str, max_length: int) -> Iterator[str]:
        """Yield a line for each reason why pairs of this kind were left out; `max_length` as in `encode_corpus`."""
        if self.empty:
            yield f"note: left out {self.empty} {kind} pairs with an empty side"
        if self.long:
            yield f"note: left out {self.long} {kind} pairs of {max_length} subwords and more"

    def length_ratio(self) -> float:
        """Return the longest target per token of source; what lies above 99.9 % of the pairs does not count."""
        return float(np.quantile([len(t) / len(s) for s, t in self.pairs], 0.999))


def encode_corpus(tokenizer: Tokenizer, sources: Sequence[str], targets: Sequence[str], max_length: int) -> Corpus:
    """Turn sentence pairs into ids, without those that are empty or, with END, longer than `max_length` tokens."""
    pairs, empty, long = [], 0, 0
    for source, target in zip(sources, targets, strict=True):
        pair = tokenizer.encode(source), tokenizer.encode(target)
        if not source.strip() or not target.strip():
            empty += 1
        elif max(map(len, pair)) >= max_length:
            long += 1
        else:
            pairs.append(pair)
    return Corpus(pairs, empty, long)


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, padded to the longest.

    source: (B, T_source), each sentence with END. target: (B, T_target), each with BEGIN and END.
    """

    source: Array
    target: Array

    @property
    def tokens(self) -> int:
        """How many target tokens there are to predict, padding and BEGIN not counted; to count them waits for a GPU."""
        return int((self.target[:, 1:] != PAD).sum())

    def share(self, i: int, count: int) -> Batch | None:
        """Return every `count`-th sentence, from the i-th on, so that long and short are shared alike; None if none."""
        if count == 1:
            return self
        source, target = self.source[i::count], self.target[i::count]
        return Batch(source, target) if len(source) else None


@timed("batches")
def make_batch(pairs: Sequence[Pair]) -> Batch:
    """Lay sentence pairs into one Batch."""
    return Batch(pad([[*source, END] for source, _ in pairs]), pad([[BEGIN, *target, END] for _, target in pairs]))


def pad(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Lay rows of ids into one array, (B, longest), filled up with PAD."""
    array = np.full((len(rows), max(map(len, rows))), PAD, dtype=np.int64)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array


@timed("batches")
def plan_batches(
    pairs: Sequence[Pair], batch_tokens: int, generator: np.random.Generator | None = None
) -> list[list[int]]:
    """Divide all pairs into batches of sentences of similar length; return the indices of each batch.

    batch_tokens: the most tokens, padding included, that either side of a batch may have; a longer sentence is a
        batch of its own.
    generator: shuffles which sentences of one length meet, and the order of the batches. Without it the batches are
        the same every time and go from short to long.
    """
    order = list(range(len(pairs)))
    if generator is not None:
        generator.shuffle(order)
    lengths = [sorted(map(len, pair), reverse=True) for pair in pairs]  # the longer side decides
    order.sort(key=lengths.__getitem__)  # stable: equal lengths stay shuffled
    batches: list[list[int]] = []
    for i in order:  # the lengths rise, so the newest sentence is the longest of its batch
        if not batches or (len(batches[-1]) + 1) * (lengths[i][0] + 1) > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    if generator is not None:
        generator.shuffle(batches)
    return batches


def batches(pairs: Sequence[Pair], batch_tokens: int) -> Iterator[Batch]:
    """Yield the batches that `plan_batches` plans, from short to long."""
    for indices in plan_batches(pairs, batch_tokens):
        yield make_batch([pairs[i] for i in indices])


def fingerprint(*texts: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that change when a line of the texts does."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}\n".encode())
        for line in text:
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def padding_share(pairs: Sequence[Pair], plan: Sequence[Sequence[int]]) -> float:
    """Return which share of the token places in these batches, source and target, holds padding."""
    real = padded = 0
    for indices in plan:
        for side in (0, 1):
            lengths = [len(pairs[i][side]) + 1 for i in indices]
            real, padded = real + sum(lengths), padded + len(lengths) * max(lengths)
    return 1 - real / padded
