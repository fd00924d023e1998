#!/usr/bin/env python3
"""Translate with a trained model: the sentences on the command line, or every line of standard input."""

from __future__ import annotations

import argparse
import codecs
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tinytransformer.backend import DEVICES, keep_freed_memory
from tinytransformer.command_line import (
    HelpFormatter,
    above_zero,
    count,
    directory,
    errors_in_one_line,
    exponent,
    hypotheses,
    probability,
    seed,
)
from tinytransformer.data import DataError
from tinytransformer.decoding import Sampling
from tinytransformer.tokenizer import LONGEST_PIECE
from tinytransformer.translation import Search, Translator

# How much of standard input is read before it is translated.
LINES_AT_ONCE = 1024
BYTES_AT_ONCE = 1 << 20


def main() -> None:
    with errors_in_one_line("translate.py"):
        options = parse_arguments()
        keep_freed_memory()
        translator = Translator.load(options.model, device=options.device, shortlist=options.shortlist)
        # An argument that is not UTF-8 arrives with its bytes as surrogates, which encoding turns back.
        sentences = [decode(os.fsencode(text), number) for number, text in enumerate(options.text, start=1)]
        first = 1
        at_once = 1 if options.line_buffered or (sys.stdin and sys.stdin.isatty()) else LINES_AT_ONCE
        most = LONGEST_PIECE * translator.longest
        for lines in [sentences] if sentences else lines_of_standard_input(at_once, most):
            print_translations(translator, lines, first, options)
            first += len(lines)


def print_translations(translator: Translator, lines: list[str], first: int, options: argparse.Namespace) -> None:
    """Print the best translation of each line; under --n-best the best few, each behind its score and a tab.

    There can be fewer than asked for; and of an empty line nothing but an empty line.

    first: the number of the first line.
    """
    for number, line in enumerate(lines, start=first):
        if translator.is_too_long(line):
            warn(f"line {number} has {translator.longest} subwords or more, and the model takes fewer; it is cut")
    for found in translator.hypotheses(lines, search_of(options, first)):
        if options.n_best is None or not found:
            print(found[0].text if found else "")
        else:
            for translation in found:
                print(f"{translation.score:.4f}\t{translation.text}")
    sys.stdout.flush()


def search_of(options: argparse.Namespace, first: int) -> Search:
    """Return the search that the options ask for."""
    if options.sample:
        sampling = Sampling(options.seed, options.temperature, options.top_k, options.top_p)
        return Search(max_length=options.max_length, sampling=sampling, first_line=first)
    return Search(options.beam, options.alpha, options.max_length, options.n_best or 1)


def lines_of_standard_input(lines_at_once: int, most: int) -> Iterator[list[str]]:
    """Yield the lines, some at a time, so that memory does not grow with their number. Only "\\n" ends a line.

    most: of a longer line so many bytes, which hold more subwords than are translated.
    """
    if sys.stdin is None:
        raise DataError("standard input is closed")
    some, size = [], 0
    for number, line in enumerate(bytes_of_standard_input(sys.stdin, most), start=1):
        size += len(line)
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)  # a byte order mark is no text
        some.append(decode(line.removesuffix(b"\n").removesuffix(b"\r"), number))
        if len(some) == lines_at_once or size >= BYTES_AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some


def bytes_of_standard_input(stream: TextIO, most: int) -> Iterator[bytes]:
    """Yield each line, or of one that has more than `most` bytes, its beginning."""
    try:
        while line := stream.buffer.readline(most):
            rest = line
            while len(rest) == most and not rest.endswith(b"\n"):
                rest = stream.buffer.readline(most)
            yield line if rest is line else without_half_a_character(line)
    except OSError as error:
        raise DataError(f"standard input: {error.strerror}") from None


def without_half_a_character(line: bytes) -> bytes:
    """Take off the last character, which may have been cut: in UTF-8 all its bytes but the first begin with 10."""
    last = next((i for i in range(1, 5) if line[-i] & 0b1100_0000 != 0b1000_0000), 1)
    return line[:-last]


def decode(line: bytes, number: int) -> str:
    """Decode UTF-8; what is not becomes U+FFFD, with a warning, so that no line is lost."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        warn(f"line {number} is not UTF-8; bytes were replaced")
        return line.decode("utf-8", errors="replace")


def warn(message: str) -> None:
    print(f"translate.py: warning: {message}", file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Translate sentences, or without any every line of standard input, one line out for each.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("text", nargs="*", metavar="SENTENCE", help="what to translate")
    parser.add_argument("--model", type=directory, default=Path("runs/toy"), metavar="DIR", help="directory of a run")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute")
    parser.add_argument("--max-length", type=count, metavar="N", help="most subwords of a translation")
    parser.add_argument("--line-buffered", action="store_true", help="translate each line as soon as it is read")
    search = parser.add_argument_group("search")
    search.add_argument(
        "--beam", type=hypotheses, default=4, metavar="N", help="hypotheses followed at once; 1 is greedy"
    )
    search.add_argument("--alpha", type=exponent, default=0.6, metavar="A", help="favour long translations by this")
    search.add_argument(
        "--n-best", type=hypotheses, metavar="N", help="print up to N with their scores, finished ones first"
    )
    search.add_argument(
        "--shortlist", action="store_true", help="look only at tokens that a translation of the line may well have"
    )
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--sample", action="store_true", help="draw translations instead of searching for the best")
    sampling.add_argument("--temperature", type=above_zero, default=1.0, metavar="T", help="below 1: more careful")
    sampling.add_argument("--top-k", type=count, metavar="K", help="draw from the K most probable subwords only")
    sampling.add_argument(
        "--top-p", type=probability, default=1.0, metavar="P", help="of them, the fewest that make up P"
    )
    sampling.add_argument("--seed", type=seed, default=1, metavar="N", help="same seed, same translations")
    options = parser.parse_args()
    changed = {name for name, value in vars(options).items() if value != parser.get_default(name)}
    if options.sample and changed & {"beam", "alpha", "n_best", "shortlist"}:
        parser.error("--beam, --alpha, --n-best and --shortlist say how to search, which --sample does not")
    if options.n_best is not None and options.n_best > options.beam:
        parser.error("--n-best is at most --beam")
    if not options.sample and changed & {"temperature", "top_k", "top_p", "seed"}:
        parser.error("--temperature, --top-k, --top-p and --seed say how to --sample")
    return options


if __name__ == "__main__":
    main()
