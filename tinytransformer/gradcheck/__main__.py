"""Hold every gradient of every operation against finite differences.

One row per operation and input, over all cases in which the input has a gradient of its own. The
last line is

    N operations, M gradients, worst relative error E

where M counts the rows. The verdicts:

    pass          the error, norm-wise and relative, is at most 1e-9
    zero          the gradient is zero by nature and was found to be; the error is absolute
    inconclusive  the numerical gradient cannot be trusted here, so nothing is proved
    FAIL          the gradient is wrong, or the operation raised an error

The exit code is 1 if any verdict is one of the last two, or if a breakage went uncaught; 2 if the
command line is wrong.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap

import numpy as np

from tinytransformer.gradcheck.breakages import breakages_of, caught
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import FAIL, INCONCLUSIVE, PASS, ZERO, Result, check
from tinytransformer.tensor import OPS


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tinytransformer.gradcheck",
        description=__doc__,
        epilog=textwrap.fill(f"The operations: {', '.join(sorted(OPS))}.", 99),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--op", metavar="NAME", action="append", help="check this operation only; may be repeated")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="draw other inputs (default: 0)")
    parser.add_argument(
        "--breakages", action="store_true", help="check the checker: is each gradient, broken on purpose, caught?"
    )
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(options.op or OPS))
    for name in names:
        if name not in OPS:
            print(f"gradcheck: no operation is named {name!r}; --help lists them", file=sys.stderr)
            return 2
    return print_breakages(names, options.seed) if options.breakages else print_gradients(names, options.seed)


def seed(text: str) -> int:
    """Parse a whole number, zero or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from zero up")
    return int(text)


def print_gradients(names: list[str], seed: int) -> int:
    """Check these operations, print the table, and return the exit code."""
    errors, bad = [], []
    print(f"{'operation':<21}{'input':<12}{'cases':>5}{'worst relative error':>24}   verdict")
    for name in names:
        by_input: dict[str, list[Result]] = {}
        for case in CASES[name]:
            for result in check(OPS[name], case, seed):
                by_input.setdefault(result.input, []).append(result)
        for input_name, results in by_input.items():
            verdict, error = summary(results)
            print(f"{name:<21}{input_name:<12}{len(results):>5}{error:>24.1e}   {verdict}")
            errors.append(0.0 if verdict == ZERO else error)
            bad += [result for result in results if result.verdict in (FAIL, INCONCLUSIVE)]
    for result in bad:
        print(f"\n{result}")
    print(f"\n{len(names)} operations, {len(errors)} gradients, worst relative error {np.max(errors):.1e}")
    return 1 if bad else 0


def summary(results: list[Result]) -> tuple[str, float]:
    """Return the gravest verdict, and the largest error among the results that have it; a NaN is the largest."""
    verdicts = {result.verdict for result in results}
    gravest = next(verdict for verdict in (FAIL, INCONCLUSIVE, PASS, ZERO) if verdict in verdicts)
    return gravest, float(np.max([result.error for result in results if result.verdict == gravest]))


def print_breakages(names: list[str], seed: int) -> int:
    """Break these operations on purpose, print what was noticed, and return the exit code."""
    totals, notes, missed = np.zeros(3, dtype=int), [], []
    print(f"{'operation':<21}{'planted':>8}{'caught':>8}{'exempt':>8}")
    for name in names:
        breakages = list(breakages_of(OPS[name]))
        exempt = [breakage for breakage in breakages if breakage.exemption]
        uncaught = [breakage for breakage in breakages if not breakage.exemption and not caught(breakage, seed)]
        counts = len(breakages), len(breakages) - len(exempt) - len(uncaught), len(exempt)
        print(f"{name:<21}{counts[0]:>8}{counts[1]:>8}{counts[2]:>8}")
        totals += counts
        notes += [f"exempt: {name}, {breakage.label}: {breakage.exemption}" for breakage in exempt]
        missed += [f"UNCAUGHT: {name}, {breakage.label}" for breakage in uncaught]
    if notes or missed:
        print("", *notes, *missed, sep="\n")
    print(f"\n{totals[0]} breakages planted, {totals[1]} caught, {totals[2]} exempt, {len(missed)} uncaught")
    return 1 if missed else 0


if __name__ == "__main__":
    for name in ("SIGPIPE", "SIGINT"):  # whoever read it has gone, as `head` does, or Ctrl-C was pressed: end at once
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        status = main()
        sys.stdout.flush()
    except OSError as error:  # the disk is full, say
        print(f"gradcheck: error: standard output: {error.strerror}", file=sys.stderr)
        os._exit(1)  # at once, or Python would fail once more when it closes standard output
    sys.exit(status)
