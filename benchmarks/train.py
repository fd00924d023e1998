"""Train the same models in tinytransformer and in PyTorch, in turns, and compare time per step and memory.

Results go to standard output as a Markdown table. docs/performance.md says how to read it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any

from benchmarks.processes import in_turns, machine, measure, ratios, require_torch, table, table_row
from benchmarks.sizes import SIZES, Size
from tinytransformer.command_line import HelpFormatter, count, errors_in_one_line

# What keeps glibc from giving large arrays back to the system and faulting them in again at every step: for PyTorch the
# same as `backend.keep_freed_memory` is for tinytransformer.
WARM = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
HEAD = ("size", "contender", "ms per step", "time over ours", "peak memory, MB", "of it libraries, MB")


def main() -> None:
    options = parse_arguments()
    require_torch("benchmarks.train")
    print(f"{machine('torch')}; medians over turns: {options.turns}", flush=True)
    print("", table(HEAD, []), sep="\n", flush=True)
    with errors_in_one_line("benchmarks.train"):
        for row in (row for name in options.sizes for row in rows_of(name, options)):
            print(table_row(row), flush=True)


def rows_of(name: str, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    """Measure one size; yield its rows of the table. The row of the products alone shows the share of the floor."""
    results = in_turns(contenders(name, compiled=options.compile), options.turns, name)
    our_seconds = [result["seconds"] for result in results[ours(SIZES[name])]]
    for contender, measured in results.items():
        seconds = [result["seconds"] for result in measured]
        if "operations_per_second" in measured[0]:
            contender += f" ({median_of(measured, 'operations_per_second') / 1e9:.0f} GFLOP/s)"
        memory = [f"{median_of(measured, key) / 1e6:.0f}" if key in measured[0] else "" for key in MEMORY]
        yield name, contender, f"{1000 * median(seconds):.1f}", ratios(seconds, our_seconds), *memory


MEMORY = ("peak_memory", "libraries")


def median_of(results: list[dict[str, Any]], key: str) -> float:
    return median(result[key] for result in results)


def ours(size: Size) -> str:
    return f"tinytransformer, {size.replicas} replica{'s' if size.replicas > 1 else ''}"


def contenders(name: str, *, compiled: bool) -> dict[str, Any]:
    """Return by name how each contender is measured. Compiling comes last: it may fail, or take minutes."""
    run = partial(measure, "benchmarks.training")
    found = {
        ours(SIZES[name]): partial(run, "ours", name),
        "matrix products alone": partial(run, "floor", name),
        "the same, from the cache": partial(run, "floor-in-cache", name),
        "PyTorch as it comes": partial(run, "pytorch", name),
        "PyTorch, warm allocator": partial(run, "pytorch", name, environment=WARM),
        "PyTorch, warm, same dropout": partial(run, "pytorch-same-dropout", name, environment=WARM),
    }
    if compiled:
        found["PyTorch, torch.compile"] = partial(run, "pytorch-compiled", name)
    return found


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.train", description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), metavar="SIZE", help="what to train")
    parser.add_argument("--turns", type=count, default=5, metavar="N", help="measurements of each contender")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too; needs a C++ compiler")
    return parser.parse_args()


if __name__ == "__main__":
    main()
