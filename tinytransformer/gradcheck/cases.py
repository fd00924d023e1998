"""On what every operation is tried: one table, read by the tests and by the command line.

The first case of every operation takes each of its inputs, one by one; the others hold what is special.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytransformer.gradcheck.case import (
    Case,
    anywhere,
    dice,
    far,
    off_zero,
    positive,
    separated,
    strided,
    transposed,
    with_zeros,
)
from tinytransformer.ops import add, transpose

DrawOfShape = Callable[..., Callable[[np.random.Generator], np.ndarray]]

# Cases that several operations share.


def one_input(draw: DrawOfShape, **options: Any) -> list[Case]:
    """Cases of y = op(x), element by element."""
    suffix = "".join(f", {name} {value}" for name, value in options.items())
    return [
        Case("a number" + suffix, positive(), **options),  # gelu is flat at -0.75, and one number could meet that
        Case("one row" + suffix, draw(1, 5), **options),
        Case("many rows" + suffix, draw(3, 4), **options),
        Case("transposed view" + suffix, transposed(draw(3, 4)), **options),
        Case("strided view" + suffix, strided(draw(3, 7)), **options),
    ]


def smooth_everywhere() -> list[Case]:
    """Cases of y = op(x) in which x can be 0."""
    return [*one_input(anywhere), Case("zeros", with_zeros(3, 4))]


def two_inputs(draw: DrawOfShape, *, itself_is_constant: bool = False) -> list[Case]:
    """Cases of z = x op y, with one shape, one row or number for many, both stretched, and axes inserted."""
    shapes = [((3, 4), (3, 4)), ((3, 4), (1, 4)), ((3, 1), (1, 4)), ((3,), (2, 4, 3)), ((2, 4, 3), (4, 1))]
    numbers = [((), (2, 3)), ((2, 3), ())]
    return [
        *(Case(f"shapes {x} and {y}", draw(*x), draw(*y)) for x, y in [*shapes, *numbers]),
        Case("x a constant", draw(2, 3), call=lambda op, y: op(3.0, y)),
        Case("y a constant", draw(2, 3), call=lambda op, x: op(x, 3.0)),
        Case("views", transposed(draw(4, 3)), strided(draw(3, 7))),
        Case("x with itself", draw(3, 4), call=lambda op, x: op(x, x), zero=("x",) if itself_is_constant else ()),
    ]


def reductions(draw: DrawOfShape) -> list[Case]:
    """Cases in which one axis, two or all become one number."""
    return [
        *(Case(f"axis {axis}", draw(2, 3, 2), axis=axis) for axis in (None, 0, -1, (0, -1))),
        *(Case(f"axis {axis}, kept", draw(1, 5), axis=axis, keepdims=True) for axis in (None, 0, 1)),
        Case("axis 1 of a cube", draw(3, 3, 3), axis=1),
        Case("axes (0, 2), kept", draw(2, 3, 2), axis=(0, 2), keepdims=True),
        Case("transposed view", transposed(draw(3, 4)), axis=0),
    ]


def along_an_axis() -> list[Case]:
    """Cases of softmax and its logarithm. Over one element both are constant."""
    return [
        *(Case(f"axis {axis}", anywhere(2, 4, 3), axis=axis) for axis in (0, 1, -1)),
        Case("one row", anywhere(1, 5)),
        Case("one element", anywhere(3, 1), zero=("x",)),
        Case("transposed view", transposed(anywhere(4, 3))),
    ]


# Ids and targets that repeat and leave some out. Masks, queries by keys: 1 marks a key that a query may see.
IDS = np.array([[3, 0, 3], [3, 1, 0]])
TARGETS = np.array([2, 0, 4, 0])
ONE_KEY_EACH = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]], dtype=bool)
ONE_BLIND_QUERY = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]], dtype=bool)
ALL_BLIND = np.zeros((3, 4), dtype=bool)
PADDED = np.array([[1, 1, 0], [1, 1, 1]], dtype=bool).reshape(2, 1, 1, 3)
OF_EACH_HEAD = np.arange(48).reshape(2, 2, 3, 4) % 5 > 0

QKV = (anywhere(1, 2, 3, 2), anywhere(1, 2, 4, 2), anywhere(1, 2, 4, 3))  # (B, H, T, d): 3 queries, 4 keys
SENTENCES = (anywhere(2, 1, 3, 2),) * 3
LOGITS = anywhere(4, 5)


def attention_cases(**block: Any) -> list[Case]:
    """Cases of attention, and with the size of a block those of attention block by block."""
    return [
        Case("two heads", *QKV, **block),
        Case("views of heads", *[transposed(anywhere(1, 3, 2, 2), 1, 2)] * 3, **block),
        Case("one query, one key", *[anywhere(2, 1, 1, 4)] * 3, zero=("query", "key"), **block),
        Case("with itself", anywhere(1, 2, 3, 4), call=lambda op, query: op(query, query, query, **block)),
        Case("causal", *SENTENCES, causal=True, **block),
        Case("causal, fewer queries", *QKV, causal=True, **block),
        Case("causal, more queries", anywhere(1, 1, 5, 4), *[anywhere(1, 1, 4, 4)] * 2, causal=True, **block),
        Case("padded", *SENTENCES, mask=PADDED, **block),
        Case("padded, causal", *SENTENCES, mask=PADDED, causal=True, **block),
        Case("one key for each query", *QKV, mask=ONE_KEY_EACH, zero=("query", "key"), **block),
        Case("one blind query", *QKV, mask=ONE_BLIND_QUERY, **block),
        Case("a mask for each head", *[anywhere(2, 2, t, 2) for t in (3, 4, 4)], mask=OF_EACH_HEAD, **block),
        Case("large scores", positive(1, 2, 3, 2), far(1, 2, 4, 2), anywhere(1, 2, 4, 3), **block),
        Case("all queries blind", *QKV, mask=ALL_BLIND, zero=("query", "key", "value"), **block),
        Case("dropout", *QKV, rate=0.4, generator=dice, **block),
        Case("dropout, causal", *SENTENCES, causal=True, rate=0.4, generator=dice, **block),
        Case("dropout, padded", *SENTENCES, mask=PADDED, rate=0.4, generator=dice, **block),
        Case("dropout, no generator", *QKV, rate=0.4, **block),
        Case("dropout, rate 0", *QKV, rate=0.0, generator=dice, **block),
        Case(  # a bias on the keys shifts all scores of a query alike, which softmax does not see
            "keys with a bias",
            *(*QKV, anywhere(2)),
            call=lambda op, query, key, value, key_bias: op(query, add(key, key_bias), value, **block),
            zero=("key_bias",),
        ),
    ]


CASES: dict[str, list[Case]] = {
    "add": two_inputs(anywhere),
    "multiply": [*two_inputs(anywhere), Case("zeros", with_zeros(3, 4), with_zeros(3, 4))],
    "subtract": two_inputs(anywhere, itself_is_constant=True),
    "divide": two_inputs(off_zero, itself_is_constant=True),
    **dict.fromkeys(("negate", "exp", "tanh", "sigmoid", "gelu"), smooth_everywhere()),
    **dict.fromkeys(("log", "sqrt"), one_input(positive)),
    "power": [
        *one_input(off_zero, exponent=3),
        *one_input(positive, exponent=-0.5),
        Case("zeros, exponent 3", with_zeros(3, 4), exponent=3),
    ],
    "relu": one_input(off_zero),
    **dict.fromkeys(("sum", "mean", "logsumexp"), reductions(anywhere)),
    "max": reductions(separated),
    **dict.fromkeys(("softmax", "log_softmax"), along_an_axis()),
    "reshape": [
        *(Case(f"to {shape}", anywhere(2, 3, 4), shape=shape) for shape in ((-1,), (2, 3, 2, 2))),
        Case("to a number", anywhere(1, 1), shape=()),
        Case("transposed view", transposed(anywhere(3, 4)), shape=(2, 6)),
    ],
    "transpose": [
        *(Case(f"axes {axes}", anywhere(3, 3, 3), axes=axes) for axes in ((1, 0, 2), (1, 2, 0), (-1, 0, 1))),
        Case("heads to the front", anywhere(2, 3, 2, 2), axes=(0, 2, 1, 3)),
        Case("strided view", strided(anywhere(3, 5)), axes=(1, 0)),
    ],
    "concatenate": [
        Case("last axis", anywhere(2, 3), anywhere(2, 1), anywhere(2, 2)),
        Case("first axis", anywhere(2, 3), anywhere(2, 3), axis=0),
        Case("middle axis", anywhere(2, 2, 2), anywhere(2, 1, 2), axis=1),
        Case("views", transposed(anywhere(2, 3)), strided(anywhere(3, 5))),
        Case("one array", anywhere(2, 3)),
        Case("with itself", anywhere(2, 3), call=lambda op, *xs: op(*xs, *xs)),
    ],
    "getitem": [
        *(Case(f"key {key}", anywhere(4, 3), key=key) for key in (1, (-1, 2), slice(None, None, -2))),
        Case("transposed view", transposed(anywhere(2, 3, 2)), key=(..., None, 0)),
    ],
    "gather": [
        Case("one row", anywhere(4), ids=np.array([2, 0])),
        Case("repeated ids", anywhere(2, 4), ids=IDS),
        Case("strided view", strided(anywhere(2, 7)), ids=IDS),
    ],
    "embedding": [
        Case("one id", anywhere(4, 3), ids=np.array(2)),
        Case("repeated ids", anywhere(4, 3), ids=IDS),
        Case("transposed view", transposed(anywhere(3, 4)), ids=IDS),
    ],
    "matmul": [
        Case("matrices", anywhere(2, 3), anywhere(3, 4)),
        Case("row and column", anywhere(1, 3), anywhere(3, 1)),
        Case("batches", anywhere(2, 2, 3), anywhere(2, 3, 2)),
        Case("x for a whole batch", anywhere(2, 3), anywhere(2, 2, 3, 1)),
        Case("both stretched", anywhere(2, 1, 2, 3), anywhere(1, 3, 3, 2)),
        Case("views", transposed(anywhere(3, 2)), strided(anywhere(3, 5))),
        Case("x with itself", anywhere(3, 3), call=lambda op, x: op(x, x)),
        Case("x with its transpose", anywhere(3, 4), call=lambda op, x: op(x, transpose(x, axes=(1, 0)))),
    ],
    "linear": [
        Case("two sentences", anywhere(2, 3, 2), anywhere(2, 4), anywhere(4)),
        Case("one row", anywhere(3), anywhere(3, 2), anywhere(2)),
        Case("no bias", anywhere(3, 2), anywhere(2, 4), call=lambda op, x, weight: op(x, weight, None)),
        Case("views", transposed(anywhere(2, 2, 3)), transposed(anywhere(4, 2)), strided(anywhere(7))),
        Case("x with itself", anywhere(3, 3), call=lambda op, x: op(x, x, None)),
    ],
    "layer_norm": [  # d = 8: over fewer features the higher derivatives are too large for the step
        Case("one row", *[anywhere(8)] * 3),
        Case("two sentences", anywhere(2, 2, 8), anywhere(8), anywhere(8)),
        Case("large eps", anywhere(3, 8), anywhere(8), anywhere(8), eps=0.1),
        Case("views", transposed(anywhere(8, 3)), strided(anywhere(15)), anywhere(8)),
    ],
    "dropout": [
        Case("half dropped", anywhere(3, 5), rate=0.5, generator=dice),
        Case("transposed view", transposed(anywhere(3, 5)), rate=0.1, generator=dice),
        Case("no generator", anywhere(3, 4), rate=0.5),
        Case("rate 0", anywhere(3, 4), rate=0.0, generator=dice),
    ],
    "attention": attention_cases(),
    "blockwise_attention": [
        *attention_cases(block=2),  # which divides neither 3 queries nor 5
        Case("blocks of one, causal", *QKV, causal=True, block=1),
        Case("one block", *QKV, block=4),
    ],
    "cross_entropy": [
        Case("many tokens", LOGITS, targets=TARGETS),
        Case("one token", anywhere(5), targets=np.array(3)),
        Case("two sentences", anywhere(2, 3, 4), targets=IDS),
        Case("transposed view", transposed(anywhere(5, 4)), targets=TARGETS),
        Case("smoothed", LOGITS, targets=TARGETS, label_smoothing=0.1),
        Case("padded", LOGITS, targets=TARGETS, padding=0),
        Case("two sentences, padded", anywhere(2, 3, 4), targets=IDS, padding=0),
        Case("counted", LOGITS, targets=TARGETS, count=7),
        Case("padded, smoothed, counted", LOGITS, targets=TARGETS, padding=0, label_smoothing=0.1, count=7),
        Case("only padding", LOGITS, targets=0 * TARGETS, padding=0, zero=("logits",)),
    ],
}
