"""One table of calls, which the tests of values, compositions, parity and dtypes all run through."""

import zlib
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import tinytransformer.ops  # noqa: F401  (fills OPS)
from tinytransformer.tensor import OPS, Tensor

SEED = 7  # of the generator that an operation draws from


class Case(NamedTuple):
    """One call of an operation: positional inputs, keyword options, and what is special about it."""

    op: str
    label: str
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    strided: bool = False

    def arrays(self, dtype):
        """Return fresh inputs, every array in `dtype`; not contiguous if the case is strided."""
        place = _spread if self.strided else np.copy
        return [place(x.astype(dtype)) if isinstance(x, np.ndarray) else x for x in self.inputs]

    def keywords(self):
        """Return the options with a fresh generator, if one is asked for."""
        fresh = {"generator": np.random.Generator(np.random.SFC64(SEED))} if "generator" in self.options else {}
        return {**self.options, **fresh}

    def run(self, function, dtype=np.float64):
        """Return the output, the upstream gradient and the gradients of the inputs, for an Operation or the like."""
        inputs = [Tensor(x, requires_grad=True) if isinstance(x, np.ndarray) else x for x in self.arrays(dtype)]
        output = function(*inputs, **self.keywords())
        dy = self.upstream(output.shape, dtype)
        output.backward(dy)
        return output.data, dy, [x.grad if isinstance(x, Tensor) else None for x in inputs]

    def upstream(self, shape, dtype=np.float64):
        """Return a random gradient of the output."""
        return np.asarray(_random(self.label + "upstream").normal(size=shape), dtype=dtype)

    def __str__(self):
        return f"{self.op}, {self.label}{', strided' if self.strided else ''}"


def cases_of(name):
    """Return the cases of one operation."""
    return [case for case in CASES if case.op == name]


def relative_difference(x, y):
    """Return |x - y| / |y|, in the Euclidean norm; |x| where y is zero."""
    assert np.shape(x) == np.shape(y)
    return float(np.linalg.norm(np.subtract(x, y)) / (np.linalg.norm(y) or 1))


def _random(label):
    return np.random.default_rng(zlib.crc32(label.encode()))


def _case(op, label, *sizes, positive=False, **options):
    """Make a case: a tuple becomes a normal array of that shape; anything else stays as it is."""
    random = _random(op + label)
    draw = (lambda size: random.uniform(0.5, 2, size)) if positive else (lambda size: random.normal(size=size))
    inputs = tuple(draw(size) if isinstance(size, tuple) else size for size in sizes)
    return Case(op, label, inputs, options)


def _spread(x):
    """Return a copy of `x` that is not contiguous: its axes lie in reverse order, with gaps."""
    wide = np.zeros(tuple(2 * size for size in x.shape[::-1]), dtype=x.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in x.shape)].transpose()
    view[...] = x
    return view


def _attention_cases(op, **block):
    random = _random("masks")
    some = random.random((2, 1, 3, 4)) < 0.6
    some[..., 0] = True
    one = np.zeros((2, 2, 3, 4), dtype=bool)
    one[..., 2] = True
    hidden = some.copy()
    hidden[0, :, 1] = False
    short = np.array([[True] * 4, [True, True, False, False]])[:, None, None]
    shapes = (2, 2, 3, 5), (2, 2, 4, 5), (2, 2, 4, 3)
    square = (2, 2, 4, 5), (2, 2, 4, 5), (2, 2, 4, 5)
    case = partial(_case, op, **block)
    return [
        case("everything seen", *shapes),
        case("a mask", *shapes, mask=some),
        case("all but one key hidden", *shapes, mask=one),
        case("a query that sees nothing", *shapes, mask=hidden),
        case("nothing seen", *shapes, mask=np.zeros((1, 1, 1, 1), dtype=bool)),
        case("padding of the keys", *shapes, mask=short),
        case("mask without batch", *shapes, mask=some[0, 0]),
        case("causal", *square, causal=True),
        case("causal, fewer queries than keys", *shapes, causal=True),
        case("causal, one query", (2, 2, 1, 5), (2, 2, 4, 5), (2, 2, 4, 3), causal=True),
        case("causal, more queries than keys", (1, 2, 4, 5), (1, 2, 2, 5), (1, 2, 2, 3), causal=True),
        case("causal and padding", *square, causal=True, mask=short),
        case("length 1", (2, 1, 1, 3), (2, 1, 1, 3), (2, 1, 1, 3)),
        case("dropout", *shapes, mask=hidden, rate=0.3, generator=SEED),
        case("a rate but no generator", *shapes, rate=0.3),
    ]


def _blockwise_attention_cases():
    """Blocks that divide the sentence, that do not, that are longer; and the size that nobody chose."""
    op, long = "blockwise_attention", [(1, 2, 7, 3)] * 3
    return [
        *_attention_cases(op, block=2),
        *[_case(op, f"causal, blocks of {block}", *long, causal=True, block=block) for block in (1, 3, 7, 9)],
        _case(op, "causal, 3 queries, 7 keys", (1, 2, 3, 3), *long[:2], causal=True, block=2),
        _case(op, "causal and dropout", *long, causal=True, rate=0.3, generator=SEED, block=3),
        _case(op, "causal and dropout, one block", *long, causal=True, rate=0.3, generator=SEED),
    ]


def _cross_entropy_cases():
    targets = np.array([[1, 4, 0], [2, 2, 0]])
    call = ("cross_entropy",)
    return [
        _case(*call, "plain", (2, 3, 5), targets=targets),
        _case(*call, "one position", (5,), targets=np.array(3)),
        _case(*call, "padding", (2, 3, 5), targets=targets, padding=0),
        _case(*call, "smoothing", (2, 3, 5), targets=targets, label_smoothing=0.1),
        _case(*call, "smoothing and padding", (2, 3, 5), targets=targets, label_smoothing=0.3, padding=0),
        _case(*call, "nothing but padding", (2, 3, 5), targets=np.zeros((2, 3), dtype=int), padding=0),
        _case(*call, "a count", (6, 5), targets=targets.reshape(-1), padding=0, count=17),
        _case(*call, "a count of NumPy", (6, 5), targets=targets.reshape(-1), count=np.int64(17)),
        _case(*call, "large", (40, 30), targets=np.arange(40) % 30, label_smoothing=0.1, padding=1),
    ]


def _getitem_cases():
    keys = 1, np.int64(1), -1, slice(1, None), slice(None, None, -2), (0, 1, 2), (..., 0), (slice(None), None, 1), None
    return [_case("getitem", f"key {key}", (2, 3, 4), key=key) for key in keys]


def _reduction_cases(op):
    options = (
        {},
        {"axis": 0},
        {"axis": -1, "keepdims": True},
        {"axis": (0, -1)},
        {"axis": (1, 2), "keepdims": True},
        {"axis": None, "keepdims": True},
        {"axis": None},
    )
    calls = [_case(op, f"options {option}", (2, 3, 4), **option) for option in options]
    return [*calls, _case(op, "one element", (1, 1), axis=0), _case(op, "many", (3, 500), axis=1)]


def _arithmetic_cases(op):
    pairs = {
        "one shape": ((2, 3), (2, 3)),
        "left stretched": ((3,), (2, 3)),
        "right stretched": ((2, 3), (2, 1)),
        "both stretched": ((2, 1, 4), (3, 1)),
        "a number on the left": (2.5, (2, 3)),
        "a number on the right": ((2, 3), -3),
        "0-d": ((), (2,)),
    }
    return [_case(op, label, *pair, positive=op == "divide") for label, pair in pairs.items()]


def _elementwise_cases(op, positive=False, **options):
    shapes = (2, 3), (), (50,), (1, 2, 3, 2)
    return [_case(op, f"shape {shape} {options or ''}", shape, positive=positive, **options) for shape in shapes]


CASES = [
    *[case for op in ("add", "subtract", "multiply", "divide") for case in _arithmetic_cases(op)],
    *[case for op in ("negate", "exp", "relu", "tanh", "sigmoid", "gelu") for case in _elementwise_cases(op)],
    *[case for op in ("log", "sqrt") for case in _elementwise_cases(op, positive=True)],
    *[
        case
        for c in (2, -1.5, 0.5, 1, np.float64(3))
        for case in _elementwise_cases("power", positive=True, exponent=c)
    ],
    _case("power", "whole exponent of negative numbers", (4,), exponent=3),
    *[case for op in ("sum", "mean", "max", "logsumexp") for case in _reduction_cases(op)],
    *[_case(op, f"axis {axis}", (3, 4, 5), axis=axis) for op in ("softmax", "log_softmax") for axis in (0, 1, -1)],
    *[_case(op, "default axis", (2, 1)) for op in ("softmax", "log_softmax")],
    *[_case("reshape", f"to {shape}", (2, 3, 4), shape=shape) for shape in ((6, 4), (-1,), (4, -1, 3), (2, 3, 4))],
    *[_case("transpose", f"axes {axes}", (2, 3, 4), axes=axes) for axes in ((0, 2, 1), (2, 0, 1), (-1, 0, -2))],
    _case("concatenate", "one", (2, 3)),
    _case("concatenate", "three along the last axis", (2, 3), (2, 1), (2, 4)),
    _case("concatenate", "along axis -2", (2, 3, 2), (2, 1, 2), axis=-2),
    *_getitem_cases(),
    _case("gather", "once each", (2, 4), ids=np.array([[0, 3], [2, 1]])),
    _case("gather", "repeated", (2, 2, 4), ids=np.array([[[1, 1, 3], [0, 0, 0]], [[2, 3, 2], [3, 2, 1]]])),
    *[_case("gather", f"{k} ids", (2, 4), ids=np.array([[3], [1]], dtype=k)) for k in ("uint8", "int32", "uint64")],
    _case("matmul", "two matrices", (2, 3), (3, 4)),
    _case("matmul", "batches", (2, 5, 2, 3), (2, 5, 3, 4)),
    _case("matmul", "a matrix for all on the right", (2, 2, 3), (3, 4)),
    _case("matmul", "a matrix for all on the left", (2, 3), (5, 3, 1)),
    _case("matmul", "stretched batches", (2, 1, 2, 3), (4, 3, 2)),
    _case("linear", "two axes", (4, 3), (3, 5), (5,)),
    _case("linear", "four axes", (2, 2, 2, 3), (3, 1), (1,)),
    _case("linear", "a vector", (3,), (3, 2), (2,)),
    _case("linear", "no bias", (2, 2, 3), (3, 5), None),
    _case("layer_norm", "three axes", (2, 3, 8), (8,), (8,)),
    _case("layer_norm", "a vector", (6,), (6,), (6,)),
    _case("layer_norm", "large eps", (3, 4), (4,), (4,), eps=0.7),
    _case("dropout", "a third", (5, 7), rate=1 / 3, generator=SEED),
    _case("dropout", "0-d", (), rate=0.5, generator=SEED),
    _case("dropout", "no generator", (5, 7), rate=1 / 3),
    _case("dropout", "nothing to drop", (5, 7), rate=0, generator=SEED),
    _case("embedding", "repeated", (5, 3), ids=np.array([[1, 4, 1], [0, 1, 4]])),
    _case("embedding", "one token", (5, 3), ids=np.array(2)),
    *[_case("embedding", f"{kind} ids", (5, 3), ids=np.array([4, 0], dtype=kind)) for kind in ("uint8", "uint64")],
    *_attention_cases("attention"),
    *_blockwise_attention_cases(),
    *_cross_entropy_cases(),
]
CASES += [case._replace(strided=True) for op in OPS for case in cases_of(op)[:1]]
CASES += [
    case._replace(strided=True)
    for op in ("attention", "blockwise_attention")
    for case in cases_of(op)
    if case.label in ("a mask", "dropout")
]
