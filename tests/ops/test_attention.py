"""What attention promises beside its values: how they lie in memory, and that its scores may be of any size."""

import importlib

import numpy as np
import pytest

from tinytransformer.ops import attention, sums

module = importlib.import_module("tinytransformer.ops.attention")


def test_heads_are_laid_out_as_they_are_merged():
    """Of each position side by side, forward and backward, so that neither way copies anything."""
    query, key, value = (np.random.default_rng(i).normal(size=(2, 3, 5, 4)) for i in range(3))
    heads, backward = attention.plain(query, key, value)
    for x in (heads, *backward(np.ones_like(heads))):
        assert x.swapaxes(1, 2).flags.c_contiguous


@pytest.mark.parametrize("scale", [1.0, 55.0, -55.0, 59.999, -59.999, 60.001, 300.0, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_of_any_size_give_the_same_as_without_a_short_cut(monkeypatch, dtype, scale):
    """The maximum is taken out of a row or not; where every key is hidden all is 0. The largest score is `scale`."""
    query, value = np.ones((1, 1, 3, 1)), np.random.default_rng(0).normal(size=(1, 1, 4, 2))
    key = scale * np.array([1.0, 0.97, 0.5, -1.0]).reshape(1, 1, 4, 1)
    mask = np.array([[True] * 4, [False, False, True, True], [False] * 4])
    arrays = [x.astype(dtype) for x in (query, key, value)]
    heads, backward = attention.plain(*arrays, mask=mask)
    monkeypatch.setattr(sums, "MODERATE", 0.0)
    expected, expected_backward = attention.plain(*arrays, mask=mask)
    rtol = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(heads, expected, rtol=rtol, atol=rtol)
    assert not heads[0, 0, 2].any()
    for dx, dx_expected in zip(backward(np.ones_like(heads)), expected_backward(np.ones_like(heads)), strict=True):
        np.testing.assert_allclose(dx, dx_expected, rtol=0, atol=rtol * abs(scale))


@pytest.mark.parametrize("largest", [59.999, 60.001])
def test_a_maximum_is_taken_out_only_where_it_has_to_be(monkeypatch, largest):
    taken, max_last = [], module.max_last
    monkeypatch.setattr(module, "max_last", lambda x: taken.append(1) or max_last(x))
    for sign in (1, -1):
        key = np.array([1.0, sign * largest, 2.0]).reshape(1, 1, 3, 1)
        attention.plain(np.ones((1, 1, 2, 1)), key, np.ones((1, 1, 3, 1)))
    assert len(taken) == (2 if largest > 60 else 0)
