"""The kinds of words and how they inflect, up to the noun phrase.

German nouns, articles and adjectives agree in gender, number and case; English tells apart
hardly more than one from many, and "he" from "him". Here is what a word knows about itself.
The words are in lexicon.py.
"""

from dataclasses import dataclass
from typing import Literal

Case = Literal["nominative", "accusative", "dative"]
Pair = tuple[str, str]  # the same in English and in German
Table = dict[tuple[Case, str], str]

CASES: tuple[Case, ...] = ("nominative", "accusative", "dative")
COLUMNS = ("m", "f", "n", "plural")
# Grammatical person, as an index into the present-tense forms of a German verb.
FIRST, SECOND, THIRD, PLURAL = range(4)

# ---------------------------------------------------------------- endings


def table(*rows: str) -> Table:
    """Read an inflection table: a row per case, a column per gender; "-" is no ending."""
    return {
        (case, column): cell.strip("-")
        for case, row in zip(CASES, rows, strict=True)
        for column, cell in zip(COLUMNS, row.split(), strict=True)
    }


DEFINITE_ARTICLE = table("der die das die", "den die das die", "dem der dem den")
EIN_WORD = table("- e - e", "en e - e", "em er em en")
# The less the determiner tells about gender and case, the more the adjective does.
AFTER_DEFINITE = table("e e e en", "en e e en", "en en en en")
AFTER_EIN_WORD = table("er e es en", "en e es en", "en en en en")
WITHOUT_DETERMINER = table("er e es e", "en e es e", "em er em en")
EIN_WORDS = {"a": "ein", "my": "mein", "your": "dein"}

# ---------------------------------------------------------------- words


@dataclass(frozen=True)
class Word:
    """A word of one form per language; the traits say what it goes with."""

    english: str
    german: str
    traits: str = ""

    @property
    def pair(self) -> Pair:
        """The word in both languages."""
        return self.english, self.german


@dataclass(frozen=True)
class Verb:
    """A verb, its forms, and the traits of the words it takes."""

    english_forms: str  # base, third person, past
    german_forms: str  # with ich, du, er, wir
    perfect: str = ""  # auxiliary and participle; without them the verb has no past here
    prefix: str = ""  # separable: "ruft ... an"
    particle: str = ""  # after the object: "calls ... up"
    preposition: str = ""  # before the object: "looks for ..."
    subject: str = "person"
    dative: str = ""
    accusative: str = ""
    partner: str = ""
    place: str = ""
    manner: str = ""
    stative: bool = False  # without modal verb and adverbs


@dataclass(frozen=True)
class Noun:
    """A noun; a mass noun such as "milk" has no plural."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: str
    traits: str
    weak: bool = False  # n-declension: der Junge, but den Jungen and dem Jungen

    def inflect(self, case: Case, plural: bool) -> str:
        """The German form for a case and number."""
        if plural:
            needs_n = case == "dative" and self.german_plural[-1] not in "ns"
            return self.german_plural + ("n" if needs_n else "")
        # Both weak nouns used here form the oblique singular like the plural.
        return self.german_plural if self.weak and case != "nominative" else self.german


# ---------------------------------------------------------------- what can be subject or object


@dataclass(frozen=True)
class Pronoun:
    """A pronoun with its English subject and object forms and its German case forms."""

    english_forms: str
    german_forms: str
    person: int

    def english(self, case: Case) -> str:
        """The English form, which tells only subject and object apart."""
        return self.english_forms.split()[case != "nominative"]

    def german(self, case: Case) -> str:
        """The German form in the given case."""
        return self.german_forms.split()[CASES.index(case)]


@dataclass(frozen=True)
class NounPhrase:
    """A determiner, perhaps an adjective, and a noun; "books" and "milk" need no determiner."""

    noun: Noun
    determiner: str
    plural: bool = False
    adjective: Word | None = None

    @property
    def person(self) -> int:
        """What the verb agrees with."""
        return PLURAL if self.plural else THIRD

    @property
    def indefinite(self) -> bool:
        """Whether German negates this phrase itself, with "kein"."""
        return self.determiner in ("a", "")

    def english(self, case: Case) -> str:
        """The English phrase, the same in every case."""
        noun = self.noun.english_plural if self.plural else self.noun.english
        words = join(self.adjective.english if self.adjective else "", noun)
        return join("an" if self.determiner == "a" and words[0] in "aeiou" else self.determiner, words)

    def german(self, case: Case, negated: bool = False) -> str:
        """The German phrase in the given case; in a negated clause an indefinite one has "kein"."""
        cell: tuple[Case, str] = (case, "plural" if self.plural else self.noun.gender)
        if self.determiner == "the":
            determiner, endings = DEFINITE_ARTICLE[cell], AFTER_DEFINITE
        elif self.determiner or negated:
            stem = "kein" if negated and self.indefinite else EIN_WORDS[self.determiner]
            determiner, endings = stem + EIN_WORD[cell], AFTER_EIN_WORD
        else:
            determiner, endings = "", WITHOUT_DETERMINER
        # "müde" has its final -e only where no ending follows.
        adjective = self.adjective.german.rstrip("e") + endings[cell] if self.adjective else ""
        return join(determiner, adjective, self.noun.inflect(case, self.plural))


Nominal = NounPhrase | Pronoun


def join(*words: str) -> str:
    """Put words together, leaving out the empty ones."""
    return " ".join(word for word in words if word)
