"""Measure a layer of attention over longer and longer sequences: plain, block by block, and in PyTorch, in turns.

Results go to standard output as a Markdown table. docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from functools import partial
from statistics import median

from benchmarks.processes import in_turns, machine, measure, ratios, table
from tinytransformer.command_line import HelpFormatter, count, errors_in_one_line

LENGTHS = (128, 512, 2048, 8192)
CONTENDERS = {"block by block": "blockwise", "plain": "plain", "PyTorch": "pytorch"}
HEAD = ("mask", "tokens", "contender", "microseconds per token", "time over block by block", "peak memory, MB")


def main() -> None:
    options = parse_arguments()
    contenders = dict(CONTENDERS)
    if importlib.util.find_spec("torch") is None:
        print("note: left out PyTorch, which is not installed (pip install -e '.[parity]')", file=sys.stderr)
        del contenders["PyTorch"]
    print(f"{machine('torch')}; medians of {options.turns} turns, in brackets the lowest and the highest", flush=True)
    with errors_in_one_line("benchmarks.attention"):
        rows = [
            row
            for causal in (False, True)
            for length in options.lengths
            for row in rows_of(length, contenders, options.turns, causal=causal)
        ]
        print("", table(HEAD, rows), sep="\n")


def rows_of(length: int, contenders: dict[str, str], turns: int, *, causal: bool) -> Iterator[tuple[str, ...]]:
    """Measure sequences of one length, with one mask; yield their rows of the table."""
    mask = "causal" if causal else "none"
    where = (str(length), *(["--causal"] if causal else []))
    runs = {name: partial(measure, "benchmarks.attending", kind, *where) for name, kind in contenders.items()}
    results = in_turns(runs, turns, f"{length} tokens, mask {mask}")
    blockwise = [result["seconds"] for result in results["block by block"]]
    for name, measured in results.items():
        seconds = [result["seconds"] for result in measured]
        memory = median(result["peak_memory"] for result in measured)
        per_token = f"{1e6 * median(seconds) / length:.1f}"
        yield mask, str(length), name, per_token, ratios(seconds, blockwise), f"{memory / 1e6:.0f}"


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.attention", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=count, default=LENGTHS, metavar="T", help="tokens of a sequence")
    parser.add_argument("--turns", type=count, default=5, metavar="N", help="measurements of each contender")
    return parser.parse_args()


if __name__ == "__main__":
    main()
