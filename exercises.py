#!/usr/bin/env python3
"""Learn by producing: write the gradient of an operation, or find the fault in one; both are graded.

    python exercises.py --list           all operations, the easiest first, and what you have solved
    python exercises.py softmax          write exercises/softmax.py: softmax without its gradient
    python exercises.py softmax          the same again, when you have written it: grade the file
    python exercises.py softmax --find   likewise exercises/find_softmax.py, with one fault to be found

A file that is there is graded, and never overwritten; to start afresh, delete it.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path

from tinytransformer.command_line import errors_in_one_line, seed
from tinytransformer.gradcheck.check import TOLERANCE
from tinytransformer.gradcheck.exercise import ExerciseError, exercise, operation_in
from tinytransformer.gradcheck.faults import plant
from tinytransformer.gradcheck.grade import Mark, UnwrittenError, grade
from tinytransformer.tensor import OPS
from tinytransformer.writing import write_atomically

FOLDER = Path(__file__).resolve().parent / "exercises"

CURRICULUM = {
    "negate": "a first gradient: one input, one sign",
    "add": "two inputs, each with a gradient of its own",
    "subtract": "the sign goes with the input",
    "multiply": "the product rule: each input waits for the other",
    "divide": "the quotient rule, without looking it up",
    "exp": "a gradient written with the result",
    "log": "a gradient written with the input",
    "sqrt": "solve y^2 = x for y'",
    "power": "a constant that is no input",
    "tanh": "a quotient of sums, and a short answer",
    "sigmoid": "why saturated units learn slowly",
    "relu": "a kink",
    "gelu": "the chain rule, twice",
    "reshape": "moving elements: move them back",
    "transpose": "the inverse of a permutation",
    "concatenate": "many inputs, one slice each",
    "getitem": "what was not used has a gradient of zero",
    "dropout": "randomness is a constant once it is drawn",
    "sum": "many became one: its gradient goes to all of them",
    "mean": "the same, shared out",
    "max": "only the winner moves the result, and ties share",
    "gather": "used twice, paid twice: gradients of repeated ids add up",
    "embedding": "the same for whole rows: most of a table gets nothing",
    "matmul": "why one factor is transposed, and on which side it stands",
    "linear": "a weight that every position used: sum over positions",
    "logsumexp": "a smooth maximum, whose gradient is softmax",
    "softmax": "every element moves every other",
    "log_softmax": "the same in fewer strokes",
    "cross_entropy": "p - q, with smoothing, padding and a count",
    "layer_norm": "mean and standard deviation move too: two terms easily lost",
    "attention": "all of the above at once",
    "blockwise_attention": "the same in less memory: keep little, compute it again",
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return its exit code: 1 for what is graded and not right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="the operation, such as softmax")
    what.add_argument("--list", action="store_true", help="list the operations, and what has been solved")
    parser.add_argument(
        "--find", action="store_true", help="hand out NAME with one fault to find, then grade the repair"
    )
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="which fault --find plants (default: 0)")
    options = parser.parse_args(arguments)
    if options.seed and not options.find:
        parser.error("--seed says which fault --find plants")
    if options.list:
        return print_list()
    if options.name not in OPS:
        parser.error(f"no operation is named {options.name!r}; --list shows them all")
    path = path_of(options.name, find=options.find)
    if path.exists():
        return print_grade(path, options.name, hints=not options.find)
    path.parent.mkdir(exist_ok=True)
    text = plant(options.name, options.seed) if options.find else exercise(options.name)
    write_atomically(path, text.encode())
    task = "repair the one line that is wrong or missing" if options.find else "write `backward`"
    print(f"Written: {shown(path)}. Now {task}.\nThe same command again will have it graded.")
    return 0


def path_of(name: str, *, find: bool) -> Path:
    return FOLDER / (f"find_{name}.py" if find else f"{name}.py")


def shown(path: Path) -> Path:
    """Return the path from where the user stands, if the file lies below."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def marks_of(path: Path, name: str) -> list[Mark]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise ExerciseError(f"it cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise ExerciseError("it is not UTF-8") from None
    return grade(operation_in(text, name, str(path)))


def print_grade(path: Path, name: str, *, hints: bool) -> int:
    """Grade the file, print what is right and what is not, and return the exit code."""
    print(f"{shown(path)}\n")
    try:
        marks = marks_of(path, name)
    except UnwrittenError:
        print("  `backward` is still to be written")
        return 1
    except ExerciseError as problem:
        for line in str(problem).splitlines():
            print(*folded("  ", line), sep="\n")
        return 1
    for mark in marks:
        print("\n".join(lines_of(mark, hints=hints)))
    wrong = sum(bool(mark.failures) for mark in marks)
    if wrong:
        print(f"\nNot yet: {len(marks) - wrong} of {len(marks)} gradients right.")
        return 1
    print(f"\nSolved. To compare: {OPS[name].plain.__module__.replace('.', '/')}.py")
    return 0


def lines_of(mark: Mark, *, hints: bool) -> list[str]:
    """Say what a gradient is worth; of a wrong one where, by how much, and what may be the matter."""
    if not mark.failures:
        return [f"  {mark.gradient}: right in all {mark.cases} cases"]
    first, *others = mark.failures
    lines = [f"  {mark.gradient}: wrong in {len(mark.failures)} of {mark.cases} cases"]
    lines += [f"    in '{first.case}', with shapes {mark.shapes}"]
    if not first.note:  # else its values could not be compared at all
        index = list(first.index) if first.index else ""
        lines += [
            f"    {mark.gradient}{index} is {first.analytic:.6g}, and should be {first.numerical:.6g};",
            f"    error {first.error:.2g}, relative to the norm; {TOLERANCE:.0g} is allowed",
        ]
    if others and len(mark.failures) < mark.cases / 2:  # then it tells something which ones they are
        lines += folded("    and in ", ", ".join(f"'{failure.case}'" for failure in others))
    if hints:
        lines += folded("    hint: ", mark.hint)
    return lines


def folded(heading: str, text: str) -> list[str]:
    return textwrap.wrap(heading + text, 99, subsequent_indent=" " * len(heading))


def print_list() -> int:
    """Print the operations from the easiest to the hardest; what is solved is found out by grading it."""
    print(f"{'gradient':<10}{'fault':<8}{'operation':<21}what it teaches")
    for name, lesson in CURRICULUM.items():
        gradient, fault = (state(path_of(name, find=find), name) for find in (False, True))
        print(f"{gradient:<10}{fault:<8}{name:<21}{lesson}")
    return 0


def state(path: Path, name: str) -> str:
    if not path.exists():
        return "-"
    try:
        return "open" if any(mark.failures for mark in marks_of(path, name)) else "solved"
    except ExerciseError:
        return "open"


if __name__ == "__main__":
    with errors_in_one_line("exercises.py"):
        status = main()
    sys.exit(status)
