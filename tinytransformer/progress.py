"""How far a run has come, also where a GPU is behind the loop: what was handed over to it is read now and then."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tinytransformer.backend import Array, array_module, to_host
from tinytransformer.optim import Adam
from tinytransformer.tape import checking

READ_EVERY = 16  # steps from one look at what a GPU has computed to the next: each look waits until it is done


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class Progress:
    """What is reported of each update. loss: with label smoothing, per target token of this update."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    tokens: int


@dataclass
class Standing:
    """Where a run stands: beside the parameters and the optimizer's moments all that it needs to go on.

    step: updates taken. loss_sum, token_sum: over the updates since the last validation.
    """

    step: int = 0
    loss_sum: float = 0.0
    token_sum: int = 0


class Unread:
    """The updates that were handed over, and whose losses have not been looked at.

    On a CPU that is the last one at most, and whether it is finite is known before it is made. A GPU is not asked:
    it decides by itself, and from the first step on that is not finite it changes nothing, until `read` says so.
    """

    def __init__(self, optimizer: Adam, standing: Standing, report: Callable[[Progress], object]):
        self.optimizer, self.now, self.report = optimizer, standing, report
        self.updates: list[tuple[Progress, Array]] = []
        self.xp = array_module(optimizer.m)
        self.sound: Array = self.xp.ones((), dtype=bool)  # whether all updates so far are finite

    def add(self, progress: Progress, norm: Array) -> None:
        """Note an update that is about to be made; its loss, and the norm of its gradient, may be on the device."""
        self.updates.append((progress, norm))
        self.sound = self.sound & self.xp.isfinite(progress.loss + norm)

    def verdict(self) -> Array | None:
        """Return what `Adam.update` is to be told of the last one. Raises: as `read`, on a CPU, which can look."""
        if self.xp is not np:
            return self.sound
        if not self.sound:
            self.read()
        return None

    def is_due(self) -> bool:
        """Return whether to `read` now; under `debugging()` after every update, as each operation is waited for."""
        return len(self.updates) >= (1 if self.xp is np or checking.get() else READ_EVERY)

    def read(self) -> None:
        """Report all updates, and bring the standing up to date; this waits for a GPU, once.

        Raises: TrainingError at the first that is not finite.
        """
        updates, self.updates = self.updates, []
        values = to_host(self.xp.stack([x for progress, norm in updates for x in (progress.loss, norm)]))
        for (progress, _), (loss, norm) in zip(updates, values.reshape(-1, 2).tolist(), strict=True):
            now, tokens = self.now, progress.tokens
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.optimizer.step = now.step  # all after it was handed over in vain
                raise TrainingError(
                    f"step {progress.step}: the loss is {loss} and the norm of its gradient {norm}; "
                    "a smaller learning rate or a longer warm-up may help"
                )
            now.step, now.loss_sum, now.token_sum = progress.step, now.loss_sum + loss * tokens, now.token_sum + tokens
            self.report(replace(progress, loss=loss))
