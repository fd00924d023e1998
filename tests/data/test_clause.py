"""The grammar: clauses in correct German, and in the order that German demands."""

from typing import Any

import lexicon as lex
import pytest
from clause import Clause, say_english, say_german
from inflection import Nominal, NounPhrase


def phrase(words: str, plural: bool = False) -> NounPhrase:
    """A noun phrase such as "the old man", from English base forms."""
    *before, english = words.split()
    noun = next(noun for noun in lex.NOUNS if noun.english == english)
    determiner = before.pop(0) if before and before[0] in ("the", "a", "my", "your") else ""
    adjective = next((word for word in lex.ADJECTIVES if word.english in before), None)
    return NounPhrase(noun, determiner, plural, adjective)


def clause(subject: Nominal | str, base: str, **parts: Any) -> Clause:
    verb = next(verb for verb in lex.VERBS if verb.english_forms.split()[0] == base)
    subject = phrase(subject) if isinstance(subject, str) else subject
    return Clause(subject, verb, **parts)


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
     clause("the man", "buy", accusative=phrase("a car"), negated=True)),
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
     Clause(phrase("the cat"), lex.BE_PAST, past=True, rest=("tired", "müde"))),
]  # fmt: skip


@pytest.mark.parametrize(("english", "german", "meaning"), MAIN_CLAUSES)
def test_main_clauses(english: str, german: str, meaning: Clause) -> None:
    assert say_english(meaning) == english
    assert say_german(meaning, "verb second") == german


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
def test_questions(english: str, german: str, meaning: Clause) -> None:
    assert say_english(meaning, question=True) == english
    assert say_german(meaning, "verb first") == german


SUBORDINATE_CLAUSES = [
    ("der Mann den Hund nicht sieht",
     clause("the man", "see", negated=True, accusative=phrase("the dog"))),
    ("er den Freund anruft", clause(lex.HE, "call", accusative=phrase("the friend"))),
    ("wir den Pferden gefolgt sind",
     clause(US, "follow", past=True, dative=phrase("the horse", plural=True))),
    ("ich oft aufstehen will", clause(ME, "get", modal=lex.WANT, frequency=("often", "oft"))),
]  # fmt: skip


@pytest.mark.parametrize(("german", "meaning"), SUBORDINATE_CLAUSES)
def test_subordinate_clauses_end_with_the_verb(german: str, meaning: Clause) -> None:
    assert say_german(meaning, "verb last") == german
