"""The clock leaves out the first steps, takes the median of the others, and stops when it has enough."""

import pytest

from benchmarks import clock
from benchmarks.clock import Clock


@pytest.fixture
def tick(monkeypatch):
    """Return a function that lets some seconds pass and ends a step."""
    now = [100.0]
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])

    def run(timer, seconds):
        now[0] += seconds
        timer()

    return run


def test_the_first_steps_do_not_count(tick):
    timer = Clock(warm_up=2, least=3, seconds=0)
    for seconds in (50, 40, 1, 3, 2):
        assert not timer.enough()
        tick(timer, seconds)
    assert timer.enough()
    assert timer.median() == 2


def test_it_goes_on_until_there_are_enough_steps_and_seconds(tick):
    timer = Clock(warm_up=1, least=2, seconds=10)
    for seconds in (9, 3, 3, 3):
        tick(timer, seconds)
        assert not timer.enough()
    tick(timer, 1)
    assert timer.enough()
