"""The words of the toy corpus, English with German.

Every word has exactly one translation. Where English has one form and German several, the
grammar decides: "the" becomes der, die, das, den or dem by gender, number and case, and
"know" is "kennen" with an object but "wissen" before "that".

Traits such as "person" or "portable" say which words may stand together; they keep the
sentences plausible and have no other meaning.
"""

from inflection import FIRST, PLURAL, SECOND, THIRD, Case, Noun, Pronoun, Verb, Word

# The tables keep several words to a line.
# fmt: off

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
# English and German preposition, the case it governs, the traits of the nouns it goes with.
PREPOSITIONS: dict[str, tuple[tuple[str, str, Case, str], ...]] = {
    "with": (("with", "mit", "dative", "person"),),
    "for": (("for", "für", "accusative", "person"),),
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
    Verb("buy buys bought", "kaufe kaufst kauft kaufen", "hat gekauft", accusative="goods", partner="for"),
    Verb("carry carries carried", "trage trägst trägt tragen", "hat getragen", accusative="portable", place="direction",
         manner="slowly quickly carefully happily"),
    Verb("read reads", "lese liest liest lesen", accusative="readable", place="location",
         manner="slowly quickly quietly loudly"),
    Verb("eat eats ate", "esse isst isst essen", "hat gegessen", accusative="food", place="location",
         manner="slowly quickly happily"),
    Verb("drink drinks drank", "trinke trinkst trinkt trinken", "hat getrunken", accusative="drink", place="location",
         manner="slowly quickly carefully"),
    Verb("visit visits visited", "besuche besuchst besucht besuchen", "hat besucht", accusative="person"),
    Verb("know knows", "kenne kennst kennt kennen", accusative="person", stative=True),
    Verb("have has", "habe hast hat haben", accusative="animal portable car", stative=True),
    # separable, with an accusative object
    Verb("open opens opened", "mache machst macht machen", "hat aufgemacht", prefix="auf", accusative="openable",
         manner="slowly quickly quietly carefully"),
    Verb("close closes closed", "mache machst macht machen", "hat zugemacht", prefix="zu", accusative="openable",
         manner="slowly quickly quietly carefully loudly"),
    Verb("call calls called", "rufe rufst ruft rufen", "hat angerufen", prefix="an", particle="up",
         accusative="person"),
    Verb("pick picks picked", "hole holst holt holen", "hat abgeholt", prefix="ab", particle="up", accusative="person"),
    # with a dative object
    Verb("help helps helped", "helfe hilfst hilft helfen", "hat geholfen", dative="person",
         manner="quickly patiently happily"),
    Verb("thank thanks thanked", "danke dankst dankt danken", "hat gedankt", dative="person"),
    Verb("follow follows followed", "folge folgst folgt folgen", "ist gefolgt", subject="person quadruped",
         dative="person animal", place="direction", manner="slowly quickly quietly carefully"),
    Verb("answer answers answered", "antworte antwortest antwortet antworten", "hat geantwortet", dative="person",
         manner="slowly quickly quietly patiently"),
    # with both
    Verb("give gives gave", "gebe gibst gibt geben", "hat gegeben", dative="person", accusative="portable"),
    Verb("bring brings brought", "bringe bringst bringt bringen", "hat gebracht", dative="person",
         accusative="portable drink", manner="quickly"),
    # without an object
    Verb("sleep sleeps slept", "schlafe schläfst schläft schlafen", "hat geschlafen", subject="person animal",
         place="location"),
    Verb("work works worked", "arbeite arbeitest arbeitet arbeiten", "hat gearbeitet", place="location", partner="with",
         manner="slowly quickly quietly patiently"),
    Verb("play plays played", "spiele spielst spielt spielen", "hat gespielt", subject="person quadruped",
         place="location", partner="with", manner="quietly loudly happily"),
    Verb("sing sings sang", "singe singst singt singen", "hat gesungen", subject="person bird", place="location",
         manner="quietly loudly happily"),
    Verb("laugh laughs laughed", "lache lachst lacht lachen", "hat gelacht", manner="quietly loudly happily"),
    # of motion, with sein in the perfect
    GO,
    Verb("come comes came", "komme kommst kommt kommen", "ist gekommen", subject="person quadruped", place="direction",
         partner="with", manner="slowly quickly"),
    Verb("run runs ran", "laufe läufst läuft laufen", "ist gelaufen", subject="person quadruped", place="direction",
         manner="slowly quickly happily"),
    Verb("get gets got", "stehe stehst steht stehen", "ist aufgestanden", prefix="auf", particle="up",
         manner="slowly quickly quietly"),
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
