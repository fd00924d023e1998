"""Download a real corpus, check its SHA-256, and write plain parallel files, one sentence per line.

    python data/download.py multi30k           English-German, into data/multi30k/
    python data/download.py tatoeba fra-eng    French-English, into data/fra-eng/; likewise deu-eng, spa-eng, ...

Multi30k comes from a fixed commit, so the sums of its texts are known here. They are those of the texts and not of
the gzip files, which could be packed anew. The authors of the Tatoeba pairs update them in place: only the French
version of 2019-04-07 has its sum here. Any other is refused until the user names its sum with --sha256; the refusal
says which sum was found, so the user who trusts that version can pin it, and gets the same corpus each time.

Nothing is written before everything is there and checked. Files that exist are kept unless --overwrite is given.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from transfer import DownloadError, fetch, sha256, unpack_gzip, unpack_zip, write_files

Pair = tuple[str, str]  # English, then the other language

DATA = Path(__file__).parent
README = "README.txt"
HELD_OUT = 1_000  # pairs in each of valid and test

MULTI30K_HOME = (
    "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw"
)
MULTI30K = {
    "train.en": "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
    "train.de": "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
    "val.en": "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
    "val.de": "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
    "test_2016_flickr.en": "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
    "test_2016_flickr.de": "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
}
MULTI30K_LICENCE = """\
Multi30k, task 1, English and German (https://github.com/multi30k/dataset)
Elliott, Frank, Sima'an and Specia 2016, "Multi30K: Multilingual English-German Image Descriptions".
Terms: the sentences describe the pictures of Flickr30k, "solely provided for researchers and educators who wish to
use the dataset for non-commercial research and/or educational purposes".
"""

TATOEBA_HOME = "https://www.manythings.org/anki"
TATOEBA = {"fra-eng": "0bb85dbaa1c896844649094d7eaf2e34bee34e84fe362b26ce7e8f2e12aae104"}  # fra.txt of 2019-04-07
TATOEBA_LICENCE = """\
Sentence pairs of the Tatoeba Project (https://tatoeba.org) through https://www.manythings.org/anki/
Licence: CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/). Attribution: www.manythings.org/anki and tatoeba.org;
the newer files of www.manythings.org/anki name the author of every sentence in their third column.
"""


# ---------------------------------------------------------------- Multi30k


def download_multi30k(folder: Path, base: str, overwrite: bool) -> None:
    """Write the texts of MULTI30K that are not there."""
    print(MULTI30K_LICENCE)
    kept = [name for name in [*MULTI30K, README] if not overwrite and (folder / name).exists()]
    for name in kept:
        if name in MULTI30K and sha256((folder / name).read_bytes()) != MULTI30K[name]:
            raise DownloadError(f"{folder / name}: exists with other content; move it away, or give --overwrite")
        print(f"{folder / name}: exists, kept")
    contents = {}
    for name in MULTI30K:
        if name not in kept:
            url = f"{base}/{name}.gz"
            contents[name] = unpack_gzip(fetch(url), url)
            found = sha256(contents[name])
            if found != MULTI30K[name]:
                wrong = f"its text has SHA-256 {found}, expected {MULTI30K[name]}"
                raise DownloadError(f"{url}: {wrong}; try again, or name another mirror with --base-url")
    if README not in kept:
        contents[README] = f"{MULTI30K_LICENCE}\nDownloaded from {base}\n".encode()
    if contents:
        write_files(folder, contents)


# ---------------------------------------------------------------- Tatoeba


def read_pairs(content: bytes, name: str) -> list[Pair]:
    """The pairs of a file with lines of English, TAB, another language and perhaps TAB, attribution.

    A no-break space, wide or narrow, becomes a space; a pair with nothing on one side is left out.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DownloadError(f"{name}: is not UTF-8 ({error}); it is not a file of this kind") from None
    pairs = []
    for number, line in enumerate(text.replace("\u00a0", " ").replace("\u202f", " ").split("\n"), start=1):
        if line.strip():
            english, tab, rest = line.partition("\t")
            if not tab:
                raise DownloadError(f"{name}: line {number} has no TAB; it is not a file of this kind")
            pairs.append((english.strip(), rest.split("\t")[0].strip()))
    return [pair for pair in pairs if all(pair)]


def split_pairs(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Divide pairs into test, valid and train, so that no sentence of the first two stands elsewhere, on either side.

    The English sentences, in the order of their SHA-256, fill test, then valid, each with one of its translations
    (the one of lowest SHA-256). What is left is train, without the pairs whose other side has been used. So the split
    does not depend on the order of the pairs, and a sentence mostly keeps its place when the corpus grows.

    Test and valid have HELD_OUT pairs each, or a tenth of the English sentences where that is less.
    """
    translations: dict[str, list[str]] = {}
    for english, other in sorted(set(pairs), key=lambda pair: [sha256(side.encode()) for side in pair]):
        translations.setdefault(english, []).append(other)
    size = min(HELD_OUT, len(translations) // 10)
    splits: dict[str, list[Pair]] = {"test": [], "valid": [], "train": []}
    used: set[str] = set()
    for english, others in translations.items():
        unused = [(english, other) for other in others if other not in used]
        name = next((name for name in ("test", "valid") if len(splits[name]) < size), "train")
        if name != "train":
            unused = unused[:1]
            used.update(other for _, other in unused)
        splits[name] += unused
    return splits


def download_tatoeba(folder: Path, base: str, overwrite: bool, pair: str, expected: str | None) -> None:
    """Write a Tatoeba pair, split into train, valid and test."""
    print(TATOEBA_LICENCE)
    other = pair.removesuffix("-eng")
    names = [f"{split}.{language}" for split in ("train", "valid", "test") for language in (other, "eng")] + [README]
    kept = [name for name in names if not overwrite and (folder / name).exists()]
    if kept and len(kept) < len(names):
        # Files of two versions would share sentences between training and test.
        raise DownloadError(f"{folder}: has {', '.join(kept)} already; give --overwrite, or another folder with --out")
    if kept:
        print(f"{folder}: has {', '.join(kept)} already; kept, nothing downloaded (--overwrite replaces them)")
        return
    url, member = f"{base}/{pair}.zip", f"{other}.txt"
    content = unpack_zip(fetch(url), member, url)
    found, expected = sha256(content), expected or TATOEBA.get(pair)
    if found != expected:
        known = f"expected {expected}" if expected else "and none is known for this pair"
        advice = "its authors update it; if you trust this version, give"
        raise DownloadError(f"{url}: {member} has SHA-256 {found}, {known}; {advice} --sha256 {found}")
    pairs = read_pairs(content, f"{url}: {member}")
    splits = split_pairs(pairs)
    if not splits["test"]:
        raise DownloadError(f"{url}: {member} has {len(pairs)} sentence pairs, too few to split; name another pair")
    contents = {}
    for split, chosen in splits.items():
        for language, sentences in zip(("eng", other), zip(*chosen, strict=True), strict=True):
            contents[f"{split}.{language}"] = "".join(f"{sentence}\n" for sentence in sentences).encode()
    sizes = ", ".join(f"{len(chosen):,} {split}" for split, chosen in splits.items())
    out = len(pairs) - sum(map(len, splits.values()))
    note = f"{len(pairs):,} pairs: {sizes}, {out:,} left out (twice there, or a sentence in test or valid)"
    origin = f"{member} in {url}\nSHA-256 {found}\n{note}; no-break spaces became spaces"
    contents[README] = f"{TATOEBA_LICENCE}\n{origin}\n".encode()
    write_files(folder, contents)
    print(note)


# ---------------------------------------------------------------- the command line


def matching(pattern: str, description: str, text: str) -> str:
    """Parse an argument that matches a pattern whole."""
    if not re.fullmatch(pattern, text):
        raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
    return text


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    note = "the folder to write into (default: data/multi30k, data/fra-eng, ...)"
    common.add_argument("--out", type=Path, metavar="DIR", help=note)
    common.add_argument("--overwrite", action="store_true", help="replace files that exist")
    common.add_argument(
        "--base-url",
        type=lambda text: matching("(https?|file)://.+", "an address with http, https or file", text).rstrip("/"),
        metavar="URL",
        help="a folder that holds the same downloads: a mirror, or file:// and a path",
    )
    parser = argparse.ArgumentParser(description="Download a real corpus, check it, and write plain parallel files.")
    corpora = parser.add_subparsers(dest="corpus", required=True, metavar="CORPUS")
    text = "Multi30k, English-German captions of pictures"
    corpora.add_parser("multi30k", parents=[common], help=text, description=text)
    text = "a pair of Tatoeba, any language with English, split into train, valid and test"
    tatoeba = corpora.add_parser("tatoeba", parents=[common], help=text, description=text)
    tatoeba.add_argument(
        "pair",
        type=lambda text: matching("[a-z]{3}-eng", "a pair such as fra-eng: three letters and -eng", text),
        metavar="PAIR",
        help="such as fra-eng or deu-eng; https://www.manythings.org/anki/ lists them",
    )
    tatoeba.add_argument(
        "--sha256",
        type=lambda text: matching("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits", text.lower()),
        metavar="HEX",
        help="the sum of the text that you trust (default: that of 2019-04-07 for fra-eng, none for others)",
    )
    return parser.parse_args()


def main() -> None:
    """Download a corpus from the command line."""
    if sys.stderr is None:  # closed; what is said must not go to standard output instead
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    arguments = parse_arguments()
    try:
        if arguments.corpus == "multi30k":
            folder, base = arguments.out or DATA / "multi30k", arguments.base_url or MULTI30K_HOME
            download_multi30k(folder, base, arguments.overwrite)
        else:
            folder, base = arguments.out or DATA / arguments.pair, arguments.base_url or TATOEBA_HOME
            download_tatoeba(folder, base, arguments.overwrite, arguments.pair, arguments.sha256)
    except (DownloadError, OSError) as error:
        message = str(error)
        if isinstance(error, OSError):
            message = f"{error.filename or 'standard output'}: {error.strerror}"
        # What a server says may hold line breaks and other control characters.
        sys.exit("download.py: error: " + "".join(c if c.isprintable() else " " for c in message))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
