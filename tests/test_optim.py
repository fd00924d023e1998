"""Adam, clipping and the schedules, against the algorithms of their papers and against PyTorch."""

import math
from itertools import pairwise

import numpy as np
import pytest

from tinytransformer import optim
from tinytransformer.module import FlatParameters, Module, Parameter
from tinytransformer.optim import CHUNK, Adam, clipping, cosine, inverse_square_root

ROWS, COLUMNS = 5, CHUNK // 4 + 3  # the matrix ends inside the second chunk, the vector inside the third
RATES = [1e-2, 3e-3, 1e-3, 5e-3, 2e-2, 1e-4, 1e-3, 1e-2, 1e-3, 1e-3]


def clipped(gradient, limit):
    """Clip in place; return the norm before."""
    norm, scale = clipping(gradient, limit)
    gradient *= scale
    return norm


class Two(Module):
    """A gain, set first, and a matrix, which the flat buffers put before it: together more than two chunks."""

    def __init__(self, dtype=np.float64):
        random = np.random.default_rng(3)
        self.gain = Parameter(random.normal(size=CHUNK))
        self.matrix = Parameter(random.normal(size=(ROWS, COLUMNS)))
        self.parameters = FlatParameters(self, dtype=dtype)


def gradients(size):
    """Return one gradient per step, elements between 1e-5 and 10 in size, some of them zero."""
    random = np.random.default_rng(4)
    steps = [random.normal(size=size) * 10 ** random.uniform(-5, 1, size) for _ in RATES]
    for step in steps:
        step[::7] = 0
    return steps


def run_adam(options, dtype=np.float64):
    """Return the model after one step for each of RATES, and its optimizer."""
    model = Two(dtype)
    adam = Adam(model.parameters, **options)
    for rate, gradient in zip(RATES, gradients(model.parameters.data.size), strict=True):
        model.parameters.grad[...] = gradient
        adam.update(rate)
    return model, adam


def scalar_adam(p, gs, *, betas, eps, decay):
    """Return one number after all steps: Kingma and Ba 2015, algorithm 1, with the decay of AdamW."""
    m = v = 0.0
    for t, (rate, g) in enumerate(zip(RATES, gs, strict=True), start=1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        m_hat = m / (1 - betas[0] ** t)
        v_hat = v / (1 - betas[1] ** t)
        p = p - rate * decay * p - rate * m_hat / (math.sqrt(v_hat) + eps)
    return p, m, v


OPTIONS = {
    "adam": {},
    "adam, large eps": {"betas": (0.8, 0.9), "eps": 1e-2},
    "adamw": {"weight_decay": 0.1},
    "adamw, large eps": {"betas": (0.9, 0.999), "eps": 1e-3, "weight_decay": 0.03},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_ten_steps_are_those_of_the_paper(options):
    """Element by element, at the borders of all chunks and of the decay; parameters and both moments."""
    start = Two().parameters
    steps = gradients(start.data.size)
    model, adam = run_adam(options)
    assert adam.step == len(RATES)
    borders = [0, CHUNK, 2 * CHUNK, start.decayed, start.data.size]
    for i in sorted({i for border in borders for i in range(border - 3, border + 3) if 0 <= i < start.data.size}):
        p, m, v = scalar_adam(
            float(start.data[i]),
            [float(step[i]) for step in steps],
            betas=options.get("betas", (0.9, 0.98)),
            eps=options.get("eps", 1e-9),
            decay=options.get("weight_decay", 0.0) if i < ROWS * COLUMNS else 0.0,
        )
        assert model.parameters.data[i] == pytest.approx(p, rel=1e-12)
        assert (adam.m[i], adam.v[i]) == pytest.approx((m, v), rel=1e-12)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_ten_steps_are_those_of_pytorch(options):
    """To 1e-10, every element: matrices decay, gains do not. Measured: 6e-13, for one that ends near 0."""
    torch = pytest.importorskip("torch")
    start = Two()
    matrix, gain = (torch.tensor(x.data, requires_grad=True) for x in (start.matrix, start.gain))
    decay = options.get("weight_decay", 0.0)
    shared = {"betas": options.get("betas", (0.9, 0.98)), "eps": options.get("eps", 1e-9)}
    if decay:
        groups = [{"params": [matrix], "weight_decay": decay}, {"params": [gain], "weight_decay": 0.0}]
        theirs = torch.optim.AdamW(groups, **shared)
    else:
        theirs = torch.optim.Adam([matrix, gain], **shared)
    for rate, gradient in zip(RATES, gradients(start.parameters.data.size), strict=True):
        matrix.grad = torch.from_numpy(gradient[: matrix.numel()].reshape(matrix.shape))
        gain.grad = torch.from_numpy(gradient[matrix.numel() :])
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
    model, _ = run_adam(options)
    for ours, other in ((model.matrix, matrix), (model.gain, gain)):
        worst = np.abs(ours.data / other.detach().numpy() - 1).max()
        print(f"\nworst relative difference to torch.optim: {worst:.1e}")
        assert worst < 1e-10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("chunk", [1000, 2 * CHUNK, 10**9])
def test_the_size_of_a_chunk_changes_not_a_bit(monkeypatch, chunk, dtype):
    expected, _ = run_adam({"weight_decay": 0.1}, dtype)
    monkeypatch.setattr(optim, "CHUNK", chunk)
    model, adam = run_adam({"weight_decay": 0.1}, dtype)
    assert adam.chunk == chunk
    np.testing.assert_array_equal(model.parameters.data, expected.parameters.data)


def test_a_gradient_that_is_not_sound_is_let_go():
    """Neither parameters nor moments move; the next gradient finds zeros."""
    model, adam = run_adam({"weight_decay": 0.1})
    before = [x.copy() for x in (model.parameters.data, adam.m, adam.v)]
    model.parameters.grad[...] = np.nan
    adam.update(0.1, sound=np.array(False))
    assert not model.parameters.grad.any()
    for x, y in zip((model.parameters.data, adam.m, adam.v), before, strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_step_writes_in_place_and_stays_in_float32():
    """Parameters stay views; float32 agrees with float64 to float32's precision; moments are float32 too."""
    model, adam = run_adam({"weight_decay": 0.1}, np.float32)
    exact, _ = run_adam({"weight_decay": 0.1})
    assert {x.dtype for x in (adam.m, adam.v, model.parameters.data, model.parameters.grad)} == {np.dtype("float32")}
    assert np.shares_memory(model.gain.data, model.parameters.data)
    np.testing.assert_allclose(model.matrix.data, exact.matrix.data, rtol=1e-4, atol=1e-5)


def test_the_first_step_has_the_length_of_the_rate_whatever_the_gradient():
    """Bias correction: m^ / sqrt(v^) is the sign of the gradient at step 1."""
    model = Two()
    before = model.parameters.data.copy()
    gradient = gradients(before.size)[0]
    model.parameters.grad[...] = gradient
    Adam(model.parameters, eps=1e-30).update(0.25)
    np.testing.assert_allclose(model.parameters.data - before, -0.25 * np.sign(gradient), atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("limit", [0.5, 1.0, 4.999])
def test_clipping_keeps_the_direction_and_sets_the_length(dtype, limit):
    """[3, 0, -4] has norm 5; the norm before is returned; it is done in place."""
    gradient = np.array([3, 0, -4], dtype=dtype)
    same = gradient
    norm = clipped(gradient, limit)
    assert norm == 5
    assert same.dtype == norm.dtype == dtype
    np.testing.assert_allclose(same, np.array([3, 0, -4]) * limit / 5, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("limit", [5.0, 5.001, 1e300])
def test_at_or_below_the_limit_not_a_bit_changes(limit):
    gradient = np.array([3.0, 0.0, -4.0])
    assert clipped(gradient, limit) == 5
    np.testing.assert_array_equal(gradient, [3, 0, -4])


def test_a_scale_is_that_of_the_gradient():
    moments = []
    for factor, scale in ((1.0, 0.125), (0.125, 1.0)):
        model = Two()
        adam = Adam(model.parameters)
        model.parameters.grad[...] = factor * gradients(model.parameters.data.size)[0]
        adam.update(1e-3, scale=scale)
        moments.append((adam.m, adam.v))
    np.testing.assert_array_equal(*moments)
    assert np.any(moments[0][0])


def test_a_step_leaves_zeros_as_the_gradient():
    model, _ = run_adam({})
    np.testing.assert_array_equal(model.parameters.grad, 0)


def test_a_zero_gradient_stays_zero():
    gradient = np.zeros(3, dtype=np.float32)
    assert clipped(gradient, 1.0) == 0
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("limit", [0.1, 2.0, 1e6])
def test_clipping_is_that_of_pytorch_but_for_its_epsilon(limit):
    """PyTorch scales by limit / (norm + 1e-6), which misses the limit by 1e-6 / norm; ours scales by limit / norm."""
    torch = pytest.importorskip("torch")
    ours = np.random.default_rng(5).normal(size=1000)
    theirs = torch.tensor(ours, requires_grad=True)
    theirs.grad = torch.tensor(ours)
    before = torch.nn.utils.clip_grad_norm_([theirs], limit).item()
    assert clipped(ours, limit) == pytest.approx(before, rel=1e-14)
    epsilon = (before + 1e-6) / before if before > limit else 1
    np.testing.assert_allclose(ours, theirs.grad.numpy() * epsilon, rtol=1e-13)


@pytest.mark.parametrize("step", [1, 2, 100, 3999, 4000, 4001, 16000, 100_000])
def test_inverse_square_root_is_equation_3_of_vaswani(step):
    """d^-0.5 * min(step^-0.5, step * warmup^-1.5), with d = 512 and warmup = 4000."""
    expected = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
    assert inverse_square_root(step, peak=(512 * 4000) ** -0.5, warmup=4000) == pytest.approx(expected, rel=1e-14)


INVERSE, COSINE = inverse_square_root, lambda step, **k: cosine(step, total=110, **k)


@pytest.mark.parametrize(
    ("schedule", "warmup", "values"),
    [
        # The last value of the first row: 7e-4 at 4000, so half of it at four times the steps.
        (INVERSE, 4000, {1: 7e-4 / 4000, 2000: 3.5e-4, 4000: 7e-4, 16000: 3.5e-4, 400_000: 7e-5}),
        (INVERSE, 1, {1: 7e-4, 4: 3.5e-4}),
        (COSINE, 10, {1: 7e-5, 5: 3.5e-4, 10: 7e-4, 60: 3.5e-4, 110: 0, 200: 0}),
        (COSINE, 10, {35: 7e-4 * (0.5 + math.sqrt(0.125)), 85: 7e-4 * (0.5 - math.sqrt(0.125))}),
        (COSINE, 0, {55: 3.5e-4, 110: 0}),
        (COSINE, 110, {55: 3.5e-4, 110: 7e-4}),  # warm-up to the last step
    ],
)
def test_schedules_at_steps_worked_out_by_hand(schedule, warmup, values):
    for step, expected in values.items():
        assert schedule(step, peak=7e-4, warmup=warmup) == pytest.approx(expected, rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("schedule", [INVERSE, COSINE], ids=["inverse", "cosine"])
def test_schedules_rise_to_the_peak_without_a_jump_and_then_fall(schedule):
    rates = [schedule(step, peak=1.0, warmup=10) for step in range(1, 111)]
    assert rates[9] == max(rates) == 1
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert max(abs(a - b) for a, b in pairwise(rates)) <= 0.1 + 1e-12
