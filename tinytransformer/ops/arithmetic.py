"""Arithmetic, element by element, with broadcasting.

How a derivation goes stands at the top of `ops/__init__.py`.

Where two arrays of different shapes meet, each is first stretched to the common shape. An element that was
stretched is used many times, so its gradient is the sum over its uses. That sum is the same for all operations, so it
is taken in one place (tape.py) for all that are declared with `broadcasts=True`; the derivations below speak of arrays
of one shape.
"""

from __future__ import annotations

from tinytransformer.backend import array_module
from tinytransformer.ops.checks import require_broadcast
from tinytransformer.tensor import op


@op(broadcasts=True)
def add(x, y):
    """z = x + y.

    Backward. z' = x' + y', so L' = sum(dz * x') + sum(dz * y'). What stands before x' is dx, what stands before y' is
    dy:

        dx = dz
        dy = dz

    Shapes: x and y, arrays or numbers, broadcast to the shape of z.
    Raises: ShapeError if the shapes do not broadcast.
    """
    require_broadcast("add", x, y)

    def backward(dz):
        return dz, dz

    return x + y, backward


@op(broadcasts=True)
def subtract(x, y):
    """z = x - y.

    Backward. z' = x' - y':

        dx =  dz
        dy = -dz

    Shapes and errors: as `add`.
    """
    require_broadcast("subtract", x, y)

    def backward(dz):
        return dz, -dz

    return x - y, backward


@op(broadcasts=True)
def multiply(x, y):
    """z = x * y, element by element.

    Backward. z' = x' * y + x * y' (x' * y' is too small to count), so L' = sum(dz * y * x') + sum(dz * x * y'):

        dx = dz * y
        dy = dz * x

    Shapes and errors: as `add`.
    """
    require_broadcast("multiply", x, y)

    def backward(dz):
        return dz * y, dz * x

    return x * y, backward


@op(broadcasts=True)
def divide(x, y):
    """z = x / y, element by element.

    Backward. From x = z * y follows x' = z' * y + z * y', so z' = (x' - z * y') / y:

        dx =  dz / y
        dy = -dz * z / y

    Shapes and errors: as `add`.
    """
    require_broadcast("divide", x, y)
    z = x / y

    def backward(dz):
        dx = dz / y
        return dx, -dx * z

    return z, backward


@op
def negate(x):
    """y = -x.

    Backward. y' = -x':

        dx = -dy

    Shapes: any.
    """

    def backward(dy):
        return (-dy,)

    return -x, backward


@op
def power(x, *, exponent):
    """y = x^c for a constant c.

    Backward. y' = c * x^(c-1) * x':

        dx = dy * c * x^(c-1)

    Shapes: any; `exponent` is a Python number. A negative x needs a whole exponent, and x = 0 one of at least 1, or y
    or dx is not finite.
    """
    exponent = float(exponent)  # a Python float takes the dtype of x; a NumPy number would make float64 of float32

    def backward(dy):
        return (dy * exponent * x ** (exponent - 1),)

    return x**exponent, backward


@op
def exp(x):
    """y = e^x.

    Backward. y' = e^x * x' = y * x':

        dx = dy * y

    Shapes: any.
    """
    y = array_module(x).exp(x)

    def backward(dy):
        return (dy * y,)

    return y, backward


@op
def log(x):
    """y = ln(x), for x > 0.

    Backward. y' = x' / x:

        dx = dy / x

    Shapes: any.
    """

    def backward(dy):
        return (dy / x,)

    return array_module(x).log(x), backward


@op
def sqrt(x):
    """y = sqrt(x), for x > 0.

    Backward. From y^2 = x follows 2 * y * y' = x', so y' = x' / (2 * y):

        dx = dy / (2 * y)

    Shapes: any.
    """
    y = array_module(x).sqrt(x)

    def backward(dy):
        return (dy / (2 * y),)

    return y, backward
