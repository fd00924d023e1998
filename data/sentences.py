"""The kinds of sentence: one clause or two, put together in both languages."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import lexicon as lex
from choices import (
    Tense,
    choose,
    choose_affirmative,
    choose_clause,
    choose_description,
    choose_next,
    choose_subject,
    choose_tense,
    choose_weather,
)
from clause import Clause, Order, say_english, say_german
from inflection import Pronoun, join


@dataclass(frozen=True)
class Sentence:
    """A sentence in both languages, and the clauses that it is made of."""

    english: str
    german: str
    clauses: tuple[Clause, ...]


def punctuate(english: str, german: str, mark: str, *clauses: Clause) -> Sentence:
    """Give the words their capital letter and their punctuation mark."""
    return Sentence(english[0].upper() + english[1:] + mark, german[0].upper() + german[1:] + mark, clauses)


# ---------------------------------------------------------------- one clause


def statement(rng: random.Random) -> Sentence:
    """One main clause; a time may be moved to the front."""
    tense = choose_tense(rng)
    describes = rng.random() < 0.15
    clause = choose_description(rng, tense) if describes else choose_clause(rng, tense)
    if clause.time[0] and rng.random() < 0.6:
        clause = replace(clause, front=clause.time, time=("", ""))
    return punctuate(say_english(clause), say_german(clause, "verb second"), ".", clause)


def choose_question(rng: random.Random) -> Clause:
    """What a question may be about; about themselves people ask "Can I", not "Do I"."""
    while True:
        clause = choose_affirmative(rng, choose_tense(rng))
        if clause.modal not in (None, lex.WANT) or clause.subject not in lex.FIRST_PERSON:
            return clause


def yes_no_question(rng: random.Random) -> Sentence:
    """A question that begins with the verb."""
    clause = choose_question(rng)
    return punctuate(say_english(clause, question=True), say_german(clause, "verb first"), "?", clause)


def wh_question(rng: random.Random) -> Sentence:
    """A question for the subject or for something else; only the latter inverts English."""
    clause = choose_question(rng)
    asks_who = clause.verb.subject == "person" and clause.verb in lex.VERBS and rng.random() < 0.2
    clause = replace(clause, subject=lex.WHO) if asks_who else ask_for_more(rng, clause)
    return punctuate(say_english(clause, question=not asks_who), say_german(clause, "verb second"), "?", clause)


def ask_for_more(rng: random.Random, clause: Clause) -> Clause:
    """The clause with a question word in front, in place of what it asks for."""
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
    else:
        fronts = [("why", "warum")]
        if clause.verb.place == "location" and not clause.rest[0]:
            fronts.append(("where", "wo"))
        elif not clause.verb.stative and not clause.frequency[0] and not clause.time[0]:
            fronts.append(("when", "wann"))
    return replace(clause, front=choose(rng, fronts))


# ---------------------------------------------------------------- two clauses


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
    return punctuate(english, german, ".", first, second)


def condition(rng: random.Random) -> Sentence:
    """A subordinate clause first; the main clause then begins with its verb in German."""
    weather = rng.random() < 0.3
    first = choose_weather(rng, "present") if weather else choose_clause(rng, "present")
    tenses: list[Tense] = ["present", "modal"]
    second = choose_next(rng, first, choose(rng, tenses))
    english, german = choose(rng, [("when", "wenn"), ("if", "wenn"), ("because", "weil")])
    english = f"{english} {say_english(first)}, {say_english(second)}"
    german = f"{german} {say_german(first, 'verb last')}, {say_german(second, 'verb first')}"
    return punctuate(english, german, ".", first, second)


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
    return punctuate(english, german, "?" if question else ".", first, second)


def coordination(rng: random.Random) -> Sentence:
    """Two main clauses with "and" or "but"."""
    tense = choose_tense(rng)
    first = choose_clause(rng, tense)
    second = choose_next(rng, first, tense)
    english, german = choose(rng, [(" and ", " und "), (", but ", ", aber ")])
    english = say_english(first) + english + say_english(second)
    german = say_german(first, "verb second") + german + say_german(second, "verb second")
    return punctuate(english, german, ".", first, second)


TEMPLATES: tuple[Callable[[random.Random], Sentence], ...] = (
    *[statement] * 8,
    *[yes_no_question] * 3,
    *[wh_question] * 3,
    *[reason_or_contrast] * 4,
    *[condition] * 3,
    *[opinion] * 3,
    *[coordination] * 2,
)


def choose_sentence(rng: random.Random) -> Sentence:
    """A sentence of any kind."""
    return choose(rng, TEMPLATES)(rng)
