"""Updates that were handed over: they are read late on a GPU, at once on a CPU, and none that is not finite is made."""

import numpy as np
import pytest

from tinytransformer.optim import Adam
from tinytransformer.progress import READ_EVERY, Progress, Standing, TrainingError, Unread


def unread(make_model, **changes):
    """Return the updates of a new run, where it stands, what was reported, and a function that notes one more."""
    optimizer, standing, reports = Adam(make_model(12, **changes).parameters), Standing(), []
    updates = Unread(optimizer, standing, reports.append)

    def add(step, loss, norm=1.0):
        loss, norm = (updates.xp.asarray(np.array(x)) for x in (loss, norm))
        updates.add(Progress(step, 1, loss, 0.1, 10), norm)

    return updates, standing, reports, add


def test_on_a_cpu_an_update_is_looked_at_before_it_is_made(make_model):
    updates, standing, reports, add = unread(make_model)
    add(1, 2.0)
    assert updates.verdict() is None
    assert updates.is_due()
    updates.read()
    assert standing == Standing(1, 20.0, 10)
    add(2, np.nan)
    with pytest.raises(TrainingError, match=r"^step 2: the loss is nan and the norm of its gradient 1\.0; "):
        updates.verdict()
    assert [(report.step, report.loss) for report in reports] == [(1, 2.0)]


def test_a_gpu_is_told_to_hold_still_and_asked_later(make_model, gpu):
    """From the first update that is not finite on, whatever comes behind it."""
    updates, standing, reports, add = unread(make_model, device="cuda")
    verdicts = []
    for step in range(1, READ_EVERY + 1):
        assert not updates.is_due()
        add(step, 2.0, np.inf if step == 3 else 1.0)
        verdicts.append(updates.verdict())
    assert updates.is_due()
    assert gpu.waits == 0
    assert [bool(verdict) for verdict in verdicts] == [True, True] + [False] * (READ_EVERY - 2)
    with pytest.raises(TrainingError, match=r"^step 3: the loss is 2\.0 and the norm of its gradient inf; "):
        updates.read()
    assert [report.step for report in reports] == [1, 2]
    assert (standing.step, updates.optimizer.step) == (2, 2)
