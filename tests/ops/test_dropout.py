"""Dropout drops the share that it says, and keeps the expected value."""

import math

import numpy as np
import pytest

from tinytransformer.ops import dropout
from tinytransformer.tensor import Tensor

SIZE = 200_000
# What a rate becomes in whole 256ths; at least one and at most 255, so that a rate above 0 always does something.
SHARES = {0.1: 26 / 256, 0.5: 1 / 2, 0.3: 77 / 256, 1e-3: 1 / 256, 1e-9: 1 / 256, 0.999: 255 / 256}


def drop(rate, seed=0, x=None):
    x = np.ones(SIZE, dtype=np.float32) if x is None else x
    return dropout(Tensor(x, requires_grad=True), rate=rate, generator=np.random.default_rng(seed))


@pytest.mark.parametrize(("rate", "share"), SHARES.items())
def test_the_share_dropped_is_binomial(rate, share):
    """Within five standard deviations of what the rate, in 256ths, promises."""
    dropped = np.count_nonzero(drop(rate).data == 0)
    assert abs(dropped - SIZE * share) < 5 * math.sqrt(SIZE * share * (1 - share))


@pytest.mark.parametrize(("rate", "share"), SHARES.items())
def test_the_scale_is_that_of_the_share_really_kept(rate, share):
    """So the expected value stays: not 1 / (1 - rate), which the rounding to 256ths would make wrong."""
    y = drop(rate).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / (1 - share))}
    deviation = math.sqrt(share / (1 - share) / SIZE)
    assert abs(y.mean(dtype=np.float64) - 1) < 5 * deviation


def test_the_generator_decides():
    """The same seed gives the same mask, another seed another one; the next draw is a new one."""
    np.testing.assert_array_equal(drop(0.5, seed=3).data, drop(0.5, seed=3).data)
    assert (drop(0.5, seed=3).data != drop(0.5, seed=4).data).any()
    generator = np.random.default_rng(3)
    first, second = (dropout(np.ones(100), rate=0.5, generator=generator).data for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("options", [{"rate": 0.9}, {"rate": 0, "generator": np.random.default_rng(0)}])
def test_without_a_generator_or_a_rate_nothing_is_dropped(options):
    """Output and gradient pass unchanged, and the generator is left alone."""
    generator = options.get("generator")
    state = generator and generator.bit_generator.state
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = dropout(x, **options)
    y.backward(np.full((2, 3), 7.0))
    np.testing.assert_array_equal(y.data, x.data)
    np.testing.assert_array_equal(x.grad, np.full((2, 3), 7.0))
    assert (generator and generator.bit_generator.state) == state


def test_the_gradient_goes_through_the_same_mask():
    """What was dropped gets none; what was kept gets it scaled alike."""
    x = Tensor(np.ones(1000), requires_grad=True)
    y = dropout(x, rate=0.25, generator=np.random.default_rng(1))
    y.backward(np.full(1000, 3.0))
    np.testing.assert_array_equal(x.grad, 3 * y.data)
    assert 0 < np.count_nonzero(x.grad) < 1000


def test_elements_are_dropped_one_by_one():
    """Neighbours along either axis agree as often as independent coins do."""
    y = drop(0.5, x=np.ones((400, 500))).data == 0
    for same in (y[1:] == y[:-1], y[:, 1:] == y[:, :-1]):
        assert abs(same.mean() - 0.5) < 5 * 0.5 / math.sqrt(same.size)
