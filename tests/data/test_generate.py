"""The toy corpus: reproducible, split without leaks, and correct German."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "data"
Corpus = dict[str, list[tuple[str, str]]]
SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000, "unseen": 1_000}


def load_generator() -> Any:
    """The generator is a script beside its lexicon, not part of the package."""
    sys.path.insert(0, str(DATA))
    try:
        spec = importlib.util.spec_from_file_location("toy_generator", DATA / "generate.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(DATA))
    return module


gen = load_generator()
lex = gen.lex


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
    command = [sys.executable, str(DATA / "generate.py"), "--out", str(tmp_path)]
    finished = subprocess.run(command, check=True, capture_output=True)
    assert finished.stdout == b""
    names = sorted(path.name for path in (DATA / "toy").iterdir())
    assert names == sorted(f"{split}.{language}" for split in SIZES for language in ("en", "de"))
    for name in names:
        assert (tmp_path / name).read_bytes() == (DATA / "toy" / name).read_bytes(), name


def test_the_global_random_state_is_not_used() -> None:
    gen.random.seed(1)
    before = gen.random.getstate()
    gen.make_corpus(gen.random.Random(3), {"train": 2000, "valid": 5, "test": 5, "unseen": 5})
    assert gen.random.getstate() == before


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
    rng = gen.random.Random(5)
    german_of: dict[str, str] = {}
    repeated = 0
    for _ in range(40_000):
        sentence = gen.choose(rng, gen.TEMPLATES)(rng)
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
    held_out = {*lex.HELD_OUT_SUBJECT_OBJECT, *lex.HELD_OUT_VERB_ADVERB}
    found: Counter[tuple[str, str]] = Counter()
    alone: Counter[str] = Counter()
    for split, pairs in corpus.items():
        for english, _ in pairs:
            words = base_words(english)
            meeting = {pair for pair in held_out if words.issuperset(pair)}
            assert bool(meeting) == (split == "unseen"), english
            found.update(meeting)
            alone.update(words if split == "train" else ())
    assert set(found) == held_out
    # Only the combination is new: training has each of its words often.
    assert min(alone[word] for pair in held_out for word in pair) > 150


# ---------------------------------------------------------------- the grammar


def phrase(words: str, plural: bool = False, negated: bool = False) -> Any:
    """A noun phrase such as "the old man", from English base forms."""
    *before, english = words.split()
    noun = next(noun for noun in lex.NOUNS if noun.english == english)
    determiner = before.pop(0) if before and before[0] in ("the", "a", "my", "your") else ""
    adjective = next((word for word in lex.ADJECTIVES if word.english in before), None)
    return gen.NounPhrase(noun, determiner, plural, adjective, negated)


def clause(subject: Any, base: str, **parts: Any) -> Any:
    verb = next(verb for verb in lex.VERBS if verb.english_forms.split()[0] == base)
    subject = phrase(subject) if isinstance(subject, str) else subject
    return gen.Clause(subject, verb, **parts)


(ME, US), CAN = lex.FIRST_PERSON, lex.CAN
IN_GARDEN, INTO_HOUSE = ("in the garden", "im Garten"), ("into the house", "ins Haus")

MAIN_CLAUSES = [
    ("the old man sees the dog", "der alte Mann sieht den Hund",
     clause("the old man", "see", accusative=phrase("the dog"))),
    ("an old dog follows a young woman", "ein alter Hund folgt einer jungen Frau",
     clause("a old dog", "follow", dative=phrase("a young woman"))),
    ("my small child has fresh apples", "mein kleines Kind hat frische Äpfel",
     clause("my small child", "have", accusative=phrase("fresh apple", plural=True))),
    ("the boy drinks cold milk", "der Junge trinkt kalte Milch",
     clause("the boy", "drink", accusative=phrase("cold milk"))),
    ("I thank the boy", "ich danke dem Jungen", clause(ME, "thank", dative=phrase("the boy"))),
    ("she helps the old neighbours", "sie hilft den alten Nachbarn",
     clause(lex.SHE, "help", dative=phrase("the old neighbour", plural=True))),
    ("he helps the children", "er hilft den Kindern",
     clause(lex.HE, "help", dative=phrase("the child", plural=True))),
    ("you give him the key", "du gibst ihm den Schlüssel",
     clause(lex.YOU, "give", dative=lex.HE, accusative=phrase("the key"))),
    ("the woman calls the doctor up today", "die Frau ruft heute den Arzt an",
     clause("the woman", "call", accusative=phrase("the doctor"), time=("today", "heute"))),
    ("the woman calls him up today", "die Frau ruft ihn heute an",
     clause("the woman", "call", accusative=lex.HE, time=("today", "heute"))),
    ("today the girl reads a book", "heute liest das Mädchen ein Buch",
     clause("the girl", "read", accusative=phrase("a book"), front=("today", "heute"))),
    ("the man does not buy the car today", "der Mann kauft das Auto heute nicht",
     clause("the man", "buy", accusative=phrase("the car"), negated=True,
            time=("today", "heute"))),
    ("the man does not buy a car", "der Mann kauft kein Auto",
     clause("the man", "buy", accusative=phrase("a car", negated=True), negated=True)),
    ("they do not play in the garden", "sie spielen nicht im Garten",
     clause(lex.THEY, "play", negated=True, rest=IN_GARDEN)),
    ("I cannot open the door", "ich kann die Tür nicht aufmachen",
     clause(ME, "open", modal=CAN, negated=True, accusative=phrase("the door"))),
    ("the teacher wants to see us", "der Lehrer will uns sehen",
     clause("the teacher", "see", modal=lex.WANT, accusative=US)),
    ("you ran into the house", "du bist ins Haus gelaufen",
     clause(lex.YOU, "run", past=True, rest=INTO_HOUSE)),
    ("he did not pick the sisters up", "er hat die Schwestern nicht abgeholt",
     clause(lex.HE, "pick", past=True, negated=True, accusative=phrase("the sister", plural=True))),
    ("the cat was tired", "die Katze war müde",
     gen.Clause(phrase("the cat"), lex.BE_PAST, past=True, rest=("tired", "müde"))),
]  # fmt: skip


@pytest.mark.parametrize(("english", "german", "meaning"), MAIN_CLAUSES)
def test_main_clauses(english: str, german: str, meaning: Any) -> None:
    assert gen.say_english(meaning) == english
    assert gen.say_german(meaning, "verb second") == german


QUESTIONS = [
    ("does the tired boy open the door", "macht der müde Junge die Tür auf",
     clause("the tired boy", "open", accusative=phrase("the door"))),
    ("did they go into the house", "sind sie ins Haus gegangen",
     clause(lex.THEY, "go", past=True, rest=INTO_HOUSE)),
    ("can I help you", "kann ich dir helfen", clause(ME, "help", modal=CAN, dative=lex.YOU)),
    ("who does the doctor help", "wem hilft der Arzt",
     clause("the doctor", "help", front=("who", "wem"))),
]  # fmt: skip


@pytest.mark.parametrize(("english", "german", "meaning"), QUESTIONS)
def test_questions(english: str, german: str, meaning: Any) -> None:
    assert gen.say_english(meaning, question=True) == english
    assert gen.say_german(meaning, "verb first") == german


SUBORDINATE_CLAUSES = [
    ("der Mann den Hund nicht sieht",
     clause("the man", "see", negated=True, accusative=phrase("the dog"))),
    ("er den Freund anruft", clause(lex.HE, "call", accusative=phrase("the friend"))),
    ("wir den Pferden gefolgt sind",
     clause(US, "follow", past=True, dative=phrase("the horse", plural=True))),
    ("ich oft aufstehen will", clause(ME, "get", modal=lex.WANT, frequency=("often", "oft"))),
]  # fmt: skip


@pytest.mark.parametrize(("german", "meaning"), SUBORDINATE_CLAUSES)
def test_subordinate_clauses_end_with_the_verb(german: str, meaning: Any) -> None:
    assert gen.say_german(meaning, "verb last") == german


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
