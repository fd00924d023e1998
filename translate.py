#!/usr/bin/env python3
"""Translate with a trained model: the sentences on the command line, or every line of standard input."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tinytransformer.backend import DEVICES, DeviceError
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.tokenizer import VocabularyError
from tinytransformer.translation import Translator

LINES_AT_ONCE = 1024  # how many lines of standard input are read before they are translated


def main() -> None:
    options = parse_arguments()
    if not (options.model / "config.json").exists():
        sys.exit(f"translate.py: error: {options.model} holds no trained model; run first: python train.py")
    try:
        translator = Translator.load(options.model, device=options.device)
        for lines in [options.text] if options.text else batches_of_lines():
            for translation in translator.translate(lines, beam=options.beam):
                print(translation)
    except (CheckpointError, DeviceError, VocabularyError) as error:
        sys.exit(f"translate.py: error: {error}")


def batches_of_lines():
    """Yield the lines of standard input, some at a time, so that memory does not grow with their number."""
    lines = []
    for line in sys.stdin:
        lines.append(line.rstrip("\r\n"))
        if len(lines) == LINES_AT_ONCE:
            yield lines
            lines = []
    yield lines


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description="Translate sentences, or without any every line of standard input, one line out for each.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("text", nargs="*", metavar="SENTENCE", help="what to translate")
    parser.add_argument("--model", type=Path, default=Path("runs/toy"), metavar="DIR", help="directory of a run")
    parser.add_argument("--beam", type=int, default=4, metavar="N", help="hypotheses followed at once; 1 is greedy")
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute")
    options = parser.parse_args()
    if options.beam < 1:
        parser.error("argument --beam: expected at least 1")
    return options


if __name__ == "__main__":
    main()
