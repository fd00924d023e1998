"""Where the time of a training goes: to its operations, forward and backward, and to what stands around them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinytransformer.tensor import OPS
from tinytransformer.timing import timing

AROUND_OPERATIONS = "layers and tape"  # what `training.add_gradient` is called here; all operations run inside it


@dataclass
class Total:
    """How often something was called, and the seconds of all its calls."""

    calls: int = 0
    forward: float = 0.0
    backward: float = 0.0

    @property
    def seconds(self) -> float:
        return self.forward + self.backward

    def add(self, other: Total) -> None:
        self.calls += other.calls
        self.forward += other.forward
        self.backward += other.backward

    def line(self, name: str, whole: float) -> str:
        """Return a line of the table; `whole` are the seconds that its share is of. What is zero is left empty."""
        forward, backward = (f"{seconds:.3f}" if seconds else "" for seconds in (self.forward, self.backward))
        calls = f"{self.calls:,}" if self.calls else ""
        return f"{name:24}{forward:>12}{backward:>13}{calls:>12}{100 * self.seconds / whole:9.1f} %"


class Profile:
    """Is told of every call while it runs, through `timing.timing`, which reaches into the replicas of a training.

    replicas: how many share the work. Shares are of the time of all of them, since for what one does alone the others
        wait.
    """

    def __init__(self, replicas: int):
        self.replicas = replicas
        self.seconds = 0.0  # for how long it ran
        self.records: dict[int, dict[str, Total]] = {}  # of each thread, which writes into its own: none has to wait

    @contextmanager
    def running(self) -> Iterator[None]:
        """Note what runs inside the block: in this thread, and in workers that are asked there."""
        token, started = timing.set(self._note), time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
            timing.reset(token)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside a block that is being noted, leave out this one, such as a validation."""
        token, started = timing.set(None), time.perf_counter()
        try:
            yield
        finally:
            self.seconds -= time.perf_counter() - started
            timing.reset(token)

    def _note(self, name: str, direction: str, seconds: float) -> None:
        total = self.records.setdefault(threading.get_ident(), defaultdict(Total))[name]
        if direction == "forward":
            total.calls += 1
            total.forward += seconds
        else:
            total.backward += seconds

    def totals(self) -> dict[str, Total]:
        """Return by name what all threads noted together, the costliest first."""
        totals: dict[str, Total] = defaultdict(Total)
        for record in self.records.values():
            for name, total in record.items():
                totals[name].add(total)
        return dict(sorted(totals.items(), key=lambda item: item[1].seconds, reverse=True))

    def table(self) -> str:
        """Return a line for every operation, for all of them, for all else, and for the whole."""
        whole = self.replicas * self.seconds
        totals, together = self.totals(), Total()
        operations = {name: total for name, total in totals.items() if name in OPS}
        around = {name: total for name, total in totals.items() if name not in OPS}
        for total in operations.values():
            together.add(total)
        rest = whole - sum(total.forward for total in around.values())
        if AROUND_OPERATIONS in around:
            around[AROUND_OPERATIONS].forward -= together.seconds
        rows = {**operations, "all operations": together, **around}
        rows |= {"waiting, and the rest": Total(0, rest), "all": Total(0, whole)}
        head = f"{'operation':24}{'forward, s':>12}{'backward, s':>13}{'calls':>12}{'share':>11}"
        return "\n".join([head, *(total.line(name, whole) for name, total in rows.items())])
