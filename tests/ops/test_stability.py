"""float32 at its limits: outputs and gradients stay finite and right, and nothing becomes float64."""

import numpy as np
import pytest

from tinytransformer.tensor import OPS, Tensor

from .cases import CASES, Case, relative_difference

BIG = 1e4
ROWS = np.array([[BIG, 0, -BIG, 1], [-BIG, 1 - BIG, 2 - BIG, -BIG], [BIG, BIG - 1, BIG, BIG - 2], [BIG, BIG, BIG, BIG]])
BENDS = np.array([-BIG, -30, -1, 0.5, 30, BIG])
RANDOM = np.random.default_rng(5)
# Whole numbers, so that the scores (up to 4e4 in size) are exact in float32 too and only the rest can go wrong.
# Every query has two keys that match it equally well, so that there are gradients to speak of.
QUERY = RANDOM.integers(-100, 101, (1, 2, 3, 4)).astype(float)
TURNED = QUERY[..., [1, 0, 3, 2]] * [1, -1, 1, -1]  # orthogonal to the query
KEY = np.concatenate([QUERY, QUERY + TURNED], axis=2)
VALUE = RANDOM.normal(size=(1, 2, 6, 3))
POSITIONS = RANDOM.normal(size=(4, 256))
GAIN, BIAS = RANDOM.normal(size=(2, 256))
LOGITS = RANDOM.normal(size=(8, 50))
TARGETS = RANDOM.integers(0, 50, 8)
GAP = np.array([[BIG, 0, 0, 0]])

STEEP = [  # a case, and how far float32 may be from float64
    *[(Case(op, f"rows at +-1e4, axis {axis}", (ROWS,), {"axis": axis}), 1e-6)
      for op in ("softmax", "log_softmax", "logsumexp") for axis in (0, -1)],
    *[(Case(op, "at +-1e4", (BENDS,), {}), 1e-6) for op in ("tanh", "sigmoid", "gelu", "relu")],
    (Case("attention", "scores at +-1e4", (QUERY, KEY, VALUE), {}), 1e-5),
    (Case("attention", "scores at +-1e4, causal", (QUERY, KEY, VALUE), {"causal": True}), 1e-5),
    (Case("blockwise_attention", "scores at +-1e4", (QUERY, KEY, VALUE), {"block": 2}), 1e-5),
    (Case("blockwise_attention", "at +-1e4, causal", (QUERY, KEY, VALUE), {"block": 2, "causal": True}), 1e-5),
    (Case("layer_norm", "mean 1e4", (POSITIONS + BIG, GAIN, BIAS), {}), 1e-3),  # the steps of float32 at 1e4
    (Case("layer_norm", "constant positions", (np.full((2, 256), BIG), GAIN, BIAS), {}), 1e-5),
    (Case("cross_entropy", "a certain token", (GAP,), {"targets": np.array([0])}), 1e-6),
    (Case("cross_entropy", "an impossible token", (GAP,), {"targets": np.array([2])}), 1e-6),
    (Case("cross_entropy", "certain and smoothed", (GAP,), {"targets": np.array([0]), "label_smoothing": 0.1}), 1e-6),
    (Case("cross_entropy", "at -1e4", (ROWS[1:2],), {"targets": np.array([1])}), 1e-6),
    (Case("cross_entropy", "all logits near 1e4", (LOGITS + BIG,), {"targets": TARGETS}), 1e-6),
    (Case("cross_entropy", "near 1e4, smoothed", (LOGITS + BIG,), {"targets": TARGETS, "label_smoothing": 0.1}), 1e-6),
]  # fmt: skip


@pytest.mark.parametrize(("case", "tolerance"), STEEP, ids=str)
def test_float32_is_right_where_exponents_are_large(case, tolerance):
    """Against float64 on the same float32 inputs; no overflow, no 0/0 and no warning on the way."""
    rounded = case._replace(inputs=tuple(case.arrays(np.float32)))
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        output, _, gradients = rounded.run(OPS[case.op], np.float32)
    right_output, _, right_gradients = rounded.run(OPS[case.op], np.float64)
    for found, right in zip([output, *gradients], [right_output, *right_gradients], strict=True):
        assert np.isfinite(found).all()
        assert np.isfinite(right).all()
        assert relative_difference(found, right) < tolerance


@pytest.mark.parametrize(("target", "loss"), [(0, 0.0), (1, BIG)])
def test_a_certain_token_costs_nothing_and_an_impossible_one_its_gap(target, loss):
    """With one logit 1e4 above the others, softmax is one-hot: the loss and the gradient are known exactly."""
    logits = Tensor(GAP.astype(np.float32), requires_grad=True)
    found = OPS["cross_entropy"](logits, targets=np.array([target]))
    found.backward()
    assert found.data == np.float32(loss)
    np.testing.assert_array_equal(logits.grad, [np.eye(4)[0] - np.eye(4)[target]])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_stays_float32(case):
    """Outputs and gradients have the dtype of the inputs; Python numbers do not widen it."""
    output, _, gradients = case.run(OPS[case.op], np.float32)
    assert output.dtype == np.float32
    assert {g.dtype for g in gradients if g is not None} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("op", "options"), [("attention", {}), ("blockwise_attention", {"block": 2})])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_queries_that_see_nothing_get_zeros(dtype, op, options):
    """Zeros come out, no gradient goes back through them, and the other queries notice nothing."""
    random = np.random.default_rng(3)
    q, k, v = (Tensor(random.normal(size=(2, 2, 3, 4)).astype(dtype), requires_grad=True) for _ in range(3))
    mask = np.ones((2, 1, 3, 3), dtype=bool)
    mask[1, 0, 1] = False
    output = OPS[op](q, k, v, mask=mask, **options)
    hidden_only = np.zeros(output.shape, dtype=dtype)
    hidden_only[1, :, 1] = 1
    with np.errstate(all="raise"):
        output.backward(hidden_only)
    assert not output.data[1, :, 1].any()
    assert not any(x.grad.any() for x in (q, k, v))
    plain = OPS[op](q, k, v, **options).data
    np.testing.assert_array_equal(output.data[mask[:, :, :, 0].repeat(2, 1)], plain[mask[:, :, :, 0].repeat(2, 1)])


@pytest.mark.parametrize("name", ["attention", "blockwise_attention"])
def test_without_a_key_there_is_nothing_to_see(name):
    query, key, value = (Tensor(np.ones((1, 2, time, 4)), requires_grad=True) for time in (3, 0, 0))
    y = OPS[name](query, key, value)
    np.testing.assert_array_equal(y.data, np.zeros((1, 2, 3, 4)))
    y.backward(np.ones(y.shape))
    assert [x.grad.shape for x in (query, key, value)] == [(1, 2, 3, 4), (1, 2, 0, 4), (1, 2, 0, 4)]
    assert not query.grad.any()


def test_an_embedding_may_have_no_features():
    table = Tensor(np.ones((3, 0)), requires_grad=True)
    OPS["embedding"](table, ids=np.array([[0, 2]])).backward(np.ones((1, 2, 0)))
    assert table.grad.shape == (3, 0)


def test_without_features_a_linear_layer_gives_its_bias():
    x, weight, bias = (Tensor(np.ones(shape), requires_grad=True) for shape in ((2, 3, 0), (0, 4), 4))
    y = OPS["linear"](x, weight, bias)
    np.testing.assert_array_equal(y.data, np.ones((2, 3, 4)))
    y.backward(np.ones(y.shape))
    assert (x.grad.shape, weight.grad.shape) == ((2, 3, 0), (0, 4))
    np.testing.assert_array_equal(bias.grad, np.full(4, 6.0))


def test_cross_entropy_of_nothing_but_padding_is_zero():
    """A batch without a real token has no loss and no gradient, rather than 0/0."""
    logits = Tensor(np.ones((2, 3), dtype=np.float32), requires_grad=True)
    loss = OPS["cross_entropy"](logits, targets=np.zeros(2, dtype=int), padding=0)
    loss.backward()
    assert loss.data == 0
    assert not logits.grad.any()


def test_padding_that_is_ruled_out_does_not_count():
    """Where the model gives padding a probability of 0 its loss would be infinite, and 0 times that is no number."""
    logits = Tensor(np.array([[0.0, -np.inf], [0.0, 0.0]]), requires_grad=True)
    loss = OPS["cross_entropy"](logits, targets=np.array([1, 0]), padding=1)
    with np.errstate(all="ignore"):
        loss.backward()
    np.testing.assert_allclose(loss.data, np.log(2), rtol=1e-15)
    np.testing.assert_allclose(logits.grad, [[0, 0], [-0.5, 0.5]], rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_token_that_is_ruled_out_costs_the_others_nothing(dtype):
    """A logit of -inf away from the target: the loss and its gradient are those without that token."""
    logits = np.array([[1.0, -np.inf, 3.0, 0.5], [-np.inf, 2.0, -np.inf, 0.0]], dtype=dtype)
    targets = np.array([2, 3])
    x = Tensor(logits, requires_grad=True)
    with np.errstate(all="raise"):
        loss = OPS["cross_entropy"](x, targets=targets)
        loss.backward()
    exps = np.exp(logits)
    p = exps / exps.sum(axis=-1, keepdims=True)
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(loss.data, -np.log(p[[0, 1], targets]).mean(), rtol=tolerance)
    np.testing.assert_allclose(x.grad, (p - np.eye(4)[targets]) / 2, rtol=tolerance, atol=tolerance)
    assert not x.grad[np.isinf(logits)].any()
