"""Where a training stands, on disk: read back bit for bit, or refused as a whole."""

import json
import math

import numpy as np
import pytest
import safetensors.numpy

from tinytransformer.checkpoint import CheckpointError, load_state, save_state
from tinytransformer.optim import Adam

COUNTERS = {"step": 7, "loss_sum": 0.1 + 0.2, "token_sum": 12345678901234567, "best": -math.inf, "since": 3}


def state(make_model, value, width=16):
    """Return an optimizer in which every number is another."""
    optimizer = Adam(make_model(12, dtype=np.float32, feed_forward_width=width).parameters)
    for i, array in enumerate((optimizer.parameters.data, optimizer.m, optimizer.v)):
        array[...] = value + i + np.arange(array.size, dtype=np.float32) / 7
    return optimizer


def parts(optimizer):
    return [array.tobytes() for array in (optimizer.parameters.data, optimizer.m, optimizer.v)], optimizer.step


@pytest.mark.parametrize("best", [-math.inf, 40.36, math.inf], ids=["none yet", "BLEU", "nothing to measure on"])
def test_a_state_is_read_back_bit_for_bit(tmp_path, make_model, best):
    """Counters as well: fractions, numbers beyond 2^53, infinity."""
    counters = {**COUNTERS, "best": best}
    optimizer, other = state(make_model, 1.0), state(make_model, 5.0)
    optimizer.step = 7
    save_state(tmp_path, optimizer, counters)
    assert load_state(tmp_path, other) == counters
    assert parts(other) == parts(optimizer)


def written(path, optimizer, counters="{}", **arrays):
    """Write a state as it should not be; None leaves something out."""
    full = {"parameters": optimizer.parameters.data, "m": optimizer.m, "v": optimizer.v, **arrays}
    metadata = None if counters is None else {"counters": counters}
    safetensors.numpy.save_file({n: a for n, a in full.items() if a is not None}, path, metadata)


WHOLE = json.dumps(COUNTERS)
BAD_STATES = {
    "missing": lambda path, _: path.unlink(),
    "half": lambda path, _: path.write_bytes(path.read_bytes()[:-100]),
    "no safetensors file": lambda path, _: path.write_bytes(b"PK\3\4" + bytes(2000)),
    "another size": lambda path, make: written(path, state(make, 9.0, width=24), WHOLE),
    "another type": lambda path, make: written(path, o := state(make, 9.0), WHOLE, v=o.v.astype(np.float64)),
    "no m": lambda path, make: written(path, state(make, 9.0), WHOLE, m=None),
    "no counters": lambda path, make: written(path, state(make, 9.0), None),
    "counters are no JSON": lambda path, make: written(path, state(make, 9.0), "{"),
    "counters are a list": lambda path, make: written(path, state(make, 9.0), "[7]"),
    "a counter is missing": lambda path, make: written(path, state(make, 9.0), '{"since": 3}'),
}


TABLE = [pytest.param(damage, id=name) for name, damage in BAD_STATES.items()]


@pytest.mark.parametrize("damage", TABLE)
def test_a_wrong_state_is_refused_and_nothing_of_it_is_taken(tmp_path, make_model, damage):
    optimizer, path = state(make_model, 1.0), tmp_path / "state.safetensors"
    save_state(tmp_path, optimizer, COUNTERS)
    damage(path, make_model)
    before = parts(optimizer)
    with pytest.raises(CheckpointError) as caught:
        load_state(tmp_path, optimizer)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert parts(optimizer) == before
