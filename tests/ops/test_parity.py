"""PyTorch in float64: the same outputs and gradients, for every operation that PyTorch also has.

Run with `-s` to see the worst relative difference per operation.
"""

import numpy as np
import pytest

from tinytransformer.tensor import OPS, Tensor

from .cases import cases_of, relative_difference

torch = pytest.importorskip("torch")
F = torch.nn.functional

NOT_IN_TORCH = {"dropout"}  # its random numbers are its own; the values are held to the oracle


def to_torch(x):
    """Return an array of ours as PyTorch's (ids of any width as int64); anything else as it is."""
    if isinstance(x, np.ndarray):
        return torch.from_numpy(x.astype(np.int64) if x.dtype.kind in "iu" else x.copy())
    return x


def reduction(function):
    """Return a reduction that takes our keywords; without an axis PyTorch wants all axes named."""

    def apply(x, *, axis=None, keepdims=False):
        return function(x, dim=tuple(range(x.ndim)) if axis is None else axis, keepdim=keepdims)

    return apply


def logsumexp(x, *, axis=-1, keepdims=False):
    return reduction(torch.logsumexp)(x, axis=axis, keepdims=keepdims)


def attention(query, key, value, *, mask=None, causal=False, rate=0.0, generator=None):
    """PyTorch aligns `is_causal` with the first key, we with the last: the same for as many queries as keys."""
    queries, keys = query.shape[2], key.shape[2]
    if causal and (mask is not None or queries != keys):
        past = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
        mask, causal = (past if mask is None else past & mask), False
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)


def blockwise_attention(*inputs, block=None, **options):
    return attention(*inputs, **options)


def cross_entropy(logits, *, targets, padding=None, label_smoothing=0.0, count=None):
    """PyTorch's "mean" divides by the targets that count, and is NaN where none does."""
    options = {"ignore_index": -100 if padding is None else padding, "label_smoothing": label_smoothing}
    call = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    if count is None and (padding is None or (targets != padding).any()):
        return F.cross_entropy(*call, **options, reduction="mean")
    return F.cross_entropy(*call, **options, reduction="sum") / int(count or 1)


def layer_norm(x, gain, bias, *, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], gain, bias, eps)


def getitem(x, *, key):
    """PyTorch knows no negative steps; the elements are taken by their indices instead."""
    if isinstance(key, slice) and (key.step or 1) < 0:
        return x[list(range(*key.indices(len(x))))]
    return x[key]


TORCH = {
    "add": torch.add,
    "attention": attention,
    "blockwise_attention": blockwise_attention,
    "concatenate": lambda *xs, axis=-1: torch.cat(xs, dim=axis),
    "cross_entropy": cross_entropy,
    "divide": torch.divide,
    "embedding": lambda table, *, ids: F.embedding(ids, table),
    "exp": torch.exp,
    "gather": lambda x, *, ids: torch.gather(x, -1, ids),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "getitem": getitem,
    "layer_norm": layer_norm,
    "linear": lambda x, weight, bias: F.linear(x, weight.T, bias),
    "log": torch.log,
    "log_softmax": lambda x, *, axis=-1: F.log_softmax(x, axis),
    "logsumexp": logsumexp,
    "matmul": torch.matmul,
    "max": reduction(torch.amax),  # like ours, amax shares the gradient among ties
    "mean": reduction(torch.mean),
    "multiply": torch.multiply,
    "negate": torch.negative,
    "power": lambda x, *, exponent: torch.pow(x, exponent),
    "relu": torch.relu,
    "reshape": lambda x, *, shape: x.reshape(shape),
    "sigmoid": torch.sigmoid,
    "softmax": lambda x, *, axis=-1: F.softmax(x, axis),
    "sqrt": torch.sqrt,
    "subtract": torch.subtract,
    "sum": reduction(torch.sum),
    "tanh": torch.tanh,
    "transpose": lambda x, *, axes: x.permute(axes),
}


@pytest.fixture(scope="module")
def worst():
    """Collect the worst relative difference of every operation, and print them all at the end."""
    table = {}
    yield table
    print("\n\noperation             cases  worst relative difference\n" + "-" * 54)
    for name, (count, difference) in sorted(table.items()):
        print(f"{name:21} {count:5}  {difference:.1e}")


def run_torch(case, dy):
    """Return PyTorch's output and gradients for a case; numbers become arrays, so that every function takes them."""
    inputs = [torch.tensor(x, dtype=torch.float64) if isinstance(x, float | int) else to_torch(x) for x in case.inputs]
    leaves = [x.requires_grad_() if x is not None and x.is_floating_point() else x for x in inputs]
    output = TORCH[case.op](*leaves, **{name: to_torch(option) for name, option in case.options.items()})
    output.backward(torch.from_numpy(dy))
    return output.detach().numpy(), [None if x is None else x.grad.numpy() for x in leaves]


def differences(case):
    """Return the relative differences of the output and of every gradient."""
    output, dy, gradients = case.run(OPS[case.op])
    their_output, their_gradients = run_torch(case, dy)
    pairs = [(output, their_output)]
    for x, ours, theirs in zip(case.inputs, gradients, their_gradients, strict=True):
        assert (ours is None) == (not isinstance(x, np.ndarray))
        if ours is not None:
            pairs.append((ours, theirs))
    return [relative_difference(ours, theirs) for ours, theirs in pairs]


@pytest.mark.parametrize("name", sorted(TORCH))
def test_outputs_and_gradients_are_those_of_pytorch(name, worst, record_property):
    """To 1e-10, under a random upstream gradient."""
    cases = [case for case in cases_of(name) if "attention" not in case.op or "generator" not in case.options]
    largest = max(difference for case in cases for difference in differences(case))
    worst[name] = len(cases), largest
    record_property("worst_relative_difference", largest)
    assert largest < 1e-10


def test_ties_are_shared_as_in_pytorch():
    x = np.array([[1.0, 4.0, 4.0], [2.0, 2.0, 2.0]])
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    OPS["max"](ours, axis=-1).backward(np.array([6.0, 3.0]))
    torch.amax(theirs, -1).backward(torch.tensor([6.0, 3.0], dtype=torch.float64))
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-15)


def test_every_operation_of_pytorch_is_compared():
    assert set(TORCH) == set(OPS) - NOT_IN_TORCH
