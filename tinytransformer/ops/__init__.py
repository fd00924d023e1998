"""Every operation of the Transformer, forward and gradient.

Read them in this order, from one line of mathematics to a page: arithmetic, activation, reduction, shape (with sums),
matmul, softmax, normalisation, dropout, embedding, attention, loss, blockwise.

An operation takes arrays and returns two things: its result, and a function `backward` that turns the gradient of the
result into the gradients of the inputs. Let L be the number that the whole computation ends in, the loss. A gradient
dx = dL/dx has the shape of x and says by how much L moves for each element of x. Every derivation takes four steps:

1. Nudge every input a little: x becomes x + x'. A prime is always a nudge.
2. See by what y' the result moves. Products of two nudges are too small to count.
3. Pair with the gradient of the result: L' = sum(dy * y'), over all elements of y.
4. Write that as L' = sum(something * x'). It holds for every nudge x', so the something is dx.

For y = x^2:  y' = 2 * x * x'  and  L' = sum(dy * 2 * x * x') = sum((2 * x * dy) * x'),  so  dx = 2 * x * dy.

With two inputs x and y the result is called z: what is given is dz, and dx and dy are sought. A sum or mean in a
formula runs over one row, softmax's or a norm's; the sum in L' runs over everything.

In the code, `array_module(x)` is `numpy`, or `cupy` for an array on a GPU; what begins with `require` only checks
arguments; `@op` lets an operation be called with Tensors, and is explained in tensor.py.
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
from tinytransformer.ops.blockwise import blockwise_attention
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
    "blockwise_attention",
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
