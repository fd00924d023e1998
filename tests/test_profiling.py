"""A profile counts every call, in every replica, and changes nothing; without one nobody is told."""

from dataclasses import replace

import numpy as np
import pytest

from tinytransformer import profiling
from tinytransformer.ops import linear, relu
from tinytransformer.profiling import AROUND_OPERATIONS, Profile
from tinytransformer.tape import no_grad
from tinytransformer.tensor import OPS, Tensor
from tinytransformer.timing import timed, timing
from tinytransformer.training import TrainingOptions, train

OPTIONS = TrainingOptions(steps=3, batch_tokens=10**6, warmup=1)  # all sentences in one batch
X, WEIGHT = np.ones((3, 4)), np.ones((4, 2))


def a_step():
    loss = relu(linear(Tensor(X), Tensor(WEIGHT, requires_grad=True), None))
    loss.backward(np.ones((3, 2)))


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass by one at each look at the clock, wherever the package looks."""
    now = iter(range(10**6))
    for module in ("tensor", "tape", "timing"):
        monkeypatch.setattr(f"tinytransformer.{module}.perf_counter", lambda: next(now))
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: next(now))


def test_every_call_is_noted_forward_and_backward(clock):
    profile = Profile(1)
    with profile.running():
        a_step()
        a_step()
        with no_grad():
            relu(Tensor(X))
    totals = {name: (total.calls, total.forward, total.backward) for name, total in profile.totals().items()}
    assert totals == {"linear": (2, 2, 2), "relu": (3, 3, 2)}


def test_without_a_profile_nobody_is_told_and_no_clock_is_read(monkeypatch):
    def fail():
        raise AssertionError("the clock was read")

    for module in ("tensor", "tape", "timing"):
        monkeypatch.setattr(f"tinytransformer.{module}.perf_counter", fail)
    assert timing.get() is None
    a_step()
    assert timed("something")(lambda x: x + 1)(1) == 2


def test_a_timed_function_is_itself_and_noted_by_its_name(clock):
    @timed("sum")
    def add(a, *, b):
        """Add."""
        return a + b

    profile = Profile(1)
    with profile.running():
        assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert profile.totals()["sum"] == profiling.Total(1, 1.0, 0.0)


def test_what_is_paused_counts_neither_as_calls_nor_as_time(clock):
    profile = Profile(1)
    with profile.running():
        a_step()
        before = dict(profile.totals())
        with profile.paused():
            a_step()
            for _ in range(7):
                profiling.time.perf_counter()
        assert timing.get() is not None
    assert profile.totals() == before
    assert timing.get() is None
    assert profile.seconds == 2 * 4 + 2  # as many as readings in the step, and on either side of the pause


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_a_training_is_noted_in_all_its_replicas(make_model, corpus, replicas):
    profile, model = Profile(replicas), make_model(12, dropout=0.3)
    with profile.running():
        train(model, corpus, replace(OPTIONS, replicas=replicas))
    totals = profile.totals()
    batches = OPTIONS.steps * replicas
    assert totals[AROUND_OPERATIONS].calls == batches
    assert totals["cross_entropy"].calls == batches
    assert totals["embedding"].calls == 2 * batches
    assert totals["Adam"].calls == batches
    assert totals["clipping"].calls == OPTIONS.steps
    assert totals["batches"].calls == 2 * OPTIONS.steps  # every batch is an epoch, and has a plan
    inside = sum(total.seconds for name, total in totals.items() if name in OPS)
    assert 0 < inside < totals[AROUND_OPERATIONS].forward < replicas * profile.seconds


def test_a_profile_does_not_change_a_training(make_model, corpus):
    results = []
    for profiled in (True, False):
        model, options = make_model(12, dropout=0.3), replace(OPTIONS, replicas=2)
        if profiled:
            with Profile(2).running():
                train(model, corpus, options)
        else:
            train(model, corpus, options)
        results.append(model.parameters.data.tobytes())
    assert results[0] == results[1]


def test_the_table_adds_up(make_model, corpus):
    profile = Profile(2)
    with profile.running():
        train(make_model(12), corpus, replace(OPTIONS, replicas=2))
    lines = profile.table().splitlines()
    assert lines[0].split() == ["operation", "forward,", "s", "backward,", "s", "calls", "share"]
    assert len({len(line) for line in lines}) == 1
    rows = {line[:24].strip(): line for line in lines[1:]}
    names = list(rows)
    assert set(names[: names.index("all operations")]) < OPS.keys()
    assert set(names[names.index("all operations") + 1 :]) == {
        AROUND_OPERATIONS, "batches", "Adam", "clipping", "waiting, and the rest", "all"
    }  # fmt: skip
    shares = {name: float(row[-8:].removesuffix("%")) for name, row in rows.items()}
    operations = names[: names.index("all operations")]
    assert [shares[name] for name in operations] == sorted((shares[name] for name in operations), reverse=True)
    assert sum(shares[name] for name in operations) == pytest.approx(shares["all operations"], abs=0.05 * len(names))
    assert sum(shares[name] for name in names[len(operations) : -1]) == pytest.approx(100, abs=0.05 * len(names))
    assert shares["all"] == 100
    assert min(shares.values()) >= 0


def test_shares_are_of_the_time_of_all_replicas():
    """Ten seconds of two replicas: eight each in the gradient, and one for Adam, for which the other waits."""
    profile = Profile(2)
    profile.seconds = 10.0
    gradient = {"linear": profiling.Total(3, 2.0, 3.0), AROUND_OPERATIONS: profiling.Total(1, 8.0)}
    profile.records = {1: gradient, 2: gradient, 3: {"Adam": profiling.Total(1, 1.0)}}
    assert [line.split() for line in profile.table().splitlines()[1:]] == [
        ["linear", "4.000", "6.000", "6", "50.0", "%"],
        ["all", "operations", "4.000", "6.000", "6", "50.0", "%"],
        ["layers", "and", "tape", "6.000", "2", "30.0", "%"],
        ["Adam", "1.000", "1", "5.0", "%"],
        ["waiting,", "and", "the", "rest", "3.000", "15.0", "%"],
        ["all", "20.000", "100.0", "%"],
    ]


def test_a_line_leaves_empty_what_is_zero():
    assert profiling.Total(1200, 1.5, 0.5).line("linear", 8.0).split() == [
        "linear",
        "1.500",
        "0.500",
        "1,200",
        "25.0",
        "%",
    ]
    assert profiling.Total(0, 2.0).line("waiting", 8.0).split() == ["waiting", "2.000", "25.0", "%"]


def test_train_prints_the_profile_above_its_results(call, folder):
    """To standard output, in front of the scores; --resume takes it, and a run does not remember it."""
    text = ["--source", "train.en", "--target", "train.de", "--valid-source", "valid.en", "--valid-target", "valid.de"]
    test = ["--test-source", "test.en", "--test-target", "test.de", "--beam", "1", "--out", "profiled"]
    quick = ["--vocab-size", "400", "--steps", "2", "--batch-tokens", "400", "--valid-every", "1"]
    status, output, errors = call("train.py", *text, *test, *quick, "--profile")
    assert status == 0, errors
    rows = {line[:24].strip(): line.split() for line in output}
    assert rows["Adam"][2] == "4"  # two steps in two replicas
    assert rows["cross_entropy"][3] == "4"  # two replicas, two steps, and nothing of the validations
    assert rows["all"][-2:] == ["100.0", "%"]
    assert "cross_entropy" not in errors
    assert output.index("") < next(i for i, line in enumerate(output) if line.startswith("BLEU "))
    assert '"profile"' not in (folder / "profiled" / "config.json").read_text("utf-8")
    status, output, errors = call("train.py", "--resume", "--out", "profiled", "--profile")
    assert status == 0, errors
