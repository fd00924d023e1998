"""Choosing what to say: words that fit together, until they make a clause.

Of the generator of random numbers only random() is used: its values are the same on every
version of Python.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import Literal, TypeVar

import lexicon as lex
from clause import Clause
from inflection import Nominal, Noun, NounPhrase, Pair, Pronoun, Verb, Word, join

Tense = Literal["present", "past", "modal"]
T = TypeVar("T")
Traited = TypeVar("Traited", Noun, Word)


def choose(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options, each equally likely."""
    return options[int(rng.random() * len(options))]


@cache
def fits(traits: str, wanted: str) -> bool:
    """Whether two lists of traits have one in common."""
    return not set(traits.split()).isdisjoint(wanted.split())


def fitting(words: Iterable[Traited], wanted: str) -> list[Traited]:
    """The words that have one of the traits."""
    return [word for word in words if fits(word.traits, wanted)]


# ---------------------------------------------------------------- subjects, objects, places


def choose_noun_phrase(rng: random.Random, traits: str, determiners: str) -> NounPhrase:
    """A noun phrase whose noun has one of the traits, with one of the determiners."""
    noun = choose(rng, fitting(lex.NOUNS, traits))
    plural = bool(noun.english_plural) and "place" not in noun.traits and rng.random() < 0.3
    determiner = choose(rng, determiners.split())
    if plural and "person" in noun.traits:
        determiner = "the"
    elif determiner == "a" and (plural or not noun.english_plural):
        determiner = ""
    elif determiner in ("my", "your") and "unowned" in noun.traits:
        determiner = "the"
    adjectives = fitting(lex.ADJECTIVES, noun.traits)
    adjective = choose(rng, adjectives) if adjectives and rng.random() < 0.35 else None
    return NounPhrase(noun, determiner, plural, adjective)


def choose_subject(rng: random.Random, traits: str) -> Nominal:
    """A pronoun or a noun phrase."""
    if "person" in traits and rng.random() < 0.4:
        return choose(rng, lex.PERSONAL)
    phrase = choose_noun_phrase(rng, traits, "the the the a my your")
    return phrase if phrase.determiner else replace(phrase, determiner="the")


def choose_object(rng: random.Random, traits: str, subject: Nominal, may_be_indefinite: bool) -> Nominal | None:
    """An object with one of the traits, if any; a pronoun stands for people only."""
    if not traits:
        return None
    if "person" in traits and rng.random() < 0.3:
        excluded = lex.FIRST_PERSON if subject in lex.FIRST_PERSON else (subject,)
        return choose(rng, [word for word in lex.PERSONAL if word not in excluded])
    return choose_noun_phrase(rng, traits, "the the a a my your" if may_be_indefinite else "the my your")


def choose_rest(rng: random.Random, verb: Verb) -> Pair:
    """A partner ("with the dog"), a place or nothing."""
    kind = choose(rng, [verb.partner, verb.place, verb.place, ""])
    if verb is lex.GO:  # nobody just goes
        kind = verb.place
    if not kind:
        return "", ""
    english, german, case, traits = choose(rng, lex.PREPOSITIONS[kind])
    phrase = choose_noun_phrase(rng, traits, "the the the a my")
    words = join(german, phrase.german(case))
    for full, contracted in lex.CONTRACTIONS.items():
        words = words.replace(f"{full} ", f"{contracted} ")
    return join(english, phrase.english(case)), words


# ---------------------------------------------------------------- actions


def choose_tense(rng: random.Random) -> Tense:
    """The present more often than the others."""
    tenses: list[Tense] = ["present", "present", "past", "modal"]
    return choose(rng, tenses)


def choose_action(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """A clause with a full verb, not negated; a given subject is a person."""
    verbs = list(lex.VERBS)
    if tense == "past":
        verbs = [verb for verb in verbs if verb.perfect]
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
    beside_indefinite = isinstance(clause.accusative, NounPhrase) and clause.accusative.indefinite
    if verb.manner and not beside_indefinite and rng.random() < 0.4:
        manner = choose(rng, [word for word in lex.MANNERS if word.english in verb.manner.split()])
        clause = replace(clause, manner=manner.pair)
    return add_time(rng, clause, tense)


def add_time(rng: random.Random, clause: Clause, tense: Tense) -> Clause:
    """The clause with an adverb of time or of frequency, or as it was."""
    field = choose(rng, ["time", "time", "frequency", "", "", ""])
    if not field:
        return clause
    wanted = "state" if tense == "present" and clause.verb.stative else tense
    adverbs = fitting(lex.TIMES if field == "time" else lex.FREQUENCIES, wanted)
    pair = choose(rng, adverbs).pair if adverbs else ("", "")
    return replace(clause, time=pair) if field == "time" else replace(clause, frequency=pair)


# ---------------------------------------------------------------- states and descriptions


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
    adjective = choose(rng, fitting(lex.STATES, traits))
    return add_time(rng, describe(subject, adjective, tense), tense)


def choose_description(rng: random.Random, tense: Tense) -> Clause:
    """A clause that says what something is like, perhaps negated."""
    subject = choose_noun_phrase(rng, "person animal thing place food drink", "the my your")
    adjectives = fitting(lex.ADJECTIVES, subject.noun.traits)
    adjective = choose(rng, [word for word in adjectives if word not in lex.STATES])
    clause = describe(replace(subject, adjective=None), adjective, tense)
    return replace(clause, negated=rng.random() < 0.2)


def choose_weather(rng: random.Random, tense: Tense) -> Clause:
    """A clause such as "it is dark"."""
    return describe(lex.IT, choose(rng, lex.WEATHER), tense)


# ---------------------------------------------------------------- clauses of any kind


def choose_affirmative(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """An action or, less often, a state."""
    return choose(rng, [choose_action] * 5 + [choose_state])(rng, tense, subject)


def choose_clause(rng: random.Random, tense: Tense, subject: Nominal | None = None) -> Clause:
    """A clause of any kind, perhaps negated."""
    clause = choose_affirmative(rng, tense, subject)
    stays_affirmative = rng.random() < 0.6
    # Negating a sentence with one of these leaves open what exactly is denied.
    narrowed = clause.frequency[0] or clause.manner[0] or clause.time[0] == "every day"
    crowded = (clause.dative or clause.accusative) and clause.rest[0]
    # "Must not" forbids, but "muss nicht" only permits: no clause with "must" is negated.
    if stays_affirmative or narrowed or crowded or clause.modal is lex.MUST:
        return clause
    return replace(clause, negated=True)


def choose_next(rng: random.Random, first: Clause, tense: Tense) -> Clause:
    """A clause to stand after the first one, mostly about the same people."""
    same = pronoun_for(first.subject)
    clause = choose_clause(rng, tense, same if rng.random() < 0.8 else None)
    return replace(clause, time=("", ""))  # one time in a sentence is enough


def pronoun_for(subject: Nominal) -> Pronoun | None:
    """The pronoun that takes a person up again, unless the two languages disagree about it."""
    if isinstance(subject, Pronoun):
        return None if subject is lex.IT else subject
    if "person" not in subject.noun.traits:
        return None
    return lex.THEY if subject.plural else {"m": lex.HE, "f": lex.SHE}.get(subject.noun.gender)
