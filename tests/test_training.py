"""The loop: it learns, it can be repeated and left off, and its parts add up."""

import itertools
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from tinytransformer import training
from tinytransformer.checkpoint import load_state, save_state
from tinytransformer.data import Corpus, make_batch, plan_batches
from tinytransformer.decoding import greedy
from tinytransformer.evaluation import evaluate_loss
from tinytransformer.optim import Adam, cosine, inverse_square_root
from tinytransformer.progress import Standing, TrainingError
from tinytransformer.training import Replicas, TrainingOptions, generator_for, learning_rate, train
from tinytransformer.transformer import Transformer, TransformerConfig

OPTIONS = TrainingOptions(steps=6, batch_tokens=60, learning_rate=1e-2, warmup=3)


def trained(make_model, corpus, options, *, dtype=np.float32, **changes):
    """Return the parameters after training, and what was reported."""
    model, reports = make_model(12, dtype=dtype, scale=1.0, **changes), []
    train(model, corpus, options, report=reports.append)
    return model.parameters.data.tobytes(), reports


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_the_same_seed_gives_the_same_bytes(make_model, corpus, replicas):
    options = replace(OPTIONS, replicas=replicas)
    first = trained(make_model, corpus, options, dropout=0.3)
    assert trained(make_model, corpus, options, dropout=0.3) == first
    assert trained(make_model, corpus, replace(options, seed=2), dropout=0.3)[0] != first[0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_seed_decides_order_and_dropout(make_model, corpus, dropout):
    """Without dropout another seed still means another order; with all in one batch, only dropout is left."""
    together = replace(OPTIONS, batch_tokens=10**6)
    for options, differs in ((OPTIONS, True), (together, dropout > 0)):
        reports = [trained(make_model, corpus, replace(options, seed=s), dropout=dropout)[1] for s in (1, 2)]
        losses = [[r.loss for r in part] for part in reports]
        assert np.allclose(*losses, rtol=1e-4) != differs


def gradient(make_model, parts, replicas=1, **changes):
    model = make_model(12, **{"dropout": 0.0, **changes})
    with Replicas(model, replace(OPTIONS, replicas=replicas), Adam(model.parameters)) as together:
        loss = together.gradient(parts, sum(part.tokens for part in parts), 1)
    return np.array([loss, *model.parameters.grad])


@pytest.mark.parametrize("replicas", [1, 2, 3, 7])
@pytest.mark.parametrize("cuts", [[50], [25, 50], [1, 2, 30, 50]])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(make_model, corpus, replicas, cuts):
    """Accumulated or shared among replicas: loss and gradient are those of the mean over all tokens."""
    whole = gradient(make_model, [make_batch(corpus.pairs)])
    parts = [make_batch(corpus.pairs[a:b]) for a, b in zip([0, *cuts], cuts, strict=False)]
    np.testing.assert_allclose(gradient(make_model, parts, replicas), whole, rtol=0, atol=1e-12 * np.abs(whole).max())


def test_replicas_drop_different_features(make_model, corpus):
    """Two replicas with the same sentences: their gradients are no copies of each other."""
    batch = make_batch([corpus.pairs[0]] * 2)
    once = gradient(make_model, [make_batch([corpus.pairs[0]])], dropout=0.3)
    assert not np.allclose(gradient(make_model, [batch], 2, dropout=0.3), once)


def whole_training(make_model, corpus, replicas):
    """Return parameters and moments after four steps in which clipping bites and matrices decay."""
    model = make_model(12, dropout=0.0)
    options = replace(OPTIONS, steps=4, replicas=replicas, clip=0.05, learning_rate=1e-2)
    optimizer = Adam(model.parameters, weight_decay=0.1)
    train(model, corpus, options, optimizer=optimizer)
    return model.parameters.data, optimizer.m, optimizer.v


@pytest.mark.parametrize("replicas", [2, 3, 7])
def test_every_slice_takes_the_step_of_the_whole(make_model, corpus, replicas):
    """Clipped, decayed and moved in slices: every element of parameters and moments is that of a single replica."""
    alone, shared = whole_training(make_model, corpus, 1), whole_training(make_model, corpus, replicas)
    for x, y in zip(alone, shared, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-9 * np.abs(x).max())


@pytest.mark.parametrize("replicas", [2, 3])
def test_threads_and_processes_give_the_same_bits(make_model, corpus, monkeypatch, replicas):
    found = []
    for platform in ("linux", "elsewhere"):
        monkeypatch.setattr("tinytransformer.backend.sys.platform", platform)
        found.append(trained(make_model, corpus, replace(OPTIONS, replicas=replicas), dropout=0.3))
    assert found[0] == found[1]


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_gradient_from_before_has_no_part_in_a_training(make_model, corpus, replicas):
    fresh, used = make_model(12), make_model(12)
    used.parameters.grad[...] = 1
    for model in (fresh, used):
        train(model, corpus, replace(OPTIONS, replicas=replicas))
    assert fresh.parameters.data.tobytes() == used.parameters.data.tobytes()


def test_accumulating_is_training_with_larger_batches(make_model):
    """Sentences of one length, without dropout: two batches of five an update, or one of ten."""
    lines = [np.random.default_rng(i).integers(4, 12, 5).tolist() for i in range(10)]
    corpus = Corpus([(line, line) for line in lines], 0, 0)
    results = []
    for options in (replace(OPTIONS, batch_tokens=30, accumulate=2), replace(OPTIONS, batch_tokens=60)):
        parameters, reports = trained(make_model, corpus, options, dropout=0.0, dtype=np.float64)
        assert [(r.step, r.epoch, r.tokens) for r in reports] == [(step, step, 60) for step in range(1, 7)]
        results.append(np.frombuffer(parameters))
    np.testing.assert_allclose(*results, rtol=0, atol=1e-6)


def test_every_update_is_reported_with_its_learning_rate(make_model, corpus):
    for schedule in training.SCHEDULES:
        options = replace(OPTIONS, schedule=schedule, steps=5)
        _, reports = trained(make_model, corpus, options)
        assert [r.step for r in reports] == [1, 2, 3, 4, 5]
        assert [r.learning_rate for r in reports] == [learning_rate(step, options) for step in range(1, 6)]
        assert all(r.tokens > 0 and math.isfinite(r.loss) and r.epoch >= 1 for r in reports)


def test_the_schedule_is_the_one_asked_for():
    options = TrainingOptions(steps=100, learning_rate=0.5, warmup=10)
    for step in (1, 5, 10, 40, 100):
        waving = replace(options, schedule="cosine")
        assert learning_rate(step, options) == inverse_square_root(step, peak=0.5, warmup=10)
        assert learning_rate(step, waving) == cosine(step, peak=0.5, warmup=10, total=100)
    assert learning_rate(5, options) == 0.25
    assert learning_rate(40, options) == 0.25


def test_a_step_is_as_large_as_its_learning_rate(make_model, corpus):
    """Adam's first step moves every parameter that has a gradient by the rate: here half of the peak."""
    model = make_model(12, dropout=0.0)
    before = model.parameters.data.copy()
    train(model, corpus, replace(OPTIONS, steps=1, warmup=2))
    moved = np.abs(model.parameters.data - before)
    assert moved.max() == pytest.approx(5e-3, rel=1e-6)
    assert np.median(moved) == pytest.approx(5e-3, rel=1e-3)


def test_epochs_are_counted_and_shuffled_anew(make_model, corpus):
    options = replace(OPTIONS, steps=30)
    numbered = training._endless_batches(corpus, options)
    epochs = {1: [], 2: []}
    while (item := next(numbered))[0] <= 2:
        epochs[item[0]] += [tuple(row) for row in item[1].source.tolist()]
    trim = [sorted(tuple(i for i in row if i) for row in epochs[epoch]) for epoch in (1, 2)]
    assert trim[0] == trim[1] == sorted((*source, 3) for source, _ in corpus.pairs)
    assert epochs[1] != epochs[2]


def test_a_copy_is_learned(corpus):
    """In a few seconds the loss falls to nearly nothing, and the model copies sentences that it never saw."""
    random = np.random.default_rng(1)
    lines = [random.integers(4, 12, size).tolist() for size in random.integers(2, 6, 2000)]
    shape = {
        "width": 32,
        "feed_forward_width": 64,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dropout": 0.0,
    }
    config = TransformerConfig(12, 12, **shape)
    model, reports = Transformer(config, generator_for(1, 0)), []
    options = TrainingOptions(steps=400, batch_tokens=400, learning_rate=1e-2, warmup=50, schedule="cosine")
    options = replace(options, label_smoothing=0.0)
    train(model, Corpus([(line, line) for line in lines], 0, 0), options, report=reports.append)
    assert reports[0].loss > 2
    assert evaluate_loss(model, corpus.pairs).per_token < 0.05
    sources = [source for source, _ in corpus.pairs]
    assert [h.ids for h in greedy(model, sources, [10] * len(sources))] == sources


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_loss_that_is_not_finite_ends_the_training(make_model, corpus, monkeypatch, replicas):
    """At step 3 a weight overflows: the message names the step, and the parameters stay as they were."""
    model, compute, before = make_model(12, dtype=np.float32), Replicas.gradient, []

    def overflow(self, parts, tokens, step):
        if step == 3:
            model.parameters.named["decoder.norm.gain"].data[...] = 3e38
            before.append(model.parameters.data.copy())
        return compute(self, parts, tokens, step)

    monkeypatch.setattr(Replicas, "gradient", overflow)
    reports, validations = [], []
    options = replace(OPTIONS, replicas=replicas)
    with pytest.raises(TrainingError, match=r"^step 3: the loss is (nan|inf) and the norm .* learning rate"):
        train(model, corpus, options, report=reports.append, validate=lambda *_: validations.append(_))
    assert [r.step for r in reports] == [1, 2]
    assert not validations
    np.testing.assert_array_equal(model.parameters.data, before[0])


def test_gradients_are_clipped(make_model, corpus, monkeypatch):
    norms, begin_step = [], training.Adam.begin_step

    def spy(self, rate, scale, sound):
        norms.append(np.linalg.norm(self.parameters.grad * scale))
        return begin_step(self, rate, scale, sound)

    monkeypatch.setattr(training.Adam, "begin_step", spy)
    trained(make_model, corpus, replace(OPTIONS, clip=0.01), dtype=np.float64)
    np.testing.assert_allclose(norms, [0.01] * OPTIONS.steps, rtol=1e-9)


@pytest.mark.parametrize(("every", "steps"), [(2, [2, 4, 6]), (4, [4, 6]), (100, [6])])
def test_validation_comes_regularly_and_after_the_last_step(make_model, corpus, monkeypatch, every, steps):
    """It is given the mean loss per token since the last time, and how many there were in a second."""
    monkeypatch.setattr(training.time, "perf_counter", itertools.count(0, 0.5).__next__)
    model, reports, calls = make_model(12, dtype=np.float64), [], []
    options = replace(OPTIONS, valid_every=every)
    train(model, corpus, options, report=reports.append, validate=lambda *call: calls.append(call))
    assert [step for step, _, _ in calls] == steps
    for first, (last, loss, speed) in zip([0, *steps], calls, strict=False):
        part = reports[first:last]
        assert loss == pytest.approx(sum(r.loss * r.tokens for r in part) / sum(r.tokens for r in part))
        assert speed == sum(r.tokens for r in part) / 0.5


LEFT_OFF = {"steps": 13, "batch_tokens": 60, "learning_rate": 1e-2, "warmup": 3, "weight_decay": 0.01, "valid_every": 4}


def sitting(make_model, corpus, options, directory, *, until, seed, positions="sinusoidal"):
    """Begin a run, or go on with the one in `directory`, until so many steps are taken; save where it stands.

    Returns parameters, moments and step count; the reports; what the validations were told.
    """
    drops = {"dropout": 0.3, "attention_dropout": 0.1}
    model = make_model(12, dtype=np.float32, scale=1.0, seed=seed, positions=positions, **drops)
    optimizer, standing = Adam(model.parameters, weight_decay=options.weight_decay), Standing()
    if (directory / "state.safetensors").exists():
        standing = Standing(**load_state(directory, optimizer))
    reports, validations = [], []
    train(
        model,
        corpus,
        options,
        optimizer=optimizer,
        standing=standing,
        report=reports.append,
        validate=lambda step, loss, speed: validations.append((step, loss)),
        stop=lambda: standing.step >= until,
    )
    save_state(directory, optimizer, asdict(standing))
    arrays = (model.parameters.data, optimizer.m, optimizer.v)
    return [*(array.tobytes() for array in arrays), optimizer.step], reports, validations


CASES = {
    "plain": ({}, "sinusoidal"),
    "replicas": ({"replicas": 2}, "sinusoidal"),
    "accumulated": ({"accumulate": 2}, "sinusoidal"),
    "accumulated in replicas": ({"accumulate": 2, "replicas": 2}, "sinusoidal"),
    "learned positions": ({"schedule": "cosine"}, "learned"),
}
# Before the first step; in the middle of an epoch of five batches; right after a validation; at the end of an epoch;
# both in the second epoch, and in the third; one step before the last; after it.
PLACES = (0, 2, 4, 5, 7, 8, 10, 12, 13)


@pytest.mark.parametrize(("changes", "positions"), CASES.values(), ids=CASES)
def test_a_training_left_off_goes_on_as_if_it_had_not_been(make_model, corpus, tmp_path, changes, positions):
    """Same bytes, same losses, same validations, though the second sitting begins with other weights."""
    assert len(plan_batches(corpus.pairs, 60)) == 5
    options = TrainingOptions(**LEFT_OFF, **changes)
    given = {"positions": positions}
    end, reports, validations = sitting(make_model, corpus, options, tmp_path, until=99, seed=0, **given)
    assert [step for step, _ in validations] == [4, 8, 12, 13]
    for place in PLACES:
        (tmp_path / "state.safetensors").unlink()
        first = sitting(make_model, corpus, options, tmp_path, until=place, seed=0, **given)
        second = sitting(make_model, corpus, options, tmp_path, until=99, seed=5, **given)
        assert len(first[1]) == place
        assert second[0] == end
        assert first[1] + second[1] == reports
        assert first[2] + second[2] == validations


def test_a_training_may_be_left_off_many_times(make_model, corpus, tmp_path):
    options = TrainingOptions(**LEFT_OFF, accumulate=3, replicas=2)
    expected = sitting(make_model, corpus, options, tmp_path, until=99, seed=0)
    (tmp_path / "state.safetensors").unlink()
    parts = [sitting(make_model, corpus, options, tmp_path, until=place, seed=place) for place in (0, *PLACES, 99)]
    assert parts[-1][0] == expected[0]
    assert [report for part in parts for report in part[1]] == expected[1]
    assert [told for part in parts for told in part[2]] == expected[2]
