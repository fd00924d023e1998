"""The clause: said in English and in German, each in its own order.

A clause is first built as a structure that belongs to neither language. Nearly everything
that makes its translation worth learning happens here: where the verb goes, how many words
it takes, what stands between its parts, and where the negation is.
"""

from dataclasses import dataclass
from typing import Literal

import lexicon as lex
from inflection import PLURAL, THIRD, Nominal, NounPhrase, Pair, Pronoun, Verb, join

Order = Literal["verb first", "verb second", "verb last"]


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
    rest: Pair = ("", "")  # predicate adjective, partner or place

    @property
    def noun_objects(self) -> list[NounPhrase]:
        """The objects that are not pronouns, in German order."""
        return [o for o in (self.dative, self.accusative) if isinstance(o, NounPhrase)]

    def combinations(self) -> set[Pair]:
        """The subject-object and verb-adverb pairs of this clause, in English base forms."""
        pairs = {(self.verb.english_forms.split()[0], self.manner[0])}
        if isinstance(self.subject, NounPhrase):
            pairs |= {(self.subject.noun.english, o.noun.english) for o in self.noun_objects}
        return pairs


# ---------------------------------------------------------------- English


def say_english(clause: Clause, question: bool = False) -> str:
    """The clause in English words."""
    auxiliary, main = english_verb(clause, do_support=question or clause.negated)
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


def english_verb(clause: Clause, do_support: bool) -> Pair:
    """The part that inverts in questions and precedes "not" (perhaps none), and the rest."""
    verb, person = clause.verb, clause.subject.person
    forms, infinitive = verb.english_forms.split(), ""
    if verb in (lex.BE, lex.BE_PAST):
        return forms[person], ""
    if clause.modal is lex.WANT:  # the one that is a full verb in English
        forms, infinitive = lex.WANT.english_forms.split(), f"to {forms[0]}"
    elif clause.modal:
        return clause.modal.english_forms, forms[0]
    third = person == THIRD
    if do_support:
        return "did" if clause.past else "does" if third else "do", join(forms[0], infinitive)
    return "", join(forms[2] if clause.past else forms[third], infinitive)


# ---------------------------------------------------------------- German


def say_german(clause: Clause, order: Order) -> str:
    """The clause in German words."""
    finite, closing = german_verb(clause)
    subject, middle = clause.subject.german("nominative"), german_middle(clause)
    if order == "verb last":
        # A prefix is written together with the verb that it meets at the end: "anruft".
        end = closing + finite if closing == clause.verb.prefix else join(closing, finite)
        return join(subject, middle, end)
    if order == "verb first" or clause.front[1]:
        return join(clause.front[1], finite, subject, middle, closing)
    return join(subject, finite, middle, closing)


def german_verb(clause: Clause) -> Pair:
    """The finite verb and what closes the clause: prefix, participle or infinitive."""
    verb, person = clause.verb, clause.subject.person
    forms = verb.german_forms.split()
    if clause.modal:
        return clause.modal.german_forms.split()[person], verb.prefix + forms[PLURAL]
    if clause.past and verb.perfect:
        auxiliary, participle = verb.perfect.split()
        return lex.PERFECT_AUXILIARIES[auxiliary].split()[person], participle
    return forms[person], verb.prefix


def german_middle(clause: Clause) -> str:
    """What stands between the subject or the finite verb and the end of the clause."""
    pronouns, nouns = "", ""
    if isinstance(clause.dative, Pronoun):
        pronouns = clause.dative.german("dative")
    elif clause.dative:
        nouns = clause.dative.german("dative", clause.negated)
    if isinstance(clause.accusative, Pronoun):
        pronouns = clause.accusative.german("accusative")
    elif clause.accusative:
        nouns = join(nouns, clause.accusative.german("accusative", clause.negated))
    when = join(clause.time[1], clause.frequency[1])
    if clause.negated and not any(phrase.indefinite for phrase in clause.noun_objects):
        middle = join(pronouns, nouns, when, "nicht")
    else:  # affirmed, or "kein" negates already
        middle = join(pronouns, when, nouns)
    return join(middle, clause.manner[1], clause.rest[1])
