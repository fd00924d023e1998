#!/usr/bin/env python3
"""Translate with a trained model: the sentences on the command line, or every line of standard input."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tinytransformer.backend import DEVICES, keep_freed_memory
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.command_line import HelpFormatter, count, errors_in_one_line
from tinytransformer.translation import Translator

LINES_AT_ONCE = 1024  # how many lines of standard input are read before they are translated


def main() -> None:
    options = parse_arguments()
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]
    with errors_in_one_line("translate.py"):
        keep_freed_memory()
        if not (options.model / "config.json").exists():
            raise CheckpointError(f"{options.model} holds no trained model; run first: python train.py")
        translator = Translator.load(options.model, device=options.device)
        # An argument that is not UTF-8 arrives with its bytes as surrogates, which encoding turns back.
        sentences = [decode(os.fsencode(text), number) for number, text in enumerate(options.text, start=1)]
        for lines in [sentences] if sentences else lines_of_standard_input():
            for translation in translator.translate(lines, beam=options.beam):
                print(translation)
        sys.stdout.flush()


def lines_of_standard_input() -> Iterator[list[str]]:
    """Yield the lines, some at a time, so that memory does not grow with their number. Only "\\n" ends a line."""
    numbered = enumerate(sys.stdin.buffer, start=1)
    while some := list(islice(numbered, LINES_AT_ONCE)):
        lines = [decode(line.removesuffix(b"\n").removesuffix(b"\r"), number) for number, line in some]
        if some[0][0] == 1:
            lines[0] = lines[0].removeprefix("\ufeff")  # a byte order mark is no text
        yield lines


def decode(line: bytes, number: int) -> str:
    """Decode UTF-8; what is not becomes U+FFFD, with a warning, so that no line is lost."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        print(f"translate.py: warning: line {number} is not UTF-8; bytes were replaced", file=sys.stderr)
        return line.decode("utf-8", errors="replace")


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Translate sentences, or without any every line of standard input, one line out for each.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("text", nargs="*", metavar="SENTENCE", help="what to translate")
    parser.add_argument("--model", type=Path, default=Path("runs/toy"), metavar="DIR", help="directory of a run")
    parser.add_argument("--beam", type=count, default=4, metavar="N", help="hypotheses followed at once; 1 is greedy")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute")
    return parser.parse_args()


if __name__ == "__main__":
    main()
