"""Generate the toy parallel corpus, English to German, from a small hand-written grammar.

The grammar builds a clause once, as a structure, and says it in both languages. What makes
the translation worth learning is what the languages do differently:

* German articles, adjectives and nouns inflect for gender, number and case; the case
  follows from the verb ("helfen" takes the dative) or from the preposition.
* The finite verb is the second element of a main clause, so that whatever is put in front
  moves the subject behind the verb: "Heute sieht der Mann den Hund." It is the first
  element of a yes/no question and the last of a subordinate clause.
* Infinitives, participles and separable prefixes stand at the end: "Er ruft den Arzt an."
  The English past is always the German perfect, except for "was" and "were".
* Between them the order is: pronouns, time, noun objects, "nicht", manner, place. An
  indefinite object is negated with "kein" instead of "nicht".

English determines German: "you" is always "du", and "it" speaks only of the weather. Some
pairs of words are held out; only sentences of the split "unseen" combine them.

From the word to the corpus, the rooms are inflection.py (kinds of words, noun phrases),
lexicon.py (the words), clause.py (saying a clause in either language), choices.py (choosing
what to say), sentences.py (the kinds of sentence) and this one (splits and files).
"""

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

import lexicon as lex
from inflection import Pair
from sentences import choose_sentence

SEED = 2017
SPLIT_SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000, "unseen": 1_000}
SHORTEST, LONGEST = 3, 16  # words in an English sentence
LEARNABLE = 20  # how often training must have a word that another split uses

# ---------------------------------------------------------------- combinations held out


def word_pairs(text: str) -> set[Pair]:
    """Read pairs of words such as "man+cat"."""
    return {(first, second) for first, second in (pair.split("+") for pair in text.split())}


HELD_OUT_SUBJECT_OBJECT = word_pairs("""
    man+cat man+letter woman+horse woman+apple child+book child+milk boy+bird boy+bag girl+dog
    girl+newspaper teacher+key teacher+girl doctor+newspaper doctor+woman neighbour+flower
    neighbour+door friend+lamp friend+coffee mother+picture mother+boy father+cake father+bag
    sister+flower sister+child dog+man cat+bird
""")
HELD_OUT_VERB_ADVERB = word_pairs("""
    open+slowly close+quietly read+quickly carry+carefully eat+happily sing+happily
    work+patiently run+slowly answer+quickly
""")
HELD_OUT = HELD_OUT_SUBJECT_OBJECT | HELD_OUT_VERB_ADVERB

# ---------------------------------------------------------------- making sentences


def words_of(sentence: str) -> list[str]:
    """The words of a sentence without its punctuation."""
    return sentence.rstrip(".?").replace(",", "").split()


def base_forms() -> dict[str, str]:
    """The base form of every English form of a noun, verb or manner adverb."""
    bases = {word.english: word.english for word in lex.MANNERS}
    for noun in lex.NOUNS:
        bases |= {noun.english: noun.english, noun.english_plural: noun.english}
    for verb in lex.VERBS:
        forms = verb.english_forms.split()
        bases |= dict.fromkeys(forms, forms[0])
    return bases


def collect(rng: random.Random, ordinary_size: int, unseen_size: int) -> tuple[list[Pair], list[Pair]]:
    """Two lists of pairs, without and with held-out combinations; no sentence occurs twice."""
    bases, nouns = base_forms(), {noun.english for noun in lex.NOUNS}
    ordinary: list[Pair] = []
    unseen: list[Pair] = []
    seen: set[str] = set()
    while len(ordinary) < ordinary_size or len(unseen) < unseen_size:
        sentence = choose_sentence(rng)
        words = words_of(sentence.english.lower())
        used = [bases[word] for word in words if word in bases]
        used_nouns = [word for word in used if word in nouns]
        repeats = len(set(used_nouns)) < len(used_nouns)
        if repeats or not SHORTEST <= len(words) <= LONGEST:
            continue
        if any(clause.combinations() & HELD_OUT for clause in sentence.clauses):
            pairs, size = unseen, unseen_size
        elif any({*pair} <= {*used} for pair in HELD_OUT):
            # The two words meet without being combined. Training must not see even that.
            continue
        else:
            pairs, size = ordinary, ordinary_size
        if len(pairs) < size and not seen & {sentence.english, sentence.german}:
            pairs.append((sentence.english, sentence.german))
            seen |= {sentence.english, sentence.german}
    return ordinary, unseen


# ---------------------------------------------------------------- splits and files


def shuffle(rng: random.Random, items: list[Pair]) -> None:
    """Shuffle in place, by the method of Fisher and Yates, on every Python version alike."""
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]


def make_corpus(rng: random.Random, sizes: dict[str, int]) -> dict[str, list[Pair]]:
    """The sentence pairs of each split."""
    # Twice as many as needed, for a choice of those that have only learnable words.
    evaluated = sizes["valid"] + sizes["test"]
    ordinary, unseen = collect(rng, sizes["train"] + 2 * evaluated, 2 * sizes["unseen"])
    # Short sentences run out early, so the order of making them must not decide the split.
    shuffle(rng, ordinary)
    train, rest = ordinary[: sizes["train"]], ordinary[sizes["train"] :]
    counts = Counter(word for pair in train for text in pair for word in words_of(text))

    def is_learnable(pair: Pair) -> bool:
        return all(counts[word] >= LEARNABLE for text in pair for word in words_of(text))

    rest = [pair for pair in rest if is_learnable(pair)]
    unseen = [pair for pair in unseen if is_learnable(pair)]
    return {
        "train": train,
        "valid": rest[: sizes["valid"]],
        "test": rest[sizes["valid"] : evaluated],
        "unseen": unseen[: sizes["unseen"]],
    }


def write_corpus(corpus: dict[str, list[Pair]], folder: Path) -> None:
    """Write two files per split, one sentence per line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in corpus.items():
        for language, sentences in zip(("en", "de"), zip(*pairs, strict=True), strict=True):
            text = "".join(f"{sentence}\n" for sentence in sentences)
            (folder / f"{name}.{language}").write_bytes(text.encode("utf-8"))
        print(f"{name}: {len(pairs)} pairs", file=sys.stderr)


def main() -> None:
    """Generate the corpus from the command line."""
    description = "Generate the English-German toy corpus, the same bytes every time."
    parser = argparse.ArgumentParser(description=description)
    toy = Path(__file__).parent / "toy"
    note = "the folder to write into (default: data/toy)"
    parser.add_argument("--out", type=Path, default=toy, metavar="DIR", help=note)
    folder = parser.parse_args().out
    try:
        write_corpus(make_corpus(random.Random(SEED), SPLIT_SIZES), folder)
    except OSError as error:
        sys.exit(f"generate.py: error: {error.filename or folder}: {error.strerror}")


if __name__ == "__main__":
    main()
