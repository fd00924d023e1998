"""Modules: the names of parameters, and the two flat arrays that hold them."""

import numpy as np
import pytest

from tinytransformer.module import FlatParameters, Module, Parameter
from tinytransformer.ops import matmul, sum
from tinytransformer.tensor import Tensor


class Part(Module):
    def __init__(self, value):
        self.bias = Parameter(np.full(3, value + 0.5))
        self.weight = Parameter(np.full((2, 3), float(value)))


class Whole(Module):
    """Parameters directly, in a Module, in tuples within lists, and among things that are no parameters."""

    def __init__(self):
        self.gain = Parameter(np.ones(4))
        self.nothing = None
        self.size = 7
        self.constant = Tensor(np.ones(5))
        self.part = Part(1)
        self.rows = [Part(2), (Part(3), None), Parameter(np.full((2, 1, 2), 4.0))]
        self.tied = self.part.weight
        self.again = self.rows[0]


NAMES = [
    "gain",
    "part.bias",
    "part.weight",
    "rows.0.bias",
    "rows.0.weight",
    "rows.1.0.bias",
    "rows.1.0.weight",
    "rows.2",
]
MATRICES = ["part.weight", "rows.0.weight", "rows.1.0.weight", "rows.2"]
VECTORS = ["gain", "part.bias", "rows.0.bias", "rows.1.0.bias"]


def test_names_are_paths_in_the_order_of_the_attributes():
    """Through Modules, lists and tuples, past other attributes; a tied weight stands once, under its first name."""
    whole = Whole()
    named = list(whole.named_parameters())
    assert [name for name, _ in named] == NAMES
    found = dict(named)
    assert found["part.weight"] is whole.tied
    assert found["rows.0.bias"] is whole.again.bias
    assert found["rows.1.0.weight"] is whole.rows[1][0].weight


def test_the_first_of_two_names_depends_on_which_attribute_was_set_first():
    whole = Whole()
    whole.__dict__ = {"tied": whole.tied, **whole.__dict__}
    names = [name for name, _ in whole.named_parameters()]
    assert names[0] == "tied"
    assert "part.weight" not in names


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_parameter_is_a_view_of_the_flat_buffers(dtype):
    """Matrices first, in order; writing on one side is seen on the other, for data and for gradients."""
    whole = Whole()
    before = {name: p.data.copy() for name, p in whole.named_parameters()}
    flat = FlatParameters(whole, dtype=dtype)
    assert list(flat.named) == MATRICES + VECTORS
    assert flat.decayed == 3 * 6 + 4
    assert flat.data.shape == flat.grad.shape == (3 * 6 + 4 + 4 + 3 * 3,)
    assert flat.data.dtype == flat.grad.dtype == dtype
    assert not flat.grad.any()
    start = 0
    for name, parameter in flat.named.items():
        part = slice(start, start + parameter.data.size)
        for buffer, view in ((flat.data, parameter.data), (flat.grad, parameter.grad)):
            assert view.dtype == dtype
            assert view.shape == before[name].shape
            buffer[part] = np.arange(view.size) + start
            np.testing.assert_array_equal(view.reshape(-1), np.arange(view.size) + start)
            view[...] = before[name]
            np.testing.assert_array_equal(buffer[part], before[name].reshape(-1))
        start = part.stop
    assert start == flat.data.size
    assert whole.tied.data is whole.part.weight.data


def test_backward_adds_into_the_flat_gradient():
    """A gradient lands in the buffer, is added to at the next backward, and zero_grad keeps the views."""
    whole = Whole()
    flat = FlatParameters(whole, dtype=np.float64)
    x = np.array([[2.0, -1.0]])
    for expected in (1, 2):
        matmul(x, whole.part.weight).backward(np.array([[1.0, 10.0, 100.0]]))
        np.testing.assert_array_equal(flat.grad[:6], expected * np.array([2, 20, 200, -1, -10, -100]))
        assert not flat.grad[6:].any()
    grad = flat.grad
    flat.zero_grad()
    assert flat.grad is grad
    assert not grad.any()
    grad[:6] = 7
    np.testing.assert_array_equal(whole.part.weight.grad, np.full((2, 3), 7))


def test_a_replica_shares_the_data_and_not_the_gradients():
    first, second = Whole(), Whole()
    flat = FlatParameters(first, dtype=np.float64)
    twin = FlatParameters(second, of=flat)
    assert twin.data is flat.data
    assert twin.decayed == flat.decayed
    assert not np.shares_memory(twin.grad, flat.grad)
    for one, other in zip(flat.named.values(), twin.named.values(), strict=True):
        assert other.data.shape == one.data.shape
        assert other.data.ctypes.data == one.data.ctypes.data
        assert other.grad.dtype == np.float64
    flat.data[:6] = 9
    np.testing.assert_array_equal(second.tied.data, np.full((2, 3), 9))
    sum(second.part.weight).backward()
    assert twin.grad[:6].all()
    assert not flat.grad.any()


def test_load_copies_by_name_and_keeps_views_and_dtype():
    flat = FlatParameters(Whole(), dtype=np.float32)
    arrays = {name: np.full(p.shape, i, dtype=np.float64) for i, (name, p) in enumerate(flat.named.items())}
    flat.load(dict(reversed(arrays.items())))
    assert flat.data.dtype == np.float32
    np.testing.assert_array_equal(flat.data, np.concatenate([a.reshape(-1) for a in arrays.values()]))
    flat.data[...] = -1
    assert all((p.data == -1).all() for p in flat.named.values())


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"gain": None}, ["gain is missing"]),
        ({"gian": np.ones(4)}, ["gian is unknown"]),
        ({"rows.2": np.ones((2, 2, 1))}, ["rows.2 has shape (2, 2, 1), expected (2, 1, 2)"]),
        ({"gain": np.ones(1)}, ["gain has shape (1,), expected (4,)"]),  # would broadcast
        (
            {"gain": None, "part.bias": None, "x": np.ones(1), "y": np.ones(1), "rows.2": np.ones(4)},
            ["gain is missing", "part.bias is missing", "x is unknown", "y is unknown", "rows.2 has shape (4,)"],
        ),
    ],
)
def test_load_lists_everything_that_does_not_fit_and_copies_nothing(change, messages):
    flat = FlatParameters(Whole())
    before = flat.data.copy()
    arrays = {name: np.full(p.shape, 3.0) for name, p in flat.named.items()} | change
    with pytest.raises(ValueError, match="the weights do not fit the model") as caught:
        flat.load({name: array for name, array in arrays.items() if array is not None})
    assert all(message in str(caught.value) for message in messages)
    assert str(caught.value).count(";") == len(messages) - 1
    np.testing.assert_array_equal(flat.data, before)


def test_summary_is_a_table_of_names_shapes_counts_and_the_total():
    class Wide(Module):
        def __init__(self):
            self.a = Parameter(np.zeros((1234, 10)))
            self.long_name = Part(0)

    lines = Wide().summary().splitlines()
    assert [line.split() for line in lines] == [
        ["a", "(1234,", "10)", "12,340"],
        ["long_name.bias", "(3,)", "3"],
        ["long_name.weight", "(2,", "3)", "6"],
        ["total", "12,349"],
    ]
    assert len({len(line) for line in lines}) == 1  # the columns stand below each other
