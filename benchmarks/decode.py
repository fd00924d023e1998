"""Translate a file with the same weights in tinytransformer, PyTorch and CTranslate2, in turns, and compare.

Results go to standard output as a Markdown table. docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import in_turns, machine, measure, ratios, require_torch, table, table_row
from tinytransformer import shortlist
from tinytransformer.checkpoint import load_model
from tinytransformer.command_line import HelpFormatter, count, directory, errors_in_one_line, hypotheses
from tinytransformer.data import DataError, read_lines

HEAD = ("search", "contender", "sentences per second", "time over ours", "equal translations")
OURS = "tinytransformer"
OURS_LISTED, THEIRS_LISTED = "tinytransformer, shortlists", "PyTorch loop, shortlists"
CONTENDERS = {
    OURS: "ours",
    OURS_LISTED: "ours-shortlists",
    "tinytransformer without its cache": "ours-without-cache",
    "PyTorch loop with a cache": "pytorch",
    THEIRS_LISTED: "pytorch-shortlists",
    "CTranslate2, float32": "ctranslate2",
}


def main() -> None:
    options = parse_arguments()
    require_torch("benchmarks.decode")
    with errors_in_one_line("benchmarks.decode"):
        lines = read_lines(options.source)
        if not any(line.strip() for line in lines):
            raise DataError(f"{options.source} holds no sentence")
        load_model(options.model)  # so that what is wrong with it is said once
        contenders = dict(CONTENDERS)
        if not (options.model / shortlist.NAME).exists():
            print(f"note: left out shortlists; {options.model} has none (train.py --resume makes it)", file=sys.stderr)
            contenders = {name: kind for name, kind in contenders.items() if not kind.endswith("-shortlists")}
        if importlib.util.find_spec("ctranslate2") is None:
            print("note: left out CTranslate2, which is not installed (pip install ctranslate2)", file=sys.stderr)
            del contenders["CTranslate2, float32"]
        print(
            f"{machine('torch', 'ctranslate2')}; {len(lines)} sentences; medians over turns: {options.turns}",
            flush=True,
        )
        print("", table(HEAD, []), sep="\n", flush=True)
        for beam in sorted({1, options.beam}):
            for row in rows_of(beam, contenders, options, len(lines)):
                print(table_row(row), flush=True)


def rows_of(
    beam: int, contenders: dict[str, str], options: argparse.Namespace, sentences: int
) -> Iterator[tuple[str, ...]]:
    """Measure one kind of search; yield its rows of the table."""
    search = "greedy" if beam == 1 else f"beam {beam}"
    where = (str(options.source.resolve()), "--model", str(options.model.resolve()), "--beam", str(beam))
    runs = {name: partial(measure, "benchmarks.translating", kind, *where) for name, kind in contenders.items()}
    results = in_turns(runs, options.turns, search)
    ours = results[OURS]
    for name, measured in results.items():
        like = results[OURS_LISTED if name == THEIRS_LISTED else OURS]
        seconds = [result["seconds"] for result in measured]
        yield (
            search,
            name,
            f"{sentences / median(seconds):.0f}",
            ratios(seconds, [result["seconds"] for result in ours]),
            f"{100 * agreement(measured[0], like[0]):.1f} %",
        )


def agreement(theirs: dict[str, Any], ours: dict[str, Any]) -> float:
    """Return the share of sentences that both translate alike, to the letter."""
    pairs = list(zip(theirs["translations"], ours["translations"], strict=True))
    return sum(their == our for their, our in pairs) / len(pairs)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.decode", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="text to translate, UTF-8")
    parser.add_argument("--model", type=directory, default=Path("runs/toy"), metavar="DIR", help="directory of a run")
    parser.add_argument("--beam", type=hypotheses, default=5, metavar="N", help="hypotheses followed, beside greedy")
    parser.add_argument("--turns", type=count, default=5, metavar="N", help="measurements of each contender")
    return parser.parse_args()


if __name__ == "__main__":
    main()
