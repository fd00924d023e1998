"""The proof of the whole model: its gradient, its precision, its shares, and what a step leaves behind."""

import gc
import sys
import tracemalloc
from collections import Counter
from contextlib import contextmanager, suppress
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from ops.cases import relative_difference

from tinytransformer.data import make_batch
from tinytransformer.gradcheck.numerical import differences
from tinytransformer.ops import cross_entropy
from tinytransformer.optim import Adam, clipping
from tinytransformer.tape import Node, no_grad
from tinytransformer.tensor import OPS, Tensor
from tinytransformer.training import add_gradient
from tinytransformer.transformer import PAD, PRESETS, Transformer, TransformerConfig

SMALL = {
    **{"width": 16, "feed_forward_width": 24, "heads": 4, "encoder_layers": 2, "decoder_layers": 2},
    **{"dropout": 0.1, "attention_dropout": 0.1, "max_length": 9},
}
BATCH = make_batch([([4, 5, 6, 7, 8], [5, 6, 4, 9]), ([9, 4], [7]), ([10, 5, 7, 5], [4, 8, 10])])
SMOOTHING = 0.1


def model_with(dtype=np.float64, **options):
    """Return a small model, in which no gain is 1 and no bias 0."""
    model = Transformer(TransformerConfig(11, 11, **{**SMALL, **options}), np.random.default_rng(1), dtype=dtype)
    vectors = model.parameters.data[model.parameters.decayed :]
    vectors += np.random.default_rng(2).normal(0, 0.2, vectors.shape).astype(dtype)
    return model


def rng(seed=3):
    return np.random.Generator(np.random.SFC64(seed))


def gradient_of(model):
    """Return the flat gradient of the batch."""
    model.parameters.zero_grad()
    add_gradient(model, BATCH, BATCH.tokens, SMOOTHING, rng())
    return model.parameters.grad


# --- The gradient, against values of the loss alone

TOLERANCE = 1e-9
# relu has kinks, and a large step would cross many.
MODELS = {
    "pre-norm, gelu": {"norm": "pre", "activation": "gelu", "step": 4e-3, "directions": 3},
    "post-norm, gelu": {"norm": "post", "activation": "gelu", "step": 4e-3, "directions": 3, "positions": "learned"},
    "pre-norm, relu": {"norm": "pre", "step": 1e-3, "directions": 2, "tied_embeddings": False},
    "post-norm, relu": {"norm": "post", "step": 1e-3, "directions": 2},
}


class Proof:
    """The slopes of the loss of one model along random directions for every parameter, found from its values.

    Dropout is on, with the same random numbers at every evaluation.
    """

    def __init__(self, step, directions, **options):
        self.model, self.step, random = model_with(**options), step, np.random.default_rng(4)
        named = self.model.named_parameters()
        self.found = {name: [self.slope(p, random) for _ in range(directions)] for name, p in named}

    def loss(self):
        with no_grad():
            logits = self.model(BATCH.source, BATCH.target[:, :-1], rng())
            options = {"padding": PAD, "label_smoothing": SMOOTHING, "count": BATCH.tokens}
            return float(cross_entropy(logits, targets=BATCH.target[:, 1:], **options).data)

    def slope(self, parameter, random):
        """Return a direction and the slope along it; one along which relu has a kink is replaced by another."""
        moved, middle = np.zeros(()), parameter.data.copy()

        def f():
            parameter.data[...] = middle + moved * direction
            return self.loss()

        for _ in range(20):
            direction = random.normal(size=parameter.shape)
            direction *= 4 / np.linalg.norm(direction)
            sixth, fourth, jump = map(float, differences(f, moved, self.step))
            parameter.data[...] = middle
            if max(abs(sixth - fourth), abs(jump)) < TOLERANCE:
                return direction, sixth
        raise AssertionError("twenty inconclusive directions: the step is too large")

    def errors(self):
        """Return the relative error of every parameter's gradient; absolute for key biases, 0 by nature."""
        gradient_of(self.model)
        table = {}
        for name, parameter in self.model.named_parameters():
            numerical = np.array([slope for _, slope in self.found[name]])
            analytic = np.array([float((parameter.grad * direction).sum()) for direction, _ in self.found[name]])
            size = 1 if name.endswith("key.bias") else np.linalg.norm(numerical)
            table[name] = float(np.linalg.norm(analytic - numerical) / size)
        return table


@pytest.fixture(scope="module", params=MODELS.values(), ids=MODELS)
def proof(request):
    return Proof(**request.param)


def test_the_gradient_is_the_slope_of_the_loss(proof):
    """For every parameter by itself, to 1e-9; for the biases of the keys, which softmax does not see, to 1e-11."""
    errors = proof.errors()
    worst = max(errors, key=errors.get)
    print(f"\n{len(errors)} parameters, worst relative error {errors[worst]:.1e} ({worst})")
    assert errors[worst] < TOLERANCE
    biases = [name for name in errors if name.endswith("key.bias")]
    assert len(biases) == 6
    assert all(errors[name] < 1e-11 for name in biases)
    assert all(np.abs(proof.model.parameters.named[name].grad).max() < 1e-11 for name in biases)


def test_an_error_of_a_millionth_in_any_call_of_any_operation_is_noticed(proof, monkeypatch):
    """Each time one entry of the tape, of some two hundred, returns gradients that are 1 + 1e-6 times too large."""
    ran, broken = count(), []

    def breakable(name, plain):
        def run(*inputs, **options):
            y, backward = plain(*inputs, **options)
            if next(ran) != broken[-1]:
                return y, backward
            broken[-1] = name
            return y, lambda dy: tuple(None if dx is None else dx * (1 + 1e-6) for dx in backward(dy))

        return run

    for name, operation in OPS.items():
        monkeypatch.setattr(operation, "plain", breakable(name, operation.plain))
    while True:
        ran = count()
        broken.append(len(broken))
        errors = proof.errors()
        if isinstance(broken[-1], int):
            break
        assert max(errors.values()) > 10 * TOLERANCE, f"call {len(broken)}, {broken[-1]}"
    calls = Counter(broken[:-1])
    assert (calls["attention"], calls["linear"]) == (6, 6 * 4 + 4 * 2 + 1)
    assert {"add", "cross_entropy", "dropout", "embedding", "multiply", "reshape", "transpose"} < set(calls)


# --- Precision


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_float32_gradient_is_the_float64_gradient(norm):
    """At the same weights; measured for the whole 5e-7, for the worst parameter 8e-7, but for the key biases."""
    single, double = model_with(np.float32, norm=norm), model_with(np.float64, norm=norm)
    double.parameters.data[...] = single.parameters.data
    rough, exact = gradient_of(single), gradient_of(double)
    assert rough.dtype == np.float32
    pairs = zip(single.parameters.named.items(), double.parameters.named.values(), strict=True)
    each = [relative_difference(p.grad, q.grad) for (name, p), q in pairs if not name.endswith("key.bias")]
    print(f"\n{norm}-norm: whole {relative_difference(rough, exact):.1e}, worst {max(each):.1e}")
    assert relative_difference(rough, exact) < 2e-6
    assert max(each) < 4e-6


class Watched(np.ndarray):
    """An array that, with everything computed from it, reports every float64 array of more than one element."""

    report: list = []  # noqa: RUF012  (one list for all)

    def __array_finalize__(self, parent):
        if self.dtype == np.float64 and self.size > 1:
            Watched.report.append(f"computed, shape {self.shape}")


def doubles_in(value):
    """Yield the float64 arrays of more than one element in a local variable: arrays, Tensors, and tuples of them."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from doubles_in(part)
    elif isinstance(value, Tensor):
        yield from doubles_in((value.data, value.grad))
    elif isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size > 1:
        yield value


@contextmanager
def watching(model):
    """Yield a list that fills with all float64 arrays: those computed from parameters, and variables of our code."""
    flat = model.parameters
    flat.data, flat.grad = flat.data.view(Watched), flat.grad.view(Watched)
    for parameter in flat.named.values():
        parameter.data, parameter.grad = parameter.data.view(Watched), parameter.grad.view(Watched)
    report = Watched.report = []

    def on_return(frame, event, result):
        if event == "return" and "tinytransformer" in frame.f_globals.get("__name__", ""):
            for array in doubles_in([result, *frame.f_locals.values()]):  # with what a closure has kept
                report.append(f"in {frame.f_code.co_name}, shape {array.shape}")

    sys.setprofile(on_return)
    try:
        yield report
    finally:
        sys.setprofile(None)


def training_step(model, adam, generator, smoothing=SMOOTHING):
    model.parameters.zero_grad()
    add_gradient(model, BATCH, BATCH.tokens, smoothing, generator)
    _, scale = clipping(model.parameters.grad, 0.5)
    adam.update(1e-3, scale=scale)


def plant(fault, adam, monkeypatch):
    """Put a NumPy float64, which is not weak as Python's float is, where it turns float32 arrays into float64."""
    attention, dropout = (sys.modules[f"tinytransformer.ops.{name}"] for name in ("attention", "dropout"))
    if fault == "square root":
        monkeypatch.setattr(attention, "math", SimpleNamespace(sqrt=np.sqrt, inf=np.inf))
    if fault == "betas":
        adam.betas = tuple(np.array(adam.betas))
    if fault == "mask":
        monkeypatch.setattr(dropout, "dropout_mask", lambda x, rate, generator: generator.random(x.shape) / rate)
    return np.float64(SMOOTHING) if fault == "label smoothing" else SMOOTHING


@pytest.mark.parametrize("options", [{}, {"norm": "post", "activation": "gelu", "positions": "learned"}], ids=str)
@pytest.mark.parametrize("fault", [None, "square root", "label smoothing", "betas", "mask"])
def test_a_float32_step_makes_no_float64_array(options, fault, monkeypatch):
    """Not even for a moment, forward, backward, clipping and Adam. Each planted fault is found: the watch can fail."""
    model = model_with(np.float32, **options)
    adam = Adam(model.parameters, weight_decay=0.1)
    training_step(model, adam, rng())  # the table of positions is computed in float64, once
    smoothing = plant(fault, adam, monkeypatch)
    with watching(model) as report, suppress(TypeError if fault else ()):  # the engine refuses some faults itself
        training_step(model, adam, rng(), smoothing)
    assert bool(report) == bool(fault), report
    assert {x.dtype for x in (model.parameters.data, model.parameters.grad, adam.m, adam.v)} == {np.dtype("float32")}


# --- What a step leaves behind


def alive():
    """Return how many Tensors, Parameters apart, and how many Nodes there are."""
    kinds = Counter(type(x) for x in gc.get_objects())
    return kinds[Tensor], kinds[Node]


@pytest.fixture
def no_collector():
    """Nothing but reference counts frees memory, as it would be with cycles left to chance."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_no_tensor_survives_a_step():
    """There is no cycle to collect. After backward the loss keeps nothing alive but its own entry on the tape."""
    model, (tensors, nodes) = model_with(), alive()
    loss = cross_entropy(model(BATCH.source, BATCH.target, rng()), targets=BATCH.target)
    assert alive()[1] > nodes + 100
    loss.backward()
    assert alive() == (tensors + 1, nodes + 1)
    del loss
    training_step(model, Adam(model.parameters), rng())
    model(BATCH.source, BATCH.target, rng())  # a forward pass that is never followed by a backward pass
    assert alive() == (tensors, nodes)


@pytest.mark.usefixtures("no_collector")
def test_memory_does_not_grow_over_two_hundred_steps():
    """A toy-sized model: not by a single array, and, but for what the interpreter keeps to use again, not at all."""
    arrays, everything = [], []
    tracemalloc.start()
    try:
        model = model_with(np.float32, **PRESETS["toy"])
        adam, seen = Adam(model.parameters), np.ones(10_000)
        for step in range(203):
            training_step(model, adam, rng(step))
            if step in (2, 202):
                of_numpy = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
                arrays.append(sum(t.size for t in tracemalloc.take_snapshot().filter_traces(of_numpy).traces))
                gc.collect()  # it empties the free lists
                everything.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    print(f"\narrays {arrays}, everything {everything}")
    assert arrays[0] > seen.nbytes  # of the flat vectors, which lie in shared memory, no step makes a new one
    assert arrays[1] - arrays[0] < 1000
    assert everything[1] - everything[0] < 20_000
