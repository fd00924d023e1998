"""debugging() around a whole training: the operation at fault is named, whichever thread it ran in."""

import math

import numpy as np
import pytest

from tinytransformer.ops import concatenate, exp
from tinytransformer.progress import Standing, TrainingError
from tinytransformer.tape import NonFiniteError, checking, debugging
from tinytransformer.tensor import Tensor
from tinytransformer.training import TrainingOptions, train

FAULTS = {  # a parameter in which a NaN stands, and the first operation that meets it
    "decoder.norm.gain": "layer_norm",
    "encoder.blocks.0.feed_forward.contract.bias": "linear",
    "encoder.embedding.table": "embedding",
}


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("name", FAULTS)
def test_the_operation_at_fault_is_named(make_model, corpus, name, replicas):
    model = make_model(12)
    model.parameters.named[name].data[...] = math.nan
    options = TrainingOptions(steps=2, batch_tokens=60, warmup=1, replicas=replicas)
    before = model.parameters.data.copy()
    with debugging(), pytest.raises(NonFiniteError, match=f"^{FAULTS[name]}: the output is not finite"):
        train(model, corpus, options)
    with pytest.raises(TrainingError, match=r"^step 1: the loss is nan"):  # without it, only the step is known
        train(model, corpus, options)
    np.testing.assert_array_equal(model.parameters.data, before)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_sound_training_is_not_disturbed(make_model, corpus, replicas):
    """Nothing is raised, and the parameters are the same to the bit."""
    results = []
    for checked in (True, False):
        model = make_model(12, dropout=0.3)
        options = TrainingOptions(steps=3, batch_tokens=60, warmup=1, replicas=replicas)
        if checked:
            with debugging():
                train(model, corpus, options)
        else:
            train(model, corpus, options)
        results.append(model.parameters.data.tobytes())
    assert results[0] == results[1]
    assert not checking.get()


@pytest.mark.usefixtures("gpu")
def test_the_standing_is_that_of_the_last_sound_step(make_model, corpus):
    """The message of train.py names the step after it."""
    model, standing, reports = make_model(12, device="cuda"), Standing(), []
    options = TrainingOptions(steps=6, batch_tokens=60, warmup=1)

    def spoil():
        if len(reports) == 3:
            model.parameters.data[...] = math.nan

    with debugging(), pytest.raises(NonFiniteError):
        train(model, corpus, options, standing=standing, report=reports.append, stop=spoil)
    assert standing.step == len(reports) == 3


def huge_twice(x):
    return concatenate(x * 3e38, x * 3e38)


@pytest.mark.parametrize("inner", [False, True])
def test_gradients_that_overflow_when_they_are_added_up_are_found(inner):
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    expected = pytest.raises(NonFiniteError, match=r"^multiply: the sum of gradients that it adds to is not finite")
    with np.errstate(over="ignore"), debugging(), expected:
        huge_twice(exp(-x) if inner else x).backward(np.ones(4, np.float32))


def test_on_a_gpu_they_are_found_at_the_end(gpu):
    x = Tensor(gpu.asarray(np.ones(2, np.float32)), requires_grad=True)
    x.grad = gpu.asarray(np.zeros(2, np.float32))
    with np.errstate(over="ignore"), debugging(), pytest.raises(NonFiniteError, match=r"gradients.* is not finite"):
        huge_twice(x).backward(gpu.asarray(np.ones(4, np.float32)))
