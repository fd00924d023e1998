"""Every operation of the Transformer, forward and gradient.

Read them in this order, from one line of mathematics to a page: arithmetic, activation, reduction, shape,
matmul, softmax, normalisation, dropout, embedding, attention, loss.

How every derivation goes: nudge an input x by x', see by what y' the result moves, pair y' with the gradient of
the result, dy = dL/dy, which is by how much the loss moves: L' = sum(dy * y'). Write that as
sum(something * x'). The something is dx = dL/dx. A prime is always a nudge and a d always a gradient.
"""

from tinytransformer.ops.activation import gelu, relu, sigmoid, tanh
from tinytransformer.ops.arithmetic import (
    add,
    divide,
    exp,
    log,
    multiply,
    negate,
    power,
    sqrt,
    subtract,
)
from tinytransformer.ops.attention import attention
from tinytransformer.ops.dropout import dropout
from tinytransformer.ops.embedding import embedding
from tinytransformer.ops.loss import cross_entropy
from tinytransformer.ops.matmul import linear, matmul
from tinytransformer.ops.normalisation import layer_norm
from tinytransformer.ops.reduction import logsumexp, max, mean, sum
from tinytransformer.ops.shape import concatenate, gather, getitem, reshape, transpose
from tinytransformer.ops.softmax import log_softmax, softmax

__all__ = [
    "add",
    "attention",
    "concatenate",
    "cross_entropy",
    "divide",
    "dropout",
    "embedding",
    "exp",
    "gather",
    "gelu",
    "getitem",
    "layer_norm",
    "linear",
    "log",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "mean",
    "multiply",
    "negate",
    "power",
    "relu",
    "reshape",
    "sigmoid",
    "softmax",
    "sqrt",
    "subtract",
    "sum",
    "tanh",
    "transpose",
]
