"""The plain version beside every fast one: clever operations written as compositions of smaller ones.

Everything here goes through Tensors, so that the engine derives the gradients by the chain rule alone.
"""

import math

import numpy as np

from tinytransformer.ops import (
    add,
    concatenate,
    divide,
    dropout,
    exp,
    gather,
    getitem,
    log,
    log_softmax,
    logsumexp,
    matmul,
    max,
    mean,
    multiply,
    power,
    reshape,
    sigmoid,
    softmax,
    sqrt,
    sum,
    tanh,
    transpose,
)
from tinytransformer.ops.dropout import dropout_mask
from tinytransformer.tensor import Tensor

from .nested import InBlocks


def one_hot(ids, count):
    """Return float64 rows that are 1 at their id, else 0."""
    return (np.asarray(ids)[..., None] == np.arange(count)).astype(np.float64)


def largest(x, axis):
    """Return the maximum as a constant: what softmax subtracts changes no gradient, as it cancels."""
    return max(x, axis=axis, keepdims=True).detach()


def softmax_from_exp(x, *, axis=-1):
    exps = exp(x - largest(x, axis))
    return exps / sum(exps, axis=axis, keepdims=True)


def log_softmax_from_logsumexp(x, *, axis=-1):
    return x - logsumexp(x, axis=axis, keepdims=True)


def logsumexp_from_exp(x, *, axis=-1, keepdims=False):
    top = largest(x, axis)
    y = log(sum(exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else sum(y, axis=axis)


def mean_from_sum(x, *, axis=None, keepdims=False):
    y = sum(x, axis=axis, keepdims=keepdims)
    return y / (x.data.size // y.data.size)


def sum_from_matmul(x, *, axis=None, keepdims=False):
    """Add by a product with ones, after the summed axes have been brought to the end."""
    rank = len(x.shape)
    axes = range(rank) if axis is None else [axis] if isinstance(axis, int) else axis
    summed = [a % rank for a in axes]
    kept = [a for a in range(rank) if a not in summed]
    rows = reshape(transpose(x, axes=(*kept, *summed)), shape=(math.prod(x.shape[a] for a in kept), -1))
    shape = [1 if a in summed else x.shape[a] for a in range(rank) if keepdims or a in kept]
    return reshape(rows @ np.ones((rows.shape[1], 1)), shape=shape)


def max_from_relu(x, *, axis=None, keepdims=False):
    """max(a, b) = a + relu(b - a), folded over all elements; without ties."""
    if axis is None:
        y = max_from_relu(reshape(x, shape=(-1,)), axis=0)
        return reshape(y, shape=(1,) * len(x.shape)) if keepdims else y
    for a in (axis,) if isinstance(axis, int) else axis:
        x = _fold_max(x, a % len(x.shape))
    return x if keepdims else sum(x, axis=axis)  # over axes of size 1


def _fold_max(x, axis):
    before = (slice(None),) * axis
    y = x[(*before, slice(0, 1))]
    for i in range(1, x.shape[axis]):
        y = y + relu_from_sqrt(x[(*before, slice(i, i + 1))] - y)
    return y


def relu_from_sqrt(x):
    """relu(x) = (x + |x|) / 2, with |x| = sqrt(x^2)."""
    return (x + sqrt(power(x, exponent=2))) / 2


def sigmoid_from_exp(x):
    return 1 / (1 + exp(-x))


def tanh_from_sigmoid(x):
    return 2 * sigmoid(2 * x) - 1


def tanh_from_exp(x):
    return (exp(x) - exp(-x)) / (exp(x) + exp(-x))


def gelu_from_tanh(x):
    return 0.5 * x * (1 + tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_from_sigmoid(x):
    """0.5 * (1 + tanh(u)) is sigmoid(2 * u)."""
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


def layer_norm_from_mean(x, gain, bias, *, eps=1e-5):
    centred = x - mean(x, axis=-1, keepdims=True)
    variance = mean(multiply(centred, centred), axis=-1, keepdims=True)
    return add(multiply(gain, divide(centred, sqrt(variance + eps))), bias)


def linear_from_matmul(x, weight, bias):
    rows = x if len(x.shape) > 1 else reshape(x, shape=(1, -1))
    y = reshape(matmul(rows, weight), shape=(*x.shape[:-1], weight.shape[1]))
    return y if bias is None else y + bias


def matmul_from_multiply(x, y):
    """Stretch both to (..., n, k, m), multiply and add over k."""
    return sum(x[..., None] * y[..., None, :, :], axis=-2)


def attention_from_parts(query, key, value, *, mask=None, causal=False, rate=0.0, generator=None):
    """Scores, softmax, dropout, weighted mean; hidden scores sink to -1e300, and hidden weights to 0."""
    (*_, queries, d), keys = query.shape, key.shape[2]
    i, j = np.arange(queries)[:, None], np.arange(keys)
    seen = (j - keys <= i - queries) if causal else np.ones((queries, keys), dtype=bool)
    seen = seen if mask is None else seen & mask
    scores = query @ transpose(key, axes=(0, 1, 3, 2)) / math.sqrt(d)
    weights = softmax(scores + np.where(seen, 0, -1e300)) * seen.astype(np.float64)
    return dropout(weights, rate=rate, generator=generator) @ value


def blockwise_attention_from_parts(query, key, value, *, causal=False, generator=None, block=256, **options):
    """The same parts; only dropout draws block by block."""
    if generator is not None:
        generator = InBlocks(generator, (*query.shape[:3], key.shape[2]), causal, block)
    return attention_from_parts(query, key, value, causal=causal, generator=generator, **options)


def dropout_from_multiply(x, *, rate, generator=None):
    return x * 1.0 if generator is None or rate == 0 else x * dropout_mask(x.data, rate, generator)


def embedding_from_matmul(table, *, ids):
    rows = one_hot(ids, len(table.data)).reshape(-1, len(table.data)) @ table
    return reshape(rows, shape=(*np.shape(ids), table.shape[1]))


def gather_from_one_hot(x, *, ids):
    return sum(x[..., None, :] * one_hot(ids, x.shape[-1]), axis=-1)


def cross_entropy_from_log_softmax(logits, *, targets, padding=None, label_smoothing=0.0, count=None):
    """The cross-entropies with the one-hot and with the uniform distribution, mixed, and averaged with weights."""
    logs = log_softmax(logits)
    hit = reshape(gather(logs, ids=targets[..., None]), shape=targets.shape)
    loss = -((1 - label_smoothing) * hit + label_smoothing * mean(logs, axis=-1))
    real = np.ones(targets.shape) if padding is None else (targets != padding).astype(np.float64)
    return sum(loss * real) / float(np.maximum(real.sum(), 1) if count is None else count)


def concatenate_from_matmul(*xs, axis=-1):
    """Along the last axis: every array is carried to its columns by a product with a slice of the identity."""
    rank = len(xs[0].shape)
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]  # a swap, so its own inverse
    widths = [x.shape[axis] for x in xs]
    y, start = 0.0, 0
    for x, width in zip(xs, widths, strict=True):
        place = np.eye(np.sum(widths))[start : start + width]
        y, start = y + transpose(x, axes=order) @ place, start + width
    return transpose(y, axes=order)


def swap_from_getitem(x, *, axes):
    """Put a transposed array together again from its elements."""
    shape = [x.shape[a] for a in axes]
    numbers = []
    for index in np.ndindex(*shape):
        source = dict(zip([a % len(axes) for a in axes], index, strict=True))
        numbers.append(reshape(getitem(x, key=tuple(source[a] for a in range(len(axes)))), shape=(1,)))
    return reshape(concatenate(*numbers), shape=shape)


COMPOSITIONS = [
    ("attention", attention_from_parts),
    ("blockwise_attention", blockwise_attention_from_parts),
    ("concatenate", concatenate_from_matmul),
    ("cross_entropy", cross_entropy_from_log_softmax),
    ("divide", lambda x, y: x * (y**-1 if isinstance(y, Tensor) else 1 / y)),
    ("dropout", dropout_from_multiply),
    ("embedding", embedding_from_matmul),
    ("gather", gather_from_one_hot),
    ("gelu", gelu_from_tanh),
    ("gelu", gelu_from_sigmoid),
    ("layer_norm", layer_norm_from_mean),
    ("linear", linear_from_matmul),
    ("log_softmax", log_softmax_from_logsumexp),
    ("logsumexp", logsumexp_from_exp),
    ("matmul", matmul_from_multiply),
    ("max", max_from_relu),
    ("mean", mean_from_sum),
    ("negate", lambda x: 0 - x),
    ("relu", relu_from_sqrt),
    ("sigmoid", sigmoid_from_exp),
    ("softmax", softmax_from_exp),
    ("softmax", lambda x, **options: exp(log_softmax(x, **options))),
    ("sqrt", lambda x: power(x, exponent=0.5)),
    ("subtract", lambda x, y: x + -1 * y),
    ("sum", sum_from_matmul),
    ("tanh", tanh_from_sigmoid),
    ("tanh", tanh_from_exp),
    ("transpose", swap_from_getitem),
]
