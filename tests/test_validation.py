"""Held-out sentences: the best weights are kept, the mean of the last is tried, the future can be forgotten."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from tinytransformer.checkpoint import average_weights, load_weights, save_weights
from tinytransformer.evaluation import evaluate_loss, score
from tinytransformer.training import TrainingOptions, train
from tinytransformer.validation import Validation, ValidationSet

GOOD, FAIR, BAD = ("a b c d e f g h", "a b c d e f x y", "x y z")


class Programmed:
    """A translator whose translations at each validation are given."""

    def __init__(self, model, translations):
        self.model = model
        self.translations = iter(translations)

    def translate(self, lines, *_, **__):
        return [next(self.translations)] * len(lines)


@pytest.fixture
def begin(make_model, corpus, tmp_path):
    """Return a function that begins a validation whose translations are given, or that has no held-out set."""

    def make(translations=(), *, target=GOOD, average=1, announce=lambda line: None):
        model = make_model(12, dtype=np.float32)
        held_out = ValidationSet(corpus, ["source"], [target]) if translations else None
        return Validation(tmp_path, Programmed(model, translations), held_out, announce, average=average)

    return make


def measure(validation, steps):
    """Let a validation see other weights at every step; return them."""
    weights, model = [], validation.translator.model
    for step in steps:
        model.parameters.data[...] *= 1 + step / 10
        weights.append(model.parameters.data.copy())
        validation(step, 2.34567, 1000.4)
        validation.settle()
    return weights


def kept(validation, name="model.safetensors"):
    """Return the weights that stand on disk; the model is left as it is."""
    model = validation.translator.model
    before = model.parameters.data.copy()
    load_weights(validation.directory / name, model)
    weights = model.parameters.data.copy()
    model.parameters.data[...] = before
    return weights


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def snapshots(directory):
    return sorted(path.name for path in directory.glob("step-*"))


@pytest.mark.parametrize(
    ("translations", "best", "since"),
    [
        ([BAD, GOOD, FAIR], 2, 1),
        ([FAIR, BAD, GOOD], 3, 0),
        ([GOOD, FAIR, BAD], 1, 2),
        ([FAIR, GOOD, GOOD], 3, 1),
        ((), 3, 2),
    ],
)
def test_the_best_weights_are_kept(begin, corpus, tmp_path, translations, best, since):
    """Best is the highest BLEU, of equals the latest, though that is no progress; with nothing held out, the latest."""
    announced = []
    validation = begin(translations, announce=announced.append)
    weights = measure(validation, (1, 2, 3))
    np.testing.assert_array_equal(kept(validation), weights[best - 1])
    assert validation.since == since
    assert validation.best == (pytest.approx(100) if translations else math.inf)

    found = rows(tmp_path)
    assert [row["step"] for row in found] == [1, 2, 3]
    assert all(row["training_loss"] == 2.3457 and row["tokens_per_second"] == 1000 for row in found)
    assert [row["valid_bleu"] == 100 for row in found if "valid_bleu" in row] == [t == GOOD for t in translations]
    assert [str(row["step"]) in line for row, line in zip(found, announced, strict=True)] == [True] * 3
    assert not snapshots(tmp_path)  # nobody asked for a mean

    validation.finish()
    np.testing.assert_array_equal(validation.translator.model.parameters.data, weights[best - 1])
    assert rows(tmp_path) == found


def test_where_no_target_has_four_words_the_lowest_loss_is_best(begin, tmp_path):
    """BLEU would be 0 for the right translation, and more for one that goes on and on."""
    validation = begin(["x", "Hund", "Hund a b c d"], target="Hund")
    weights = measure(validation, (1, 2, 3))
    assert [row["valid_bleu"] > 0 for row in rows(tmp_path)] == [False, False, True]
    losses = [row["valid_loss"] for row in rows(tmp_path)]
    assert losses == sorted(losses)  # larger and larger weights are no good
    np.testing.assert_array_equal(kept(validation), weights[0])
    assert validation.since == 2
    assert validation.best == pytest.approx(-losses[0], abs=1e-4)


def test_the_loss_is_that_of_the_held_out_pairs(begin, corpus, tmp_path):
    validation = begin([FAIR])
    measure(validation, [4])
    loss = evaluate_loss(validation.translator.model, corpus.pairs)
    assert rows(tmp_path)[0]["valid_loss"] == round(loss.per_token, 4)
    assert rows(tmp_path)[0]["valid_perplexity"] == round(loss.perplexity, 3)
    assert rows(tmp_path)[0]["valid_bleu"] == round(score([FAIR], [GOOD]).bleu, 2)
    measure(begin(), [5])
    assert rows(tmp_path)[1].keys() == {"step", "training_loss", "tokens_per_second"}


@pytest.mark.parametrize("average", [1, 2, 3, 5])
def test_exactly_the_last_weights_are_kept_for_the_mean(begin, tmp_path, average):
    """In the order of their numbers, which is not that of the alphabet."""
    validation, steps = begin(average=average), (8, 9, 10, 100, 1000)
    weights = measure(validation, steps)
    last = steps[-average:] if average > 1 else ()
    assert snapshots(tmp_path) == [f"step-{step:08}.safetensors" for step in last]
    for name, expected in zip(reversed(snapshots(tmp_path)), reversed(weights), strict=False):
        np.testing.assert_array_equal(kept(validation, name), expected)


def test_the_mean_is_that_of_all_in_float64(make_model, tmp_path):
    """In float32 the 1 and the 3 would be lost beside 1e9."""
    model, paths = make_model(12, dtype=np.float32), []
    for value in (1.0, 1e9, 3.0, -1e9):
        paths.append(tmp_path / f"{value}.safetensors")
        model.parameters.data[...] = value
        save_weights(paths[-1], model)
    average_weights(paths, model)
    assert model.parameters.data.dtype == np.float32
    np.testing.assert_array_equal(model.parameters.data, 1.0)
    average_weights(paths[:1], model)
    np.testing.assert_array_equal(model.parameters.data, 1.0)
    average_weights(paths[:3:2], model)
    np.testing.assert_array_equal(model.parameters.data, 2.0)


@pytest.mark.parametrize(
    ("translations", "mean"), [([BAD, BAD, FAIR], GOOD), ([GOOD, BAD, BAD], FAIR), ([BAD, GOOD, FAIR], FAIR)]
)
def test_the_mean_is_kept_whatever_luck_a_single_validation_had(begin, tmp_path, translations, mean):
    """The model then holds what is kept, and the metrics what it is worth."""
    validation = begin([*translations, mean], average=2)
    weights = measure(validation, (1, 2, 3))
    validation.finish()
    middle = (weights[1].astype(np.float64) + weights[2]) / 2
    np.testing.assert_array_equal(kept(validation), middle.astype(np.float32))
    np.testing.assert_array_equal(validation.translator.model.parameters.data, kept(validation))
    assert ("step" in rows(tmp_path)[-1], rows(tmp_path)[-1]["mean_of"]) == (False, 2)
    assert len(rows(tmp_path)) == 4
    assert snapshots(tmp_path) == ["step-00000002.safetensors", "step-00000003.safetensors"]


def test_a_single_validation_has_no_mean(begin, tmp_path):
    validation = begin([GOOD], average=3)
    (weights,) = measure(validation, [7])
    validation.translator.model.parameters.data[...] = 0
    validation.finish()
    np.testing.assert_array_equal(validation.translator.model.parameters.data, weights)
    assert len(rows(tmp_path)) == 1


@pytest.mark.parametrize(
    ("step", "left"), [(0, []), (1, []), (2, [2]), (3, [2]), (4, [2, 4]), (6, [2, 4, 6]), (9, [2, 4, 6])]
)
def test_what_was_written_after_a_step_can_be_forgotten(begin, tmp_path, step, left):
    """The mean at the end as well, which comes after every step; what is left stays as it is."""
    validation = begin([BAD, FAIR, GOOD, FAIR], average=4)
    measure(validation, (2, 4, 6))
    validation.finish()
    lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    before = [(tmp_path / name).read_bytes() for name in snapshots(tmp_path)]
    validation.forget_after(step)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(lines[: len(left)])
    assert snapshots(tmp_path) == [f"step-{number:08}.safetensors" for number in left]
    assert [(tmp_path / name).read_bytes() for name in snapshots(tmp_path)] == before[: len(left)]


def test_before_the_first_validation_there_is_nothing_to_forget(begin, tmp_path):
    begin().forget_after(0)
    measure(begin(), [2])
    assert [row["step"] for row in rows(tmp_path)] == [2]


def test_a_metric_that_was_half_written_is_forgotten(begin, tmp_path):
    """When the power fails, or the disk is full, the last line may be cut."""
    validation = begin()
    measure(validation, [2])
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(whole + b'{"step": 4, "trai')
    validation.forget_after(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_what_stood_before_is_kept_until_the_state_is_saved(begin, tmp_path):
    """A kill between two files of one checkpoint finds the files of the checkpoint before it, all of them."""
    validation = begin([BAD, FAIR, GOOD], average=2)
    measure(validation, (2, 4))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    validation.translator.model.parameters.data[...] += 1
    validation(6, 2.5, 1000.0)
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() - before.keys() == {"best-00000006.safetensors", "step-00000006.safetensors"}
    assert {name: after[name] for name in before.keys() - {"metrics.jsonl"}}.items() <= before.items()

    validation.settle()
    assert (tmp_path / "model.safetensors").read_bytes() == after["best-00000006.safetensors"]
    assert snapshots(tmp_path) == ["step-00000004.safetensors", "step-00000006.safetensors"]
    assert not list(tmp_path.glob("best-*"))

    for name, content in after.items():  # killed before the state was saved
        (tmp_path / name).write_bytes(content)
    validation.forget_after(4)
    validation.settle()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("line", [b"[4]", b"\xff\xfe", b'{"step": null}', b"\x00" * 30, b'{"step": 2'])
def test_a_line_of_metrics_that_is_none_is_forgotten(begin, tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    begin().forget_after(3)
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"step": 1}\n{"step": 2}\n'


@pytest.mark.parametrize(("patience", "last"), [(1, 6), (2, 8), (3, 10), (4, 20), (9, 20)])
def test_patience_counts_validations_without_a_better_one(make_model, corpus, begin, patience, last):
    """As train.py asks: step 8 is as good as 4, no better; 12 is better, all after it worse."""
    translations = [BAD, FAIR, BAD, FAIR, BAD, GOOD, *[FAIR] * 4]
    validation, reports = begin(translations), []
    options = TrainingOptions(steps=20, batch_tokens=60, learning_rate=1e-6, valid_every=2)
    train(
        validation.translator.model,
        corpus,
        replace(options, warmup=1),
        report=reports.append,
        validate=validation,
        stop=lambda: validation.since >= patience,
    )
    assert reports[-1].step == last
