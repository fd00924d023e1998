"""A run that diverges: it says at which step, keeps no number that is not finite, and can show where it happens."""

import re

import numpy as np
import pytest
import safetensors.numpy
from ends import SMALL, TEXT, state_of
from scripts import ROOT

from tinytransformer.optim import Adam
from tinytransformer.progress import TrainingError
from tinytransformer.run_directory import Checkpoint

STEPS = (*TEXT, *SMALL, "--steps", "6", "--valid-every", "1", "--warmup", "1", "--schedule", "cosine")


def errors_of(text):
    """The lines of standard error but those of the progress bar."""
    return [line.strip() for line in re.split("[\r\n]", text) if line.strip() and "tokens/s" not in line]


def all_finite(run):
    files = [safetensors.numpy.load_file(path) for path in run.glob("*.safetensors")]
    return all(np.isfinite(array).all() for arrays in files for array in arrays.values())


def test_a_loss_that_is_not_finite_is_told_with_its_step_and_shown_by_debug(call, folder):
    """The weights of the first step are huge, but numbers; the second cannot multiply them."""
    run = folder / "diverged"
    status, output, errors = call("train.py", *STEPS, "--learning-rate", "1e30", "--out", "diverged")
    assert (status, output) == (1, [])
    *_, hint, error = errors_of(errors)
    assert re.fullmatch(
        "train.py: error: step 2: the loss is (nan|inf) and the norm of its gradient (nan|inf); "
        "a smaller learning rate or a longer warm-up may help",
        error,
    )
    command = hint.partition("which operation fails: python ")[2].split()
    assert command == [str(ROOT / "train.py"), "--resume", "--out", "diverged", "--debug"]
    assert "Warning" not in errors
    assert state_of(run)["step"] == 1
    assert all_finite(run)

    before = {path.name: path.read_bytes() for path in run.iterdir()}
    status, output, errors = call(*command)
    assert (status, output) == (1, [])
    assert re.fullmatch(r"train.py: error: step 2: \w+: the output is not finite \(shape .*\)", errors_of(errors)[-1])
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_under_debug_the_steps_before_are_saved_too(call, folder):
    run = "diverged-under-debug"
    rare = [*STEPS, "--valid-every", "6"]
    status, _, errors = call("train.py", *rare, "--learning-rate", "1e30", "--out", run, "--debug")
    assert status == 1
    assert re.fullmatch(r"train.py: error: step 2: \w+: the output is not finite \(shape .*\)", errors_of(errors)[-1])
    assert state_of(folder / run)["step"] == 1


@pytest.mark.parametrize("valid_every", ["1", "6"])
def test_a_parameter_that_is_not_finite_is_not_saved(call, folder, valid_every):
    """The gradient was a number, and the learning rate too large for any."""
    run = f"overflown-{valid_every}"
    status, output, errors = call(
        "train.py", *STEPS, "--learning-rate", "1e300", "--out", run, "--valid-every", valid_every
    )
    assert (status, output) == (1, [])
    words = "train.py: error: step 1: a parameter is not finite; the learning rate is too large"
    assert errors_of(errors)[-1] == words
    assert state_of(folder / run)["step"] == 0
    assert not (folder / run / "model.safetensors").exists()
    status, output, errors = call("train.py", "--resume", "--out", run)
    assert (status, output, errors_of(errors)[-1]) == (1, [], words)


def test_one_parameter_is_enough(make_model, tmp_path):
    optimizer = Adam(make_model(12).parameters)
    checkpoint = Checkpoint(tmp_path, optimizer, None)
    optimizer.parameters.data[7] = np.nan
    with pytest.raises(TrainingError, match=r"^step 0: a parameter is not finite"):
        checkpoint.save()
    assert not list(tmp_path.iterdir())


def test_a_sound_run_ends_with_the_same_bytes_under_debug(call, folder):
    for name, more in (("plain", ()), ("debugged", ("--debug",))):
        assert call("train.py", *STEPS, "--learning-rate", "1e-3", "--out", name, *more)[0] == 0
    for name in ("model.safetensors", "state.safetensors", "config.json"):
        assert (folder / "plain" / name).read_bytes() == (folder / "debugged" / name).read_bytes()
