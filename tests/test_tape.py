"""The tape: the chain rule over any graph, what is kept and when it is let go, and the modes of recording."""

import gc
import math
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytransformer.ops import log, sqrt, sum, tanh
from tinytransformer.tape import GraphError, NonFiniteError, debugging, no_grad
from tinytransformer.tensor import OPS, Tensor, op


@pytest.fixture
def _registry():
    """Take operations that a test defines out of the registry again."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


def leaf(*numbers):
    return Tensor(np.array(numbers, dtype=float), requires_grad=True)


class Dual:
    """A value with its derivatives along every leaf (forward mode), and how large the terms in them were."""

    def __init__(self, value, slopes, sizes):
        self.value, self.slopes, self.sizes = value, slopes, sizes

    @classmethod
    def combine(cls, value, *parts):
        """Apply the chain rule to `value`, of which `parts` are pairs of a factor and a Dual."""
        slopes = np.sum([factor * dual.slopes for factor, dual in parts], axis=0)
        sizes = np.sum([np.abs(factor) * dual.sizes for factor, dual in parts], axis=0)
        return cls(value, slopes, sizes)


# each operation on Tensors, and on Duals
STEPS = {
    "add": (lambda x, y: x + y, lambda x, y: Dual.combine(x.value + y.value, (1, x), (1, y))),
    "subtract": (lambda x, y: x - y, lambda x, y: Dual.combine(x.value - y.value, (1, x), (-1, y))),
    "multiply": (lambda x, y: x * y, lambda x, y: Dual.combine(x.value * y.value, (y.value, x), (x.value, y))),
    "tanh": (lambda x, y: tanh(x), lambda x, y: Dual.combine(np.tanh(x.value), (1 - np.tanh(x.value) ** 2, x))),
    "negate": (lambda x, y: -x, lambda x, y: Dual.combine(-x.value, (-1, x))),
    "view": (lambda x, y: x[:], lambda x, y: x),
}
GRAPHS = st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 99), st.integers(0, 99)), max_size=14)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(GRAPHS, st.integers(0, 999))
def test_any_graph_has_the_gradients_of_forward_mode(steps, seed):
    """Random graphs with heavy sharing: gradients handed on or added in place never spoil one another."""
    random = np.random.default_rng(seed)
    values = random.uniform(-1, 1, size=(3, 4))
    before, leaves = values.copy(), [Tensor(x, requires_grad=True) for x in values]
    one_hot = np.repeat(np.eye(3)[:, :, None], 4, axis=2)  # (leaf, leaf, element)
    tensors, duals = list(leaves), [Dual(x, *[one_hot[i]] * 2) for i, x in enumerate(values)]
    for name, i, j in steps:
        on_tensors, on_duals = STEPS[name]
        i, j = -1 - i % min(len(tensors), 4), j % len(tensors)  # one recent and one of any age
        tensors.append(on_tensors(tensors[i], tensors[j]))
        duals.append(on_duals(duals[i], duals[j]))
    dy = random.normal(size=4)
    upstream = dy.copy()
    tensors[-1].backward(upstream)
    np.testing.assert_array_equal(upstream, dy)
    for i, x in enumerate(leaves):
        error = np.abs((0 if x.grad is None else x.grad) - dy * duals[-1].slopes[i])
        assert (error <= 1e-13 * np.abs(dy) * duals[-1].sizes[i]).all()
    np.testing.assert_array_equal([x.data for x in leaves], before)


def test_backward_frees_what_the_graph_held():
    """The Tensors between leaf and loss, and their arrays, live until the backward and no longer."""
    x = leaf(1, 2)
    middle = tanh(x)
    references = [weakref.ref(middle), weakref.ref(middle.data)]
    loss = sum(middle * middle)
    del middle
    gc.disable()  # nothing may hang in a cycle, waiting for the collector
    try:
        assert all(r() is not None for r in references)
        loss.backward()
        assert all(r() is None for r in references)
    finally:
        gc.enable()


@pytest.mark.usefixtures("_registry")
def test_memory_falls_as_the_backward_goes():
    """When a node runs, those after it have already let go of what they saved; those before it still hold it."""
    saved, seen = [], []

    @op
    def hoarding(x):
        own = x * 1.0
        saved.append(weakref.ref(own))

        def backward(dy):
            seen.append([reference() is not None for reference in saved])
            return (dy * own,)

        return x + 1, backward

    hoarding(hoarding(hoarding(leaf(1, 2)))).backward(np.ones(2))
    assert seen == [[True, True, True], [True, True, False], [True, False, False]]
    assert not any(reference() for reference in saved)


@pytest.mark.usefixtures("_registry")
@pytest.mark.parametrize(
    ("gradients", "words"),
    [
        (lambda dy: (dy[:1],), r"shape \(1,\) and dtype float64 for input 0 of shape \(2,\)"),
        (lambda dy: (dy.astype(np.float32),), "dtype float32 for input 0 .* dtype float64"),
        (lambda dy: (dy, dy), "2 gradients for 1 inputs"),
        (lambda dy: (), "0 gradients for 1 inputs"),
    ],
)
def test_a_gradient_that_does_not_fit_is_the_operations_fault(gradients, words):
    @op
    def careless(x):
        return x + 1, gradients

    with pytest.raises(GraphError, match=f"^careless: .*{words}"):
        careless(leaf(1, 2)).backward(np.ones(2))


@pytest.mark.usefixtures("_registry")
def test_an_operation_is_its_array_code_and_may_give_no_gradient():
    """`plain` is the function as written; None, as an input or as a gradient, is passed over."""

    @op
    def picky(x, y, z):
        """Say what it is."""
        assert z is None
        return x * y, lambda dy: (dy * y, None, None)

    x, y = leaf(2), leaf(5)
    picky(x, y, None).backward(np.ones(1))
    np.testing.assert_array_equal(x.grad, [5])
    assert y.grad is None
    assert OPS["picky"] is picky
    assert picky.__doc__ == "Say what it is."
    assert picky.plain(3, 4, None)[0] == 12


def test_no_grad_records_nothing_and_keeps_nothing():
    """Also nested, and only until the block ends, however it ends."""
    x = leaf(1, 2)
    with no_grad():
        middle = tanh(x)
        reference = weakref.ref(middle)
        loss = sum(middle)
        del middle
        assert reference() is None
        assert not loss.requires_grad
        with no_grad():
            assert not (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad


def test_modes_stay_in_their_thread():
    """A thread started inside no_grad() and debugging() records, and does not check."""
    seen = []

    def work():
        with np.errstate(divide="ignore"):
            seen.append(log(leaf(0)).requires_grad)

    with no_grad(), debugging():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not (leaf(1) * 2).requires_grad
    assert seen == [True]


@np.errstate(all="ignore")
def test_debugging_names_the_first_output_that_is_not_finite():
    with debugging(), pytest.raises(NonFiniteError, match=r"^log: the output is not finite \(shape \(2,\)\)"):
        tanh(log(leaf(1, 0)))
    assert math.isnan((log(leaf(-1)) * 0).data[0])


@np.errstate(all="ignore")
def test_debugging_names_the_first_gradient_that_is_not_finite():
    """At 0 the square root is finite, and its slope is not."""
    with debugging():
        loss = sum(sqrt(leaf(4, 0) * 1.0) * 2)
        with pytest.raises(NonFiniteError, match=r"^sqrt: the gradient of input 0 is not finite"):
            loss.backward()
    x = leaf(4, 0)
    sum(sqrt(x)).backward()
    np.testing.assert_array_equal(x.grad, [0.25, np.inf])


CHAIN = """
import numpy as np
import tinytransformer.ops
from tinytransformer.tensor import Tensor
x = Tensor(np.ones(1), requires_grad=True)
def chain():
    y = x
    for _ in range(100_000):
        y = -y
    return y
"""


@pytest.mark.parametrize("end", ["chain().backward(); assert x.grad == 1", "y = chain(); del y; assert x.grad is None"])
def test_a_chain_of_a_hundred_thousand_operations(end):
    """Neither its backward nor letting it go recurses; in a process of its own, since a full stack would end it."""
    done = subprocess.run([sys.executable, "-c", CHAIN + end], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
