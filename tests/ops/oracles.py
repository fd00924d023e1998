"""The forward of every operation once more, from the formulas of the papers: loops over scalars, no NumPy.

Arrays are nested lists. An oracle takes the same arguments as its operation.
"""

import math
from functools import partial
from itertools import accumulate

from .nested import (
    InBlocks,
    at,
    broadcasting,
    build,
    common_shape,
    drawn_bytes,
    elementwise,
    flatten,
    positions,
    reducing,
    shape_of,
    stretched_at,
)


def log_of_sum_of_exps(z):
    """Return ln(sum(e^z)) of numbers; the largest is taken out, so that e^z does not overflow."""
    return max(z) + math.log(math.fsum(math.exp(v - max(z)) for v in z))


def probabilities(z):
    """Return e^z / sum(e^z)."""
    return [math.exp(v - log_of_sum_of_exps(z)) for v in z]


def mean_of(numbers):
    return math.fsum(numbers) / len(numbers)


def along(function):
    """Return the operation that applies `function`, from numbers to as many numbers, along one axis."""

    def apply(x, *, axis=-1):
        shape = shape_of(x)
        axis %= len(shape)

        def element(index):
            line = [at(x, (*index[:axis], i, *index[axis + 1 :])) for i in range(shape[axis])]
            return function(line)[index[axis]]

        return build(shape, element)

    return apply


def with_axis(function, default=None):
    """Return a reduction with the keywords of NumPy."""
    reduction = reducing(function)
    return lambda x, *, axis=default, keepdims=False: reduction(x, axis, keepdims)


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def gelu(x):
    """Hendrycks and Gimpel 2016, section 2."""
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def matmul(x, y):
    """z[i, j] = sum over k of x[i, k] * y[k, j], for every pair of matrices."""
    (*batch_x, n, inner), (*batch_y, _, m) = shape_of(x), shape_of(y)
    batch = common_shape(tuple(batch_x), tuple(batch_y))

    def of_batch(x, sizes, b):
        return at(x, [0 if size == 1 else k for size, k in zip(sizes, b[len(b) - len(sizes) :], strict=True)])

    def element(index):
        *b, i, j = index
        rows, columns = of_batch(x, batch_x, b), of_batch(y, batch_y, b)
        return math.fsum(rows[i][k] * columns[k][j] for k in range(inner))

    return build((*batch, n, m), element)


def linear(x, weight, bias):
    def element(index):
        *position, j = index
        row = at(x, position)
        return math.fsum(row[k] * weight[k][j] for k in range(len(weight))) + (bias[j] if bias else 0)

    return build((*shape_of(x)[:-1], len(weight[0])), element)


def reshape(x, *, shape):
    numbers = flatten(x)
    if -1 in shape:
        shape = tuple(len(numbers) // -math.prod(shape) if size == -1 else size for size in shape)
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    return build(shape, lambda index: numbers[sum(i * s for i, s in zip(index, strides, strict=True))])


def transpose(x, *, axes):
    shape = shape_of(x)
    axes = [a % len(shape) for a in axes]

    def element(index):
        """y[i_0, i_1, ...] is the element of x whose axis axes[k] has the index i_k."""
        source = dict(zip(axes, index, strict=True))
        return at(x, [source[a] for a in range(len(shape))])

    return build([shape[a] for a in axes], element)


def concatenate(*xs, axis=-1):
    axis %= len(shape_of(xs[0]))
    starts = [0, *accumulate(shape_of(x)[axis] for x in xs)]

    def element(index):
        source = max(k for k in range(len(xs)) if starts[k] <= index[axis])
        return at(xs[source], (*index[:axis], index[axis] - starts[source], *index[axis + 1 :]))

    shape = shape_of(xs[0])
    return build((*shape[:axis], starts[-1], *shape[axis + 1 :]), element)


def getitem(x, *, key):
    """x[key], one part of the key after the other, on lists of lists."""
    key = key if isinstance(key, tuple) else (key,)
    if Ellipsis in key:
        i = key.index(Ellipsis)
        missing = len(shape_of(x)) - sum(part is not None and part is not Ellipsis for part in key)
        key = (*key[:i], *[slice(None)] * missing, *key[i + 1 :])
    if not key:
        return x
    part, rest = key[0], key[1:]
    if part is None:
        return [getitem(x, key=rest)]
    if isinstance(part, slice):
        return [getitem(row, key=rest) for row in x[part]]
    return getitem(x[part], key=rest)


def gather(x, *, ids):
    return build(shape_of(ids), lambda index: at(x, (*index[:-1], at(ids, index))))


def layer_norm(x, gain, bias, *, eps=1e-5):
    """Ba, Kiros and Hinton 2016, equations 3 and 4, with eps under the root."""

    def element(index):
        row = at(x, index[:-1])
        mu = mean_of(row)
        sigma = math.sqrt(mean_of([(v - mu) ** 2 for v in row]) + eps)
        return gain[index[-1]] * (row[index[-1]] - mu) / sigma + bias[index[-1]]

    return build(shape_of(x), element)


def dropout_factors(count, rate, generator):
    """Return 0 or 1 / (share kept) for every element: a byte decides over it, so shares are whole 256ths."""
    threshold = min(max(round(rate * 256), 1), 255)
    return [0.0 if byte < threshold else 256 / (256 - threshold) for byte in drawn_bytes(generator, count)]


def dropout(x, *, rate, generator=None):
    numbers = flatten(x)
    if generator is not None and rate > 0:
        factors = dropout_factors(len(numbers), rate, generator)
        numbers = [v * m for v, m in zip(numbers, factors, strict=True)]
    return reshape(numbers, shape=shape_of(x))


def attention(query, key, value, *, mask=None, causal=False, rate=0.0, generator=None):
    """Vaswani et al. 2017, equation 1: per sentence, head and query."""
    *_, queries, d = shape_of(query)
    *outer, keys, d_value = shape_of(value)
    factors = [1.0] * math.prod((*outer, queries, keys))
    if generator is not None and rate > 0:
        factors = dropout_factors(len(factors), rate, generator)
    factors = reshape(factors, shape=(*outer, queries, keys))

    def seen(b, h, i, j):
        future = causal and j - (keys - 1) > i - (queries - 1)  # counted from the last key and the last query
        return not future and (mask is None or stretched_at(mask, (b, h, i, j)))

    def row(b, h, i):
        visible = [j for j in range(keys) if seen(b, h, i, j)]
        if not visible:
            return [0.0] * d_value
        scores = [math.fsum(query[b][h][i][k] * key[b][h][j][k] for k in range(d)) / math.sqrt(d) for j in visible]
        weights = [p * factors[b][h][i][j] for p, j in zip(probabilities(scores), visible, strict=True)]
        return [math.fsum(w * value[b][h][j][k] for w, j in zip(weights, visible, strict=True)) for k in range(d_value)]

    return [[[row(b, h, i) for i in range(queries)] for h in range(outer[1])] for b in range(outer[0])]


def blockwise_attention(query, key, value, *, causal=False, generator=None, block=256, **options):
    """The same; only dropout has another order."""
    if generator is not None:
        shape = (*shape_of(query)[:3], shape_of(key)[2])
        generator = InBlocks(generator, shape, causal, block)
    return attention(query, key, value, causal=causal, generator=generator, **options)


def cross_entropy(logits, *, targets, padding=None, label_smoothing=0.0, count=None):
    """Szegedy et al. 2016, section 7: q = (1 - e) * one-hot + e / V, and the mean of -sum(q * ln p)."""
    losses = []
    for position in positions(shape_of(targets)):
        z, target = at(logits, position), at(targets, position)
        if target != padding:
            q = [(1 - label_smoothing) * (v == target) + label_smoothing / len(z) for v in range(len(z))]
            losses.append(-math.fsum(q_v * (z_v - log_of_sum_of_exps(z)) for q_v, z_v in zip(q, z, strict=True)))
    return math.fsum(losses) / (count if count is not None else max(len(losses), 1))


ORACLES = {
    "add": broadcasting(lambda x, y: x + y),
    "attention": attention,
    "blockwise_attention": blockwise_attention,
    "concatenate": concatenate,
    "cross_entropy": cross_entropy,
    "divide": broadcasting(lambda x, y: x / y),
    "dropout": dropout,
    "embedding": lambda table, *, ids: build(
        (*shape_of(ids), len(table[0])), lambda index: table[at(ids, index[:-1])][index[-1]]
    ),
    "exp": elementwise(math.exp),
    "gather": gather,
    "gelu": elementwise(gelu),
    "getitem": getitem,
    "layer_norm": layer_norm,
    "linear": linear,
    "log": elementwise(math.log),
    "log_softmax": along(lambda z: [v - log_of_sum_of_exps(z) for v in z]),
    "logsumexp": with_axis(log_of_sum_of_exps, default=-1),
    "matmul": matmul,
    "max": with_axis(max),
    "mean": with_axis(mean_of),
    "multiply": broadcasting(lambda x, y: x * y),
    "negate": elementwise(lambda x: -x),
    "power": elementwise(lambda x, exponent: x**exponent),
    "relu": elementwise(partial(max, 0.0)),
    "reshape": reshape,
    "sigmoid": elementwise(sigmoid),
    "softmax": along(probabilities),
    "sqrt": elementwise(math.sqrt),
    "subtract": broadcasting(lambda x, y: x - y),
    "sum": with_axis(math.fsum),
    "tanh": elementwise(math.tanh),
    "transpose": transpose,
}
