"""What the loss promises beside its values: that it may go over the logits a few rows at a time."""

import numpy as np
import pytest

from tinytransformer.ops import cross_entropy, sums


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_a_few_rows_at_a_time_are_all_rows_at_once(monkeypatch, label_smoothing):
    generator = np.random.default_rng(0)
    logits, targets = 20 * generator.normal(size=(3, 5, 7)), generator.integers(0, 7, (3, 5))
    options = {"targets": targets, "padding": 2, "label_smoothing": label_smoothing}
    loss, backward = cross_entropy.plain(logits, **options)
    gradient = backward(np.float64(1))[0]  # before: it goes in blocks as well
    monkeypatch.setattr(sums, "FEW", 4 * 7)
    assert len(sums.few_rows(logits.reshape(-1, 7))) == 4
    in_blocks, backward_of_blocks = cross_entropy.plain(logits, **options)
    np.testing.assert_allclose(in_blocks, loss, rtol=1e-15)
    np.testing.assert_allclose(backward_of_blocks(np.float64(1))[0], gradient, rtol=0, atol=1e-16)
