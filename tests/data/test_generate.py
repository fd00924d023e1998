"""The toy corpus: reproducible, split without leaks, and translated in one way only."""

import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import generate
import lexicon as lex
import pytest
from sentences import choose_sentence

DATA = Path(__file__).parents[2] / "data"
Corpus = dict[str, list[tuple[str, str]]]
SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000, "unseen": 1_000}


def read(split: str, language: str) -> list[str]:
    text = (DATA / "toy" / f"{split}.{language}").read_bytes().decode("utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    return text.removesuffix("\n").split("\n")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    def pairs(split: str) -> list[tuple[str, str]]:
        return list(zip(read(split, "en"), read(split, "de"), strict=True))

    return {split: pairs(split) for split in SIZES}


def tokens(sentence: str) -> list[str]:
    return re.findall(r"\w+", sentence)


# ---------------------------------------------------------------- files and splits


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    command = [sys.executable, str(DATA / "generate.py"), "--out", "toy"]
    finished = subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert finished.stdout == b""
    names = sorted(path.name for path in (DATA / "toy").iterdir())
    assert names == sorted(f"{split}.{language}" for split in SIZES for language in ("en", "de"))
    for name in names:
        assert (tmp_path / "toy" / name).read_bytes() == (DATA / "toy" / name).read_bytes(), name


def test_the_global_random_state_is_not_used() -> None:
    random.seed(1)
    before = random.getstate()
    generate.make_corpus(random.Random(3), {"train": 2000, "valid": 5, "test": 5, "unseen": 5})
    assert random.getstate() == before


def test_sizes_and_lengths(corpus: Corpus) -> None:
    assert {split: len(pairs) for split, pairs in corpus.items()} == SIZES
    lengths = [len(tokens(english)) for pairs in corpus.values() for english, _ in pairs]
    assert (min(lengths), max(lengths)) == (3, 16)
    assert 8 <= sum(lengths) / len(lengths) <= 9.5


def test_no_sentence_occurs_twice(corpus: Corpus) -> None:
    """Neither across splits nor within one: so English also determines German."""
    for side in (0, 1):
        counts = Counter(pair[side] for pairs in corpus.values() for pair in pairs)
        assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_english_determines_german() -> None:
    """Without the removal of duplicates, the grammar never translates in two ways."""
    rng = random.Random(5)
    german_of: dict[str, str] = {}
    repeated = 0
    for _ in range(30_000):
        sentence = choose_sentence(rng)
        repeated += sentence.english in german_of
        assert german_of.setdefault(sentence.english, sentence.german) == sentence.german
    assert repeated > 1000  # otherwise nothing was compared


def test_every_evaluated_word_can_be_learnt(corpus: Corpus) -> None:
    for side in (0, 1):
        counts = Counter(word for pair in corpus["train"] for word in tokens(pair[side]))
        for split in ("valid", "test", "unseen"):
            words = {word for pair in corpus[split] for word in tokens(pair[side])}
            assert {word: counts[word] for word in words if counts[word] < 20} == {}, split


def base_words(english: str) -> set[str]:
    """The words of a sentence, with nouns in the singular and verbs in the infinitive."""
    base = {noun.english_plural: noun.english for noun in lex.NOUNS}
    for verb in lex.VERBS:
        first, *others = verb.english_forms.split()
        base |= dict.fromkeys(others, first)
    return {base.get(word, word) for word in tokens(english.lower())}


def test_held_out_combinations_are_only_in_unseen(corpus: Corpus) -> None:
    """Read off the text: which sentences have both words of a combination anywhere."""
    found: Counter[tuple[str, str]] = Counter()
    alone: Counter[str] = Counter()
    for split, pairs in corpus.items():
        for english, _ in pairs:
            words = base_words(english)
            meeting = {pair for pair in generate.HELD_OUT if words.issuperset(pair)}
            assert bool(meeting) == (split == "unseen"), english
            found.update(meeting)
            alone.update(words if split == "train" else ())
    assert set(found) == generate.HELD_OUT
    # Only the combination is new: training has each of its words often.
    assert min(alone[word] for pair in generate.HELD_OUT for word in pair) > 150


def test_punctuation_and_inversion_after_subordinate_clauses(corpus: Corpus) -> None:
    pairs = [pair for split in corpus.values() for pair in split]
    kinds: Counter[str] = Counter()
    for english, german in pairs:
        assert english[-1] == german[-1]
        assert english[-1] in ".?"
        assert (english[0] + german[0]).isupper()
        for conjunction in ("weil", "obwohl", "wenn", "dass", "aber"):
            if f" {conjunction} " in german:
                assert f", {conjunction} " in german
                kinds[conjunction] += 1
        if german.startswith(("Wenn ", "Weil ")):
            kinds["fronted"] += 1
            assert german.count(",") == english.count(",") == 1
    assert len(kinds) == 6
    assert min(kinds.values()) > 300
