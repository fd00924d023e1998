"""Who is told how long everything took, if anybody is: each operation, forward and backward, and what is `timed`."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from time import perf_counter
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Called with a name, "forward" or "backward", and the seconds; by several threads at once if they share a context.
timing: ContextVar[Callable[[str, str, float], object] | None] = ContextVar("timing", default=None)


def timed(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that is no operation, so that its calls are told too, as going forward."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def run(*arguments: P.args, **options: P.kwargs) -> R:
            if (note := timing.get()) is None:
                return function(*arguments, **options)
            started = perf_counter()
            result = function(*arguments, **options)
            note(name, "forward", perf_counter() - started)
            return result

        return run

    return decorate
