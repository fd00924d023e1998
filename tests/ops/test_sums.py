"""The sums and the maximum that operations share, against those of NumPy."""

import numpy as np
import pytest

import tinytransformer.ops.sums as module
from tinytransformer.ops.sums import SHORT, few_rows, is_moderate, max_last, sum_last, sum_of_products, sum_to_last

WIDTHS = [1, 2, 3, SHORT - 1, SHORT, SHORT + 1, 3 * SHORT]


@pytest.fixture(params=WIDTHS)
def x(request):
    return np.random.default_rng(request.param).normal(size=(2, 5, 3, request.param))


def views(x):
    """The array as it is, and as views that are laid out otherwise."""
    return [x, x.swapaxes(0, 1), x[:, ::2], x[..., ::-1], x[0]]


def test_the_largest_of_every_row(x):
    x[0, 0, 0] = -np.inf  # a row in which all is hidden
    for view in views(x):
        np.testing.assert_array_equal(max_last(view), view.max(axis=-1, keepdims=True))


def test_the_largest_stands_anywhere():
    for width in WIDTHS:
        rows = np.arange(width) == np.arange(width)[:, None]
        np.testing.assert_array_equal(max_last(rows.astype(np.float32) - 1), np.zeros((width, 1), np.float32))


def test_what_is_no_number_is_not_lost(x):
    x[1, 2, 0, -1] = np.nan
    assert np.isnan(max_last(x)).sum() == 1


def test_sums(x):
    for view in views(x):
        np.testing.assert_allclose(sum_last(view), view.sum(axis=-1, keepdims=True), rtol=0, atol=1e-12)
        np.testing.assert_allclose(sum_to_last(view), view.reshape(-1, x.shape[-1]).sum(axis=0), rtol=0, atol=1e-12)
        expected = (view * (view + 1)).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(sum_of_products(view, view + 1), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("function", [max_last, sum_last, sum_to_last, lambda x: sum_of_products(x, x)])
def test_float32_stays(function, x):
    assert function(x.astype(np.float32)).dtype == np.float32


def test_the_ones_that_are_kept_cannot_be_written_to():
    """Whoever wrote into them would falsify every sum that follows."""
    for count in (3, 5, 4):
        ones = module._ones(count, np.dtype(np.float32))
        np.testing.assert_array_equal(ones, np.ones(count, np.float32), strict=True)
        with pytest.raises(ValueError, match="read-only"):
            ones[0] = 2


@pytest.mark.parametrize("shape", [(0, 5), (1, 5), (7, 5), (7, 1000), (3, 0)])
def test_few_rows_are_all_rows_in_order(monkeypatch, shape):
    monkeypatch.setattr(module, "FEW", 12)
    rows, size = np.arange(shape[0]), max(1, 12 // max(1, shape[1]))
    blocks = [rows[few] for few in few_rows(np.empty(shape))]
    assert np.concatenate([rows[:0], *blocks]).tolist() == rows.tolist()
    assert [len(block) for block in blocks[:-1]] == [size] * len(blocks[:-1])


@pytest.mark.parametrize("score", [0.0, 59.9, -59.9])
def test_scores_are_moderate(score):
    assert is_moderate(np.array([[1.0, score]]))


@pytest.mark.parametrize("score", [60.1, -60.1, np.inf, -np.inf, np.nan])
def test_one_score_is_not_moderate(score):
    assert not is_moderate(np.array([[1.0, score]]))


def test_where_there_are_no_scores_all_are_moderate():
    assert is_moderate(np.zeros((0, 5)))
