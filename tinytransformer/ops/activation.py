"""Activation functions: the bends that make a network more than one matrix."""

from __future__ import annotations

import math

from tinytransformer.backend import array_module
from tinytransformer.tensor import op


@op
def relu(x):
    """y = max(x, 0).

    Backward. Where x > 0 the result moves with x; where x < 0 it stands still. At x = 0 the function has a kink
    and any slope from 0 to 1 would do; 0 is taken:

        dx = dy where x > 0, else 0

    Shapes: any.
    Source: Glorot, Bordes and Bengio 2011, "Deep sparse rectifier neural networks", section 3.
    """
    y = array_module(x).maximum(x, 0)

    def backward(dy):
        return (dy * (y > 0),)

    return y, backward


@op
def tanh(x):
    """y = tanh(x) = (e^x - e^-x) / (e^x + e^-x).

    Backward. Call the numerator s and the denominator c. As (e^x)' = e^x * x' and (e^-x)' = -e^-x * x',

        s' = c * x'
        c' = s * x'

    and as y = s / c, by the rule of `divide`,

        y' = (s' - y * c') / c = (c - y * s) / c * x' = (1 - y^2) * x'

        dx = dy * (1 - y^2)

    Shapes: any.
    """
    y = array_module(x).tanh(x)

    def backward(dy):
        return (dy * (1 - y * y),)

    return y, backward


@op
def sigmoid(x):
    """y = 1 / (1 + e^-x).

    Computed as (1 + tanh(x / 2)) / 2, which is the same function and overflows nowhere; its error is absolute, about
    the spacing of floats at 1, so that a tail far below it comes out as 0.

    Backward. From 1 / y = 1 + e^-x follows -y' / y^2 = -e^-x * x', and also e^-x = (1 - y) / y:

        y' = y^2 * e^-x * x' = y * (1 - y) * x'

        dx = dy * y * (1 - y)

    Shapes: any.
    """
    y = 0.5 * array_module(x).tanh(0.5 * x) + 0.5

    def backward(dy):
        return (dy * y * (1 - y),)

    return y, backward


@op
def gelu(x):
    """y = x times the probability that a standard normal variable is below x, in the tanh approximation.

    Forward:

        u = sqrt(2 / pi) * (x + 0.044715 * x^3)
        t = tanh(u)
        y = 0.5 * x * (1 + t)

    Backward. Nudge x by x':

        u' = sqrt(2 / pi) * (1 + 3 * 0.044715 * x^2) * x'
        t' = (1 - t^2) * u'
        y' = 0.5 * (1 + t) * x' + 0.5 * x * t'

    Everything is element by element, so the factor of x' in y' is the derivative:

        dx = dy * 0.5 * (1 + t + x * (1 - t^2) * sqrt(2 / pi) * (1 + 3 * 0.044715 * x^2))

    Shapes: any.
    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415, section 2.
    """
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    square = x * x  # products, since x**3 takes 200 times as long
    t = array_module(x).tanh(scale * x * (1 + cubic * square))

    def backward(dy):
        slope = scale * (1 + 3 * cubic * square)  # of u
        return (dy * 0.5 * (1 + t + x * (1 - t * t) * slope),)

    return 0.5 * x * (1 + t), backward
