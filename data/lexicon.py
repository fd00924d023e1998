"""The words of the toy corpus, English with German, and how they inflect in a noun phrase.

Every word has exactly one translation. Where English has one form and German several, the
grammar decides: "the" becomes der, die, das, den or dem by gender, number and case, and
"know" is "kennen" with an object but "wissen" before "that".

Traits such as "person" or "portable" say which words may stand together; they keep the
sentences plausible and have no other meaning.
"""

# fmt: off
from dataclasses import dataclass
from typing import Literal

Case = Literal["nominative", "accusative", "dative"]
Tense = Literal["present", "past", "modal"]
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

# ---------------------------------------------------------------- kinds of words


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


@dataclass(frozen=True)
class Verb:
    """A verb, its forms, and the traits of the words it takes."""

    english_forms: str  # base, third person, past (none where it would be ambiguous)
    german_forms: str  # with ich, du, er, wir
    perfect: str = ""  # auxiliary and participle
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
    """A determiner, perhaps an adjective, and a noun; "books" and "milk" need no determiner.

    A negated phrase has "kein" in German; English negates the verb instead.
    """

    noun: Noun
    determiner: str
    plural: bool = False
    adjective: Word | None = None
    negated: bool = False

    @property
    def person(self) -> int:
        """What the verb agrees with."""
        return PLURAL if self.plural else THIRD

    def english(self, case: Case) -> str:
        """The English phrase, the same in every case."""
        adjective = self.adjective.english + " " if self.adjective else ""
        words = adjective + (self.noun.english_plural if self.plural else self.noun.english)
        determiner = "an" if self.determiner == "a" and words[0] in "aeiou" else self.determiner
        return f"{determiner} {words}" if determiner else words

    def german(self, case: Case) -> str:
        """The German phrase in the given case."""
        cell: tuple[Case, str] = (case, "plural" if self.plural else self.noun.gender)
        if self.determiner == "the":
            determiner, endings = DEFINITE_ARTICLE[cell], AFTER_DEFINITE
        elif self.determiner or self.negated:
            stem = "kein" if self.negated else EIN_WORDS[self.determiner]
            determiner, endings = stem + EIN_WORD[cell], AFTER_EIN_WORD
        else:
            determiner, endings = "", WITHOUT_DETERMINER
        words = [determiner] if determiner else []
        if self.adjective:
            # "müde" has its final -e only where no ending follows.
            words.append(self.adjective.german.rstrip("e") + endings[cell])
        return " ".join([*words, self.noun.inflect(case, self.plural)])


Nominal = NounPhrase | Pronoun

# ---------------------------------------------------------------- pronouns and nouns

HE, SHE = Pronoun("he him", "er ihn ihm", THIRD), Pronoun("she her", "sie sie ihr", THIRD)
THEY = Pronoun("they them", "sie sie ihnen", PLURAL)
FIRST_PERSON = (Pronoun("I me", "ich mich mir", FIRST), Pronoun("we us", "wir uns uns", PLURAL))
YOU = Pronoun("you you", "du dich dir", SECOND)
# Twice "I" and "you", since German verbs have forms that go with them alone.
PERSONAL = (FIRST_PERSON[0], *FIRST_PERSON, YOU, YOU, HE, SHE, THEY)
IT, WHO = Pronoun("it it", "es es ihm", THIRD), Pronoun("who who", "wer wen wem", THIRD)

NOUNS = (
    Noun("man", "men", "Mann", "Männer", "m", "person adult unowned"),
    Noun("woman", "women", "Frau", "Frauen", "f", "person adult unowned"),
    Noun("child", "children", "Kind", "Kinder", "n", "person unowned"),
    Noun("boy", "boys", "Junge", "Jungen", "m", "person unowned", weak=True),
    Noun("girl", "girls", "Mädchen", "Mädchen", "n", "person unowned"),
    Noun("teacher", "teachers", "Lehrer", "Lehrer", "m", "person adult"),
    Noun("doctor", "doctors", "Arzt", "Ärzte", "m", "person adult"),
    Noun("neighbour", "neighbours", "Nachbar", "Nachbarn", "m", "person adult", weak=True),
    Noun("friend", "friends", "Freund", "Freunde", "m", "person adult"),
    Noun("mother", "mothers", "Mutter", "Mütter", "f", "person adult"),
    Noun("father", "fathers", "Vater", "Väter", "m", "person adult"),
    Noun("sister", "sisters", "Schwester", "Schwestern", "f", "person"),
    Noun("dog", "dogs", "Hund", "Hunde", "m", "animal quadruped"),
    Noun("cat", "cats", "Katze", "Katzen", "f", "animal quadruped"),
    Noun("horse", "horses", "Pferd", "Pferde", "n", "animal quadruped"),
    Noun("bird", "birds", "Vogel", "Vögel", "m", "animal bird"),
    Noun("apple", "apples", "Apfel", "Äpfel", "m", "food portable goods red"),
    Noun("cake", "cakes", "Kuchen", "Kuchen", "m", "food portable goods"),
    Noun("coffee", "", "Kaffee", "", "m", "drink goods"),
    Noun("milk", "", "Milch", "", "f", "drink goods"),
    Noun("water", "", "Wasser", "", "n", "drink"),
    Noun("book", "books", "Buch", "Bücher", "n", "thing portable readable goods"),
    Noun("letter", "letters", "Brief", "Briefe", "m", "thing portable readable"),
    Noun("newspaper", "newspapers", "Zeitung", "Zeitungen", "f", "thing portable readable goods"),
    Noun("picture", "pictures", "Bild", "Bilder", "n", "thing portable goods"),
    Noun("car", "cars", "Auto", "Autos", "n", "thing car goods red"),
    Noun("lamp", "lamps", "Lampe", "Lampen", "f", "thing portable goods red"),
    Noun("bag", "bags", "Tasche", "Taschen", "f", "thing portable goods red openable"),
    Noun("flower", "flowers", "Blume", "Blumen", "f", "portable goods red beautiful"),
    Noun("key", "keys", "Schlüssel", "Schlüssel", "m", "thing portable"),
    Noun("door", "doors", "Tür", "Türen", "f", "thing openable red"),
    Noun("garden", "gardens", "Garten", "Gärten", "m", "place beautiful room"),
    Noun("kitchen", "kitchens", "Küche", "Küchen", "f", "place room"),
    Noun("park", "parks", "Park", "Parks", "m", "place beautiful room unowned"),
    Noun("city", "cities", "Stadt", "Städte", "f", "place beautiful room unowned"),
    Noun("house", "houses", "Haus", "Häuser", "n", "place beautiful room building"),
    Noun("school", "schools", "Schule", "Schulen", "f", "place building goal unowned"),
    Noun("station", "stations", "Bahnhof", "Bahnhöfe", "m", "place building goal unowned"),
)

# ---------------------------------------------------------------- adjectives and adverbs

STATES = (
    Word("tired", "müde", "person quadruped"), Word("ill", "krank", "person quadruped"),
    Word("happy", "glücklich", "person"),
)
ADJECTIVES = (
    *STATES,
    Word("old", "alt", "adult animal thing place"), Word("young", "jung", "adult quadruped"),
    Word("new", "neu", "thing building"), Word("big", "groß", "quadruped food thing place"),
    Word("small", "klein", "animal food thing place"), Word("red", "rot", "red"),
    Word("beautiful", "schön", "beautiful bird readable"), Word("fresh", "frisch", "food"),
    Word("cold", "kalt", "drink"), Word("friendly", "freundlich", "person"),
)
WEATHER = (Word("cold", "kalt"), Word("warm", "warm"), Word("dark", "dunkel"), Word("late", "spät"))
# The traits of these adverbs are the tenses they go with; "state" is the present of "be".
TIMES = (
    Word("today", "heute", "present past modal state"), Word("yesterday", "gestern", "past"),
    Word("tomorrow", "morgen", "modal"), Word("every day", "jeden Tag", "present"),
    Word("in the evening", "am Abend", "present past modal"),
)
FREQUENCIES = (
    Word("often", "oft", "present past state"), Word("sometimes", "manchmal", "present past state"),
    Word("always", "immer", "present state"), Word("never", "nie", "present past state"),
)
MANNERS = (
    Word("slowly", "langsam"), Word("quickly", "schnell"), Word("loudly", "laut"),
    Word("quietly", "leise"), Word("carefully", "vorsichtig"), Word("happily", "fröhlich"),
    Word("patiently", "geduldig"),
)
# English and German preposition, the case it governs, the kind of place it goes with.
PREPOSITIONS: dict[str, tuple[tuple[str, str, Case, str], ...]] = {
    "with": (("with", "mit", "dative", ""),),
    "for": (("for", "für", "accusative", ""),),
    "location": (
        ("in", "in", "dative", "room"), ("behind", "hinter", "dative", "building"),
        ("in front of", "vor", "dative", "building"),
    ),
    "direction": (("into", "in", "accusative", "room"), ("to", "zu", "dative", "goal")),
}
CONTRACTIONS = {"in dem": "im", "in das": "ins", "zu dem": "zum", "zu der": "zur"}

# ---------------------------------------------------------------- verbs

BE = Verb("am are is are", "bin bist ist sind", stative=True)
BE_PAST = Verb("was were was were", "war warst war waren", stative=True)
PERFECT_AUXILIARIES = {"hat": "habe hast hat haben", "ist": "bin bist ist sind"}

GO = Verb("go goes went", "gehe gehst geht gehen", "ist gegangen", place="direction",
          manner="slowly quickly quietly happily")
VERBS = (
    # with an accusative object
    Verb("see sees saw", "sehe siehst sieht sehen", "hat gesehen", subject="person animal",
         accusative="person animal portable car", place="location"),
    Verb("look looks looked", "suche suchst sucht suchen", "hat gesucht", preposition="for",
         accusative="person animal portable", manner="quietly carefully patiently"),
    Verb("buy buys bought", "kaufe kaufst kauft kaufen", "hat gekauft", accusative="goods",
         partner="for"),
    Verb("carry carries carried", "trage trägst trägt tragen", "hat getragen",
         accusative="portable", place="direction", manner="slowly quickly carefully happily"),
    Verb("read reads", "lese liest liest lesen", "hat gelesen", accusative="readable",
         place="location", manner="slowly quickly quietly loudly"),
    Verb("eat eats ate", "esse isst isst essen", "hat gegessen", accusative="food",
         place="location", manner="slowly quickly happily"),
    Verb("drink drinks drank", "trinke trinkst trinkt trinken", "hat getrunken",
         accusative="drink", place="location", manner="slowly quickly carefully"),
    Verb("visit visits visited", "besuche besuchst besucht besuchen", "hat besucht",
         accusative="person"),
    Verb("know knows", "kenne kennst kennt kennen", accusative="person", stative=True),
    Verb("have has", "habe hast hat haben", accusative="animal portable car", stative=True),
    # separable, with an accusative object
    Verb("open opens opened", "mache machst macht machen", "hat aufgemacht", prefix="auf",
         accusative="openable", manner="slowly quickly quietly carefully"),
    Verb("close closes closed", "mache machst macht machen", "hat zugemacht", prefix="zu",
         accusative="openable", manner="slowly quickly quietly carefully loudly"),
    Verb("call calls called", "rufe rufst ruft rufen", "hat angerufen", prefix="an",
         particle="up", accusative="person"),
    Verb("pick picks picked", "hole holst holt holen", "hat abgeholt", prefix="ab", particle="up",
         accusative="person"),
    # with a dative object
    Verb("help helps helped", "helfe hilfst hilft helfen", "hat geholfen", dative="person",
         manner="quickly patiently happily"),
    Verb("thank thanks thanked", "danke dankst dankt danken", "hat gedankt", dative="person"),
    Verb("follow follows followed", "folge folgst folgt folgen", "ist gefolgt",
         subject="person quadruped", dative="person animal", place="direction",
         manner="slowly quickly quietly carefully"),
    Verb("answer answers answered", "antworte antwortest antwortet antworten", "hat geantwortet",
         dative="person", manner="slowly quickly quietly patiently"),
    # with both
    Verb("give gives gave", "gebe gibst gibt geben", "hat gegeben", dative="person",
         accusative="portable"),
    Verb("bring brings brought", "bringe bringst bringt bringen", "hat gebracht", dative="person",
         accusative="portable drink", manner="quickly"),
    # without an object
    Verb("sleep sleeps slept", "schlafe schläfst schläft schlafen", "hat geschlafen",
         subject="person animal", place="location"),
    Verb("work works worked", "arbeite arbeitest arbeitet arbeiten", "hat gearbeitet",
         place="location", partner="with", manner="slowly quickly quietly patiently"),
    Verb("play plays played", "spiele spielst spielt spielen", "hat gespielt",
         subject="person quadruped", place="location", partner="with",
         manner="quietly loudly happily"),
    Verb("sing sings sang", "singe singst singt singen", "hat gesungen", subject="person bird",
         place="location", manner="quietly loudly happily"),
    Verb("laugh laughs laughed", "lache lachst lacht lachen", "hat gelacht",
         manner="quietly loudly happily"),
    # of motion, with sein in the perfect
    GO,
    Verb("come comes came", "komme kommst kommt kommen", "ist gekommen",
         subject="person quadruped", place="direction", partner="with", manner="slowly quickly"),
    Verb("run runs ran", "laufe läufst läuft laufen", "ist gelaufen", subject="person quadruped",
         place="direction", manner="slowly quickly happily"),
    Verb("get gets got", "stehe stehst steht stehen", "ist aufgestanden", prefix="auf",
         particle="up", manner="slowly quickly quietly"),
)
# Verbs that take a that-clause.
THINK = Verb("think thinks", "glaube glaubst glaubt glauben")
OPINIONS = (
    THINK, Verb("know knows", "weiß weißt weiß wissen"), Verb("say says", "sage sagst sagt sagen"),
)
MODALS = WANT, MUST, CAN, SHOULD = (
    Verb("want wants", "will willst will wollen"), Verb("must", "muss musst muss müssen"),
    Verb("can", "kann kannst kann können"), Verb("should", "sollte solltest sollte sollten"),
)

# ---------------------------------------------------------------- combinations held out


def pairs(text: str) -> tuple[Pair, ...]:
    """Read pairs of words such as "man+cat"."""
    return tuple((first, second) for first, second in (pair.split("+") for pair in text.split()))


HELD_OUT_SUBJECT_OBJECT = pairs("""
    man+cat man+letter woman+horse woman+apple child+book child+milk boy+bird boy+bag girl+dog
    girl+newspaper teacher+key teacher+girl doctor+newspaper doctor+woman neighbour+flower
    neighbour+door friend+lamp friend+coffee mother+picture mother+boy father+cake father+bag
    sister+flower sister+child dog+man cat+bird
""")
HELD_OUT_VERB_ADVERB = pairs("""
    open+slowly close+quietly read+quickly carry+carefully eat+happily sing+happily
    work+patiently run+slowly answer+quickly
""")
