"""Differences, held against derivatives that are known in closed form."""

import numpy as np
import pytest

from tinytransformer.gradcheck.numerical import differences


def errors(step):
    """Return the errors of both slopes and of the jump of sin(x) at 0.4, where the true jump is 0."""
    x = np.array(0.4)
    found = differences(lambda: float(np.sin(x)), x, step)
    return np.abs([found.sixth - np.cos(0.4), found.fourth - np.cos(0.4), found.jump])


def test_orders_of_convergence():
    shrinkage = errors(0.4) / errors(0.2)
    np.testing.assert_allclose(shrinkage, [2**6, 2**4, 2**5], rtol=0.05)


@pytest.mark.parametrize("degree", range(1, 9))
def test_polynomials_up_to_degree_six_are_exact(degree):
    x = np.array(1.3)
    found = differences(lambda: float(x**degree), x, step=0.5)
    slope = degree * 1.3 ** (degree - 1)
    assert np.isclose(found.sixth, slope, rtol=1e-12) == (degree <= 6)
    assert np.isclose(found.fourth, slope, rtol=1e-12) == (degree <= 4)
    assert np.isclose(found.jump, 0, atol=1e-11 * slope) == (degree <= 5)


def test_every_element_is_differentiated_and_put_back():
    generator = np.random.default_rng(0)
    x, weight = generator.normal(size=(2, 3, 2)), generator.normal(size=(2, 3, 2))
    before = x.copy()
    found = differences(lambda: float((weight * np.exp(x)).sum()), x)
    np.testing.assert_allclose(found.sixth, weight * np.exp(before), rtol=1e-11)
    np.testing.assert_array_equal(x, before)


def test_a_view_is_differentiated_where_it_lies():
    base = np.arange(1.0, 7.0)
    x = base[::-2]
    found = differences(lambda: float((base**2).sum()), x)
    np.testing.assert_allclose(found.sixth, [12, 8, 4], rtol=1e-11)


def test_a_kink_at_the_point_is_a_jump_though_both_slopes_agree():
    x = np.array(0.0)
    found = differences(lambda: float(np.maximum(x, 0)), x)
    assert found.sixth == pytest.approx(0.5)
    assert found.fourth == pytest.approx(0.5)
    assert found.jump == pytest.approx(1)


@pytest.mark.parametrize("distance", [1e-12, 1e-6, 1e-3, 4e-3, 9e-3])
def test_a_kink_within_the_step_shows(distance):
    x = np.array(distance)
    found = differences(lambda: float(np.abs(x)), x)
    assert max(abs(found.sixth - found.fourth), abs(found.jump)) > 1e-3


@pytest.mark.parametrize("grid", [1e-3, 1e-4, 1e-5, 1 / 400])
def test_steps_finer_than_ours_show(grid):
    """Were our steps multiples of those of f, it would seem to be the straight line that it goes along."""
    x = np.array([0.3712])
    found = differences(lambda: float(np.round(x[0] / grid) * grid), x)
    assert abs(found.sixth - found.fourth)[0] > 1e-6 or abs(found.jump)[0] > 1e-6
