"""Everything that runs on a GPU, under a stand-in for CuPy: nothing leaks to the host, and what comes out is the CPU's.

With a GPU at hand the same is checked on it, by test_gpu.py.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from device_training import OPTIONS, SEARCHES, SHAPES, both, results, step, trained
from stand_in import DeviceArray

from tinytransformer import training
from tinytransformer.checkpoint import load_state, load_weights, save_state, save_weights
from tinytransformer.data import make_batch
from tinytransformer.decoding import greedy
from tinytransformer.evaluation import evaluate_loss
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import analytic_gradients, check, draw
from tinytransformer.ops.sums import (
    sum_last,
    sum_of_products,
)
from tinytransformer.optim import Adam
from tinytransformer.progress import READ_EVERY, Standing, TrainingError
from tinytransformer.tensor import OPS
from tinytransformer.training import Replicas, train

EVERY_CASE = [(name, case) for name, cases in CASES.items() for case in cases]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("name", "case"), EVERY_CASE, ids=lambda value: getattr(value, "label", value))
def test_every_operation_runs_on_the_device(name, case):
    """Forward and backward, results and gradients: to rounding what they are on the CPU."""
    for here, there in zip(*(results(name, case, device) for device in ("cpu", "cuda")), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", ["embedding", "layer_norm"])
def test_the_gradient_check_runs_on_the_device(gpu, name):
    """As it does on a real one, for all operations."""
    for result in check(OPS[name], CASES[name][1], seed=0, device="cuda"):
        assert result.verdict == "pass", str(result)
    assert (
        gpu.waits > 6 * CASES[name][1].draws[0](np.random.default_rng(0)).size
    )  # it looked at what was computed there


def test_operations_wait_for_nothing(gpu):
    """Not even the gradient of an embedding, which has to know which ids are there."""
    for name, case in EVERY_CASE:
        arrays, upstream = draw(OPS[name], case, seed=0)
        before, gpu.asnumpy = gpu.waits, lambda x: x._memory  # to compare is no part of the operation
        analytic_gradients(OPS[name], case, arrays, upstream, device="cuda")
        assert gpu.waits == before, name


def test_sums_are_no_products_on_the_device(gpu):
    """TF32 would round them."""
    here = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    there = gpu.asarray(here)
    for sums in (sum_last, lambda x: sum_of_products(x, x)):
        one, other = sums(here), sums(there)
        assert other.dtype == np.float32
        assert other.shape == one.shape
        np.testing.assert_allclose(gpu.asnumpy(other), one, rtol=1e-5, atol=1e-6)
    assert gpu.tf32 is None


@pytest.mark.parametrize(("precision", "settled"), [("float32", "0"), ("tf32", "1")])
def test_train_sets_the_precision_before_the_first_product_that_it_is_for(
    train_script, folder, gpu, monkeypatch, tmp_path, precision, settled
):
    """In the order of train.py, which looks whether there is a GPU before all else."""
    monkeypatch.setenv("CUPY_TF32", "as it was")
    monkeypatch.setattr(train_script, "keep_freed_memory", lambda: None)
    text = ["--source", str(folder / "train.en"), "--target", str(folder / "train.de"), "--vocab-size", "400"]
    small = ["--steps", "1", "--batch-tokens", "400", "--out", str(tmp_path / "run")]
    arguments = ["train.py", *text, *small, "--device", "cuda", "--precision", precision]
    monkeypatch.setattr("sys.argv", arguments)
    train_script.main()
    assert gpu.tf32 == settled


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("changes", SHAPES, ids=["pre-norm", "post-norm"])
def test_a_gradient_is_that_of_the_cpu(make_model, corpus, gpu, changes, replicas):
    here, there = both(make_model, dtype=np.float64, **changes)
    (loss, gradient), (loss_there, gradient_there) = step(here, corpus, replicas), step(there, corpus, replicas)
    assert isinstance(loss_there, DeviceArray)
    assert isinstance(gradient_there, DeviceArray)
    np.testing.assert_allclose(gpu.asnumpy(loss_there), loss, rtol=1e-12)
    np.testing.assert_allclose(gpu.asnumpy(gradient_there), gradient, rtol=0, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize(
    "changes", [{}, {"accumulate": 2, "valid_every": 9, "clip": 0.1}], ids=["plain", "accumulated"]
)
def test_a_training_is_that_of_the_cpu(make_model, corpus, gpu, changes):
    """Parameters and moments, standing, reports and validations: nothing shows that the host was not waiting."""
    options = replace(OPTIONS, **changes)
    here, there = (trained(model, corpus, options) for model in both(make_model, dtype=np.float64, **SHAPES[0]))
    for x, y in zip(here[0], there[0], strict=True):
        np.testing.assert_allclose(gpu.asnumpy(y), x, rtol=0, atol=1e-9 * np.abs(x).max())
    assert replace(there[1], loss_sum=0.0) == replace(here[1], loss_sum=0.0)
    for one, other in zip(here[2], there[2], strict=True):
        assert replace(one, loss=0.0) == replace(other, loss=0.0)
        assert type(other.loss) is float
        assert other.loss == pytest.approx(one.loss, rel=1e-9)
    assert [at for at, _ in here[3]] == [at for at, _ in there[3]]
    np.testing.assert_allclose([loss for _, loss in there[3]], [loss for _, loss in here[3]], rtol=1e-9)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_training_waits_once_in_many_steps(make_model, corpus, gpu, replicas):
    trained(make_model(12, device="cuda", **SHAPES[0]), corpus, replace(OPTIONS, replicas=replicas))
    assert gpu.waits == math.ceil(OPTIONS.steps / READ_EVERY)


def test_leak_three_a_float_in_the_loop(make_model, corpus, gpu, monkeypatch):
    """A step that looks at its loss is right in every number, and only here does it show."""
    add_gradient = training.add_gradient

    def leaking(*arguments):
        loss = add_gradient(*arguments)
        assert math.isfinite(float(loss))
        return loss

    monkeypatch.setattr(training, "add_gradient", leaking)
    trained(make_model(12, device="cuda"), corpus, OPTIONS)
    assert gpu.waits > OPTIONS.steps


def test_a_training_is_left_off_where_it_has_been_read_to_the_end(make_model, corpus, gpu):
    """Whoever is asked whether to stop may also save: what stands there belongs together."""
    model = make_model(12, device="cuda")
    optimizer, standing, asked = Adam(model.parameters), Standing(), []

    def stop():
        asked.append((standing.step, optimizer.step))
        return len(asked) == 2

    reports = []
    train(model, corpus, OPTIONS, optimizer=optimizer, standing=standing, report=reports.append, stop=stop)
    assert asked == [(0, 0), (READ_EVERY, READ_EVERY)]
    assert [report.step for report in reports] == list(range(1, READ_EVERY + 1))
    assert gpu.waits == 1


@pytest.mark.parametrize("at", [1, 3, READ_EVERY, READ_EVERY + 1])
def test_what_is_not_finite_changes_nothing(make_model, corpus, gpu, monkeypatch, at):
    """All that was handed over behind the bad step leaves no trace: it is as if that step had ended the run at once."""
    gradient = Replicas.gradient

    def overflow(self, parts, tokens, number):
        loss = gradient(self, parts, tokens, number)
        if number == at:
            self.models[0].parameters.grad[7] = np.nan
        return loss

    expected = trained(make_model(12, device="cuda", dtype=np.float32), corpus, replace(OPTIONS, steps=at - 1 or 1))
    monkeypatch.setattr(Replicas, "gradient", overflow)
    model = make_model(12, device="cuda", dtype=np.float32)
    before = gpu.asnumpy(model.parameters.data)
    optimizer, standing, reports = Adam(model.parameters, weight_decay=0.01), Standing(), []
    with pytest.raises(TrainingError, match=rf"^step {at}: the loss is \d.* and the norm of its gradient nan"):
        train(model, corpus, OPTIONS, optimizer=optimizer, standing=standing, report=reports.append)
    assert [report.step for report in reports] == list(range(1, at))
    assert standing.step == optimizer.step == at - 1
    after = [gpu.asnumpy(x) for x in (model.parameters.data, optimizer.m, optimizer.v)]
    wanted = [before, 0 * before, 0 * before] if at == 1 else [gpu.asnumpy(x) for x in expected[0]]
    for x, y in zip(after, wanted, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.usefixtures("gpu")
def test_ids_are_looked_at_before_they_go_over(make_model, corpus, side):
    model, batch = make_model(12, device="cuda"), make_batch(corpus.pairs[:3])
    getattr(batch, side)[1, 1] = 12
    with pytest.raises(IndexError, match=rf"{side}: id 12 is outside \[0, 12\)"):
        training.add_gradient(model, batch, batch.tokens, 0.1, None)
    with pytest.raises(IndexError, match=r"source: id 40 is outside"):
        greedy(model, [[5, 40]], [3])


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("vocabulary", [12, 150])  # the larger is looked through in groups
def test_a_search_finds_what_it_finds_on_the_cpu(make_model, corpus, search, vocabulary):
    sources = [source for source, _ in corpus.pairs[:6]]
    here, there = (search(make_model(vocabulary, device=device), sources, [9] * 6) for device in ("cpu", "cuda"))
    flat = [[h if isinstance(h, list) else [h] for h in found] for found in (here, there)]
    for one, other in zip(*([h for row in found for h in row] for found in flat), strict=True):
        assert (one.ids, one.finished) == (other.ids, other.finished)
        assert one.log_probability == pytest.approx(other.log_probability, rel=1e-12)


def test_weights_and_state_go_to_disk_and_back(make_model, corpus, gpu, tmp_path):
    """Between the devices in either direction, bit for bit."""
    model = make_model(12, device="cuda", dtype=np.float32)
    optimizer = Adam(model.parameters)
    train(model, corpus, replace(OPTIONS, steps=3), optimizer=optimizer)
    save_weights(tmp_path / "model.safetensors", model)
    save_state(tmp_path, optimizer, {"step": 3})
    for device in ("cpu", "cuda"):
        other = make_model(12, device=device, dtype=np.float32, seed=1)
        load_weights(tmp_path / "model.safetensors", other)
        assert gpu.asnumpy(other.parameters.data).tobytes() == gpu.asnumpy(model.parameters.data).tobytes()
        again = Adam(make_model(12, device=device, dtype=np.float32, seed=2).parameters)
        assert load_state(tmp_path, again)["step"] == again.step == 3
        for x, y in zip(
            (again.m, again.v, again.parameters.data),
            (optimizer.m, optimizer.v, optimizer.parameters.data),
            strict=True,
        ):
            assert gpu.asnumpy(x).tobytes() == gpu.asnumpy(y).tobytes()


def test_the_loss_on_held_out_pairs_is_that_of_the_cpu(make_model, corpus, gpu):
    here, there = both(make_model, dtype=np.float64)
    assert evaluate_loss(there, corpus.pairs).per_token == pytest.approx(evaluate_loss(here, corpus.pairs).per_token)
