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
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

import lexicon as lex
from lexicon import Case, Nominal, NounPhrase, Pair, Pronoun, Tense, Verb, Word

SEED = 2017
SPLIT_SIZES = {"train": 20_000, "valid": 1_000, "test": 1_000, "unseen": 1_000}
SHORTEST, LONGEST = 3, 16  # words in an English sentence
LEARNABLE = 20  # how often training must have a word that another split uses

T = TypeVar("T")
Order = Literal["verb first", "verb second", "verb last"]

# ---------------------------------------------------------------- small helpers
# Of the generator only random() is used: its values are the same on every Python version.


def choose(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options, each equally likely."""
    return options[int(rng.random() * len(options))]


def shuffle(rng: random.Random, items: list[T]) -> None:
    """Shuffle in place, by the method of Fisher and Yates."""
    for last in range(len(items) - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        items[last], items[other] = items[other], items[last]


def fits(traits: str, wanted: str) -> bool:
    """Whether two lists of traits have one in common."""
    return not set(traits.split()).isdisjoint(wanted.split())


def join(*words: str) -> str:
    """Put words together, leaving out the empty ones."""
    return " ".join(word for word in words if word)


# ---------------------------------------------------------------- the clause


@dataclass(frozen=True)
class Clause:
    """What a clause says, before either language puts it in order."""

    subject: Nominal
    verb: Verb
    past: bool = False
    modal: Verb | None = None
    negated: bool = False
    dative: Nominal | None = None
    accusative: Nominal | None = None
    front: Pair = ("", "")  # moved to the beginning: a question word or a time
    time: Pair = ("", "")
    frequency: Pair = ("", "")
    manner: Pair = ("", "")
    rest: Pair = ("", "")  # predicate adjective, partner and place

    def combinations(self) -> set[Pair]:
        """The subject-object and verb-adverb pairs of this clause, in English base forms."""
        nominals = (self.dative, self.accusative)
        objects = [o.noun.english for o in nominals if isinstance(o, NounPhrase)]
        pairs = {(self.verb.english_forms.split()[0], self.manner[0])}
        if isinstance(self.subject, NounPhrase):
            pairs |= {(self.subject.noun.english, noun) for noun in objects}
        return pairs


def english_verb(clause: Clause, do_support: bool) -> Pair:
    """The part that inverts in questions and precedes "not" (perhaps none), and the rest."""
    verb, person = clause.verb, clause.subject.person
    forms = verb.english_forms.split()
    if verb in (lex.BE, lex.BE_PAST):
        return forms[person], ""
    if clause.modal and clause.modal is not lex.WANT:
        return clause.modal.english_forms, forms[0]
    infinitive = f"to {forms[0]}" if clause.modal else ""
    if clause.modal:
        forms = lex.WANT.english_forms.split()
    third = person == lex.THIRD
    if do_support:
        return "did" if clause.past else "does" if third else "do", join(forms[0], infinitive)
    return "", join(forms[2] if clause.past else forms[third], infinitive)


def say_english(clause: Clause, question: bool = False) -> str:
    """The clause in English words."""
    auxiliary, main = english_verb(clause, question or clause.negated)
    subject = clause.subject.english("nominative")
    words = join(
        clause.front[0],
        *((auxiliary, subject) if question else (subject, auxiliary)),
        "not" if clause.negated else "",
        clause.frequency[0],
        main,
        clause.dative.english("dative") if clause.dative else "",
        clause.verb.preposition,
        clause.accusative.english("accusative") if clause.accusative else "",
        clause.verb.particle,
        clause.manner[0],
        clause.rest[0],
        clause.time[0],
    )
    return words.replace("can not", "cannot")


def german_verb(clause: Clause) -> Pair:
    """The finite verb and what closes the clause: prefix, participle or infinitive."""
    verb, person = clause.verb, clause.subject.person
    forms = verb.german_forms.split()
    if clause.modal:
        return clause.modal.german_forms.split()[person], verb.prefix + forms[lex.PLURAL]
    if clause.past and verb.perfect:
        auxiliary, participle = verb.perfect.split()
        return lex.PERFECT_AUXILIARIES[auxiliary].split()[person], participle
    return forms[person], verb.prefix


def say_german(clause: Clause, order: Order) -> str:
    """The clause in German words."""
    finite, closing = german_verb(clause)
    subject = clause.subject.german("nominative")
    pronouns, nouns = "", ""
    objects: list[tuple[Nominal | None, Case]]
    objects = [(clause.dative, "dative"), (clause.accusative, "accusative")]
    for nominal, case in objects:
        if isinstance(nominal, Pronoun):
            pronouns = nominal.german(case)
        elif nominal:
            nouns = join(nouns, nominal.german(case))
    when = join(clause.time[1], clause.frequency[1])
    if clause.negated and not has_kein(clause):
        middle = join(pronouns, nouns, when, "nicht")
    else:
        middle = join(pronouns, when, nouns)
    middle = join(middle, clause.manner[1], clause.rest[1])
    if order == "verb last":
        # A prefix is written together with the verb that it meets at the end: "anruft".
        end = closing + finite if closing == clause.verb.prefix else join(closing, finite)
        return join(subject, middle, end)
    if order == "verb first" or clause.front[1]:
        return join(clause.front[1], finite, subject, middle, closing)
    return join(subject, finite, middle, closing)


def has_kein(clause: Clause) -> bool:
    """Whether an object already carries the negation."""
    objects = (clause.dative, clause.accusative)
    return any(isinstance(o, NounPhrase) and o.negated for o in objects)


# ---------------------------------------------------------------- choosing what to say


def choose_noun_phrase(rng: random.Random, traits: str, determiners: str) -> NounPhrase:
    """A noun phrase whose noun has one of the traits, with one of the determiners."""
    noun = choose(rng, [noun for noun in lex.NOUNS if fits(noun.traits, traits)])
    plural = bool(noun.english_plural) and "place" not in noun.traits and rng.random() < 0.3
    determiner = choose(rng, determiners.split())
    if plural and "person" in noun.traits:
        determiner = "the"
    elif determiner == "a" and (plural or not noun.english_plural):
        determiner = ""
    elif determiner in ("my", "your") and "unowned" in noun.traits:
        determiner = "the"
    adjectives = [word for word in lex.ADJECTIVES if fits(word.traits, noun.traits)]
    adjective = choose(rng, adjectives) if adjectives and rng.random() < 0.35 else None
    return NounPhrase(noun, determiner, plural, adjective)


def choose_object(
    rng: random.Random,
    traits: str,
    subject: Nominal,
    may_be_indefinite: bool,
) -> Nominal | None:
    """An object with one of the traits, if any; a pronoun stands for people only."""
    if not traits:
        return None
    if "person" in traits and rng.random() < 0.3:
        excluded = lex.FIRST_PERSON if subject in lex.FIRST_PERSON else (subject,)
        return choose(rng, [word for word in lex.PERSONAL if word not in excluded])
    determiners = "the the a a my your" if may_be_indefinite else "the my your"
    return choose_noun_phrase(rng, traits, determiners)


def choose_subject(rng: random.Random, traits: str) -> Nominal:
    """A pronoun or a noun phrase."""
    if "person" in traits and rng.random() < 0.4:
        return choose(rng, lex.PERSONAL)
    phrase = choose_noun_phrase(rng, traits, "the the the a my your")
    return phrase if phrase.determiner else replace(phrase, determiner="the")


def is_indefinite(nominal: Nominal | None) -> bool:
    """Whether this object takes "kein" when it is negated."""
    return isinstance(nominal, NounPhrase) and nominal.determiner in ("a", "")


def choose_rest(rng: random.Random, verb: Verb) -> Pair:
    """A partner ("with the dog"), a place or nothing."""
    kind = choose(rng, [verb.partner, verb.place, verb.place, ""])
    if verb is lex.GO:  # nobody just goes
        kind = verb.place
    if not kind:
        return "", ""
    english, german, case, traits = choose(rng, lex.PREPOSITIONS[kind])
    phrase = choose_noun_phrase(rng, traits or "person", "the the the a my")
    words = join(german, phrase.german(case)) + " "
    for full, contracted in lex.CONTRACTIONS.items():
        words = words.replace(full + " ", contracted + " ")
    return join(english, phrase.english(case)), words.strip()


def choose_action(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """A clause with a full verb, not negated."""
    traits = subject.noun.traits if isinstance(subject, NounPhrase) else "person"
    verbs = [verb for verb in lex.VERBS if subject is None or fits(verb.subject, traits)]
    if tense == "past":
        verbs = [verb for verb in verbs if verb.perfect and len(verb.english_forms.split()) == 3]
    elif tense == "modal":
        verbs = [verb for verb in verbs if not verb.stative]
    verb = choose(rng, verbs)
    subject = subject or choose_subject(rng, verb.subject)
    clause = Clause(
        subject,
        verb,
        past=tense == "past",
        modal=choose(rng, lex.MODALS) if tense == "modal" else None,
        dative=choose_object(rng, verb.dative, subject, may_be_indefinite=not verb.accusative),
        accusative=choose_object(rng, verb.accusative, subject, may_be_indefinite=True),
        rest=choose_rest(rng, verb),
    )
    if verb.stative:
        return clause
    # Where a German manner adverb goes beside an indefinite object is a matter of taste.
    if verb.manner and not is_indefinite(clause.accusative) and rng.random() < 0.4:
        manner = choose(rng, [word for word in lex.MANNERS if word.english in verb.manner.split()])
        clause = replace(clause, manner=manner.pair)
    return add_time(rng, clause, tense)


def add_time(rng: random.Random, clause: Clause, tense: Tense) -> Clause:
    """The clause with an adverb of time or of frequency, or as it was."""
    field = choose(rng, ["time", "time", "frequency", "", "", ""])
    if not field:
        return clause
    words = lex.TIMES if field == "time" else lex.FREQUENCIES
    wanted = "state" if tense == "present" and clause.verb.stative else tense
    fitting = [word for word in words if fits(word.traits, wanted)]
    pair = choose(rng, fitting).pair if fitting else ("", "")
    return replace(clause, time=pair) if field == "time" else replace(clause, frequency=pair)


def describe(subject: Nominal, adjective: Word, tense: Tense) -> Clause:
    """A clause with "be", which has no modal here."""
    verb = lex.BE_PAST if tense == "past" else lex.BE
    return Clause(subject, verb, past=tense == "past", rest=adjective.pair)


def choose_state(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """A clause that says how somebody feels, now or in the past."""
    tense = "past" if tense == "past" else "present"
    subject = subject or choose_subject(rng, choose(rng, ["person", "person", "quadruped"]))
    traits = "person"
    if isinstance(subject, NounPhrase):
        # "The tired man is tired" would say the same twice.
        subject, traits = replace(subject, adjective=None), subject.noun.traits
    adjective = choose(rng, [word for word in lex.STATES if fits(word.traits, traits)])
    return add_time(rng, describe(subject, adjective, tense), tense)


def choose_description(rng: random.Random, tense: Tense) -> Clause:
    """A clause that says what something is like, perhaps negated."""
    subject = choose_noun_phrase(rng, "person animal thing place food drink", "the my your")
    fitting = [word for word in lex.ADJECTIVES if fits(word.traits, subject.noun.traits)]
    adjective = choose(rng, [word for word in fitting if word not in lex.STATES])
    clause = describe(replace(subject, adjective=None), adjective, tense)
    return replace(clause, negated=rng.random() < 0.2)


def choose_weather(rng: random.Random, tense: Tense) -> Clause:
    """A clause such as "it is dark"."""
    return describe(lex.IT, choose(rng, lex.WEATHER), tense)


def choose_tense(rng: random.Random) -> Tense:
    """The present more often than the others."""
    tenses: list[Tense] = ["present", "present", "past", "modal"]
    return choose(rng, tenses)


def perhaps_negate(rng: random.Random, clause: Clause) -> Clause:
    """Negate some clauses, with "kein" if their last object is indefinite."""
    stays_affirmative = rng.random() < 0.6
    # Negating a sentence with one of these leaves open what exactly is denied.
    narrowed = clause.frequency[0] or clause.manner[0] or clause.time[0] == "every day"
    has_object = clause.dative or clause.accusative
    # "Must not" forbids, but "muss nicht" only permits: no clause with "must" is negated.
    if stays_affirmative or narrowed or (has_object and clause.rest[0]) or clause.modal is lex.MUST:
        return clause
    clause = replace(clause, negated=True)
    if isinstance(clause.accusative, NounPhrase) and is_indefinite(clause.accusative):
        return replace(clause, accusative=replace(clause.accusative, negated=True))
    if isinstance(clause.dative, NounPhrase) and is_indefinite(clause.dative):
        return replace(clause, dative=replace(clause.dative, negated=True))
    return clause


def choose_affirmative(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """An action or, less often, a state."""
    return choose(rng, [choose_action] * 5 + [choose_state])(rng, tense, subject)


def choose_clause(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """A clause of any kind, perhaps negated."""
    return perhaps_negate(rng, choose_affirmative(rng, tense, subject))


def choose_next(rng: random.Random, first: Clause, tense: Tense) -> Clause:
    """A clause to stand after the first one, mostly about the same people."""
    subject = first.subject
    if isinstance(subject, NounPhrase):
        by_gender = {"m": lex.HE, "f": lex.SHE} if "person" in subject.noun.traits else {}
        known = lex.THEY if subject.plural and by_gender else by_gender.get(subject.noun.gender)
    else:
        known = subject if subject is not lex.IT else None
    clause = choose_clause(rng, tense, known if rng.random() < 0.8 else None)
    return replace(clause, time=("", ""))  # one time in a sentence is enough


# ---------------------------------------------------------------- sentences


@dataclass(frozen=True)
class Sentence:
    """A sentence in both languages, and the clauses that it is made of."""

    english: str
    german: str
    clauses: tuple[Clause, ...]

    def marked(self, mark: str) -> "Sentence":
        """With its capital letter and its punctuation mark."""
        english = self.english[0].upper() + self.english[1:] + mark
        german = self.german[0].upper() + self.german[1:] + mark
        return replace(self, english=english, german=german)


def statement(rng: random.Random) -> Sentence:
    """One main clause; a time may be moved to the front."""
    tense = choose_tense(rng)
    describes = rng.random() < 0.15
    clause = choose_description(rng, tense) if describes else choose_clause(rng, tense)
    if clause.time[0] and rng.random() < 0.6:
        clause = replace(clause, front=clause.time, time=("", ""))
    return Sentence(say_english(clause), say_german(clause, "verb second"), (clause,)).marked(".")


def choose_question(rng: random.Random) -> Clause:
    """What a question may be about; about themselves people ask "Can I", not "Do I"."""
    while True:
        clause = choose_affirmative(rng, choose_tense(rng))
        if clause.modal not in (None, lex.WANT) or clause.subject not in lex.FIRST_PERSON:
            return clause


def yes_no_question(rng: random.Random) -> Sentence:
    """A question that begins with the verb."""
    clause = choose_question(rng)
    english, german = say_english(clause, question=True), say_german(clause, "verb first")
    return Sentence(english, german, (clause,)).marked("?")


def wh_question(rng: random.Random) -> Sentence:
    """A question for an object, a place, a time, a reason or the subject."""
    clause = choose_question(rng)
    if clause.verb.subject == "person" and clause.verb in lex.VERBS and rng.random() < 0.2:
        clause = replace(clause, subject=lex.WHO)
        english, german = say_english(clause), say_german(clause, "verb second")
        return Sentence(english, german, (clause,)).marked("?")
    fronts = [("why", "warum")]
    if asked := clause.accusative:
        is_person = isinstance(asked, Pronoun) or "person" in asked.noun.traits
        fronts = [("who", "wen") if is_person else ("what", "was")]
        clause = replace(clause, accusative=None)
    elif clause.dative:
        fronts = [("who", "wem")]
        clause = replace(clause, dative=None)
    elif clause.verb is lex.GO:
        fronts = [("where", "wohin")]
        clause = replace(clause, rest=("", ""))
    elif clause.verb.place == "location" and not clause.rest[0]:
        fronts.append(("where", "wo"))
    elif not clause.verb.stative and not clause.frequency[0] and not clause.time[0]:
        fronts.append(("when", "wann"))
    clause = replace(clause, front=choose(rng, fronts))
    english, german = say_english(clause, question=True), say_german(clause, "verb second")
    return Sentence(english, german, (clause,)).marked("?")


def reason_or_contrast(rng: random.Random) -> Sentence:
    """A main clause with a subordinate one behind it."""
    tense = choose_tense(rng)
    first = choose_clause(rng, tense)
    later: Tense = "past" if tense == "past" else "present"
    second = choose_weather(rng, later) if rng.random() < 0.2 else choose_next(rng, first, later)
    conjunctions = [("because", "weil"), ("because", "weil"), ("although", "obwohl")]
    if tense != "past":
        conjunctions += [("when", "wenn"), ("if", "wenn")]
    english, german = choose(rng, conjunctions)
    english = join(say_english(first), english, say_english(second))
    german = f"{say_german(first, 'verb second')}, {german} {say_german(second, 'verb last')}"
    return Sentence(english, german, (first, second)).marked(".")


def condition(rng: random.Random) -> Sentence:
    """A subordinate clause first; the main clause then begins with its verb in German."""
    weather = rng.random() < 0.3
    first = choose_weather(rng, "present") if weather else choose_clause(rng, "present")
    tenses: list[Tense] = ["present", "modal"]
    second = choose_next(rng, first, choose(rng, tenses))
    english, german = choose(rng, [("when", "wenn"), ("if", "wenn"), ("because", "weil")])
    english = f"{english} {say_english(first)}, {say_english(second)}"
    german = f"{german} {say_german(first, 'verb last')}, {say_german(second, 'verb first')}"
    return Sentence(english, german, (first, second)).marked(".")


def opinion(rng: random.Random) -> Sentence:
    """What someone knows, thinks or says, perhaps as a question."""
    subject, verb = choose_subject(rng, "person"), choose(rng, lex.OPINIONS)
    question = subject not in lex.FIRST_PERSON and rng.random() < 0.3
    negated = verb is lex.THINK and not question and rng.random() < 0.4
    first = Clause(subject, verb, negated=negated)
    tense = choose_tense(rng)
    describes = rng.random() < 0.25
    second = choose_description(rng, tense) if describes else choose_clause(rng, tense)
    english = join(say_english(first, question), "that", say_english(second))
    order: Order = "verb first" if question else "verb second"
    german = f"{say_german(first, order)}, dass {say_german(second, 'verb last')}"
    return Sentence(english, german, (first, second)).marked("?" if question else ".")


def coordination(rng: random.Random) -> Sentence:
    """Two main clauses with "and" or "but"."""
    tense = choose_tense(rng)
    first = choose_clause(rng, tense)
    second = choose_next(rng, first, tense)
    english, german = choose(rng, [(" and ", " und "), (", but ", ", aber ")])
    english = say_english(first) + english + say_english(second)
    german = say_german(first, "verb second") + german + say_german(second, "verb second")
    return Sentence(english, german, (first, second)).marked(".")


TEMPLATES = (
    *[statement] * 8, *[yes_no_question] * 3, *[wh_question] * 3, *[reason_or_contrast] * 4,
    *[condition] * 3, *[opinion] * 3, *[coordination] * 2,
)  # fmt: skip

# ---------------------------------------------------------------- splits and files


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


def collect(rng: random.Random, ordinary_size: int, unseen_size: int) -> tuple[list[Pair], ...]:
    """Two lists of pairs, without and with held-out combinations; no sentence occurs twice."""
    held_out = {*lex.HELD_OUT_SUBJECT_OBJECT, *lex.HELD_OUT_VERB_ADVERB}
    bases, nouns = base_forms(), {noun.english for noun in lex.NOUNS}
    ordinary: list[Pair] = []
    unseen: list[Pair] = []
    seen: set[str] = set()
    while len(ordinary) < ordinary_size or len(unseen) < unseen_size:
        sentence = choose(rng, TEMPLATES)(rng)
        words = words_of(sentence.english.lower())
        used = [bases[word] for word in words if word in bases]
        used_nouns = [word for word in used if word in nouns]
        repeats = len(set(used_nouns)) < len(used_nouns)
        if repeats or not SHORTEST <= len(words) <= LONGEST:
            continue
        if any(clause.combinations() & held_out for clause in sentence.clauses):
            pairs, size = unseen, unseen_size
        elif any({*pair} <= {*used} for pair in held_out):
            # The two words meet without being combined. Training must not see even that.
            continue
        else:
            pairs, size = ordinary, ordinary_size
        if len(pairs) < size and not seen & {sentence.english, sentence.german}:
            pairs.append((sentence.english, sentence.german))
            seen |= {sentence.english, sentence.german}
    return ordinary, unseen


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
    write_corpus(make_corpus(random.Random(SEED), SPLIT_SIZES), parser.parse_args().out)


if __name__ == "__main__":
    main()
