"""When each step ended, and whether that is enough."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median


class Clock:
    """Is told of the end of every step.

    warm_up: steps at the beginning that do not count, in which memory is touched and code compiled for the first time.
    least, seconds: how many steps, and how much time, the measurement takes at least after them.
    """

    def __init__(self, *, warm_up: int = 3, least: int = 5, seconds: float = 3.0):
        self.warm_up = warm_up
        self.least = least
        self.seconds = seconds
        self.ends: list[float] = []

    def __call__(self, *_: object) -> None:
        self.ends.append(time.perf_counter())

    def enough(self) -> bool:
        """Return whether enough steps have been measured."""
        counted = self.ends[self.warm_up - 1 :]
        return len(counted) > self.least and counted[-1] - counted[0] >= self.seconds

    def median(self) -> float:
        """Return the seconds of a step: the median of those that count."""
        return median(after - before for before, after in pairwise(self.ends[self.warm_up - 1 :]))
