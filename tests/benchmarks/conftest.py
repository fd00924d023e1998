"""Makes the package importable, which is not installed, and gives it sizes that take no time."""

import sys
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.clock import Clock
from benchmarks.sizes import Size


@pytest.fixture
def size():
    """The smallest model, with batches of four sentences of five tokens."""
    return Size(vocabulary=20, width=8, feed_forward_width=12, heads=2, layers=1, batch=4, length=5)


@pytest.fixture
def new_clock():
    """Return a function that makes a clock that is content with two steps after one."""
    return partial(Clock, warm_up=1, least=2, seconds=0)
