"""Grade the gradients that a reader wrote: by the checks of `check`, one by one, with a hint for each mistake."""

from __future__ import annotations

import copy
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import Any

import numpy as np

from tinytransformer.backend import Array
from tinytransformer.gradcheck.case import Case
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import (
    PASS,
    ZERO,
    Result,
    analytic_gradients,
    check,
    draw,
    numerical_gradients,
)
from tinytransformer.gradcheck.exercise import ExerciseError
from tinytransformer.gradcheck.hints import Call, explanations, right_gradients
from tinytransformer.gradcheck.numerical import Differences
from tinytransformer.tape import Backward
from tinytransformer.tensor import OPS, Operation

SEED = 0  # the seed of the inputs that `python -m tinytransformer.gradcheck` draws


class UnwrittenError(ExerciseError):
    """An attempt whose backward raises NotImplementedError, as it did when it was handed out."""


@dataclass(frozen=True)
class Mark:
    """What one gradient of an attempt is worth.

    Attributes:
        gradient: its name, such as "dx".
        cases: the number of cases it was held against.
        failures: the cases in which it is wrong, beginning with the one that shows the mistake best.
        shapes: the shapes of inputs and result in that case.
        hint: what kind of mistake it seems to be.
    """

    gradient: str
    cases: int
    failures: list[Result]
    shapes: str = ""
    hint: str = ""


def grade(attempt: Operation) -> list[Mark]:
    """Hold every gradient of `attempt` against all cases of the operation of that name; one Mark per input.

    Raises: ExerciseError if it cannot be run to its end in every case.
    """
    with np.errstate(all="ignore"):  # a NaN is reported as what it is
        calls = {case.label: rehearse(attempt, case) for case in CASES[attempt.name]}
        positions = max(len(call.inputs) for call in calls.values())
        return [mark(attempt, position, calls) for position in range(positions)]


def rehearse(attempt: Operation, case: Case) -> Call:
    """Run `attempt` forward and backward in one case, and return what went in and what came out."""
    arrays, upstream = draw(OPS[attempt.name], case, SEED)
    calls: list[Call] = []
    try:
        require_same_result(case.run(attempt, arrays).data, case.run(OPS[attempt.name], arrays).data)
        analytic_gradients(grafted(attempt, None, calls), case, arrays, upstream)
    except ExerciseError:
        raise
    except (Exception, SystemExit) as problem:  # whatever the attempt raises is for its author to see
        lines = [f.lineno for f in traceback.extract_tb(problem.__traceback__) if f.filename == file_of(attempt)]
        where = f"line {lines[-1]}: " if lines else ""
        kind = UnwrittenError if isinstance(problem, NotImplementedError) else ExerciseError
        shapes = ", ".join(str(x.shape) for x in arrays)
        raise kind(
            f"{where}{type(problem).__name__}: {problem}\nin '{case.label}', with inputs of shape {shapes}"
        ) from problem
    return calls[0]


def file_of(attempt: Operation) -> str:
    return attempt.plain.__code__.co_filename


def grafted(attempt: Operation, position: int | None, calls: list[Call]) -> Operation:
    """Return `attempt` with its own gradient at `position` and the right ones elsewhere: no mistake hides another.

    Every backward pass is noted in `calls`.
    """

    @wraps(attempt.plain)
    def plain(*inputs: Any, **options: Any) -> tuple[Array, Backward]:
        unused = copy.deepcopy(options)  # with a generator that has not been drawn from
        y, attempted = attempt.plain(*inputs, **options)

        def backward(dy: Array) -> tuple[Array | None, ...]:
            theirs, right = attempted(dy), right_gradients(attempt.name, inputs, unused, dy)
            require_gradients(theirs, len(inputs))
            calls.append(Call(attempt, inputs, unused, y, dy, theirs, right))
            return tuple(theirs[i] if i == position else dx for i, dx in enumerate(right))

        return y, backward

    return Operation(plain, broadcasts=attempt.broadcasts)


def require_same_result(found: Array, expected: Array) -> None:
    if np.shape(found) != np.shape(expected) or not np.allclose(found, expected, rtol=1e-12, atol=1e-12):
        raise ExerciseError("the result is no longer that of the operation; all but `backward` was right")


def require_gradients(gradients: Any, count: int) -> None:
    """Raise ExerciseError unless `gradients` is a tuple of `count`."""
    if not isinstance(gradients, tuple):
        found = type(gradients).__name__
        raise ExerciseError(f"`backward` must return a tuple, as in `return (dx,)`, and returned: {found}")
    if len(gradients) != count:
        raise ExerciseError(
            f"`backward` must return one gradient per input, {count} here, and returned {len(gradients)}"
        )


@cache
def right_slopes(operation: Operation, case: Case) -> list[Differences]:
    """Return the numerical gradients, which take the most time, and are the same for every attempt."""
    return numerical_gradients(operation, case, *draw(operation, case, SEED))


def mark(attempt: Operation, position: int, calls: dict[str, Call]) -> Mark:
    """Grade the gradient of the input at `position`."""
    cases = CASES[attempt.name]
    gradient = "d" + cases[0].input_names(OPS[attempt.name])[position]
    failures: dict[str, Result] = {}
    for case in cases:
        known = partial(right_slopes, OPS[attempt.name], case)  # the result of an attempt is the right one
        for result in check(grafted(attempt, position, []), case, SEED, numerical=known):
            if result.verdict not in (PASS, ZERO):
                failures.setdefault(case.label, result)
    if not failures:
        return Mark(gradient, len(cases), [])
    # The explanation that fits most cases; of those that fit equally many, the one that was found first.
    fitting = {label: list(explanations(calls[label], position)) for label in failures}
    ranking = Counter(text for texts in fitting.values() for text in texts).most_common(1)
    hint = ranking[0][0] if ranking else "nothing simple: go through the derivation again, with these cases in mind"
    ordered = sorted(failures, key=lambda label: hint not in fitting[label])
    return Mark(gradient, len(cases), [failures[label] for label in ordered], calls[ordered[0]].shapes(), hint)
