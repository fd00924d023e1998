"""Derivatives from function values alone: differences, extrapolated until only rounding is left."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# Rounding costs about 1e-16 / (STEP / 4), truncation about STEP^6: neither comes near 1e-9. And STEP / 4 is a
# multiple of no power of ten: a function with steps of that width, as rounding to decimals makes, would look straight.
STEP = 1e-2 * math.sqrt(1.1)


class Differences(NamedTuple):
    """What function values tell about df/dx, element by element; three arrays of the shape of x.

    Attributes:
        sixth: df/dx with an error of O(h^6).
        fourth: df/dx with an error of O(h^4). Where it differs from `sixth`, neither can be trusted.
        jump: by how much the slope jumps at x itself; where f is smooth it is 0, with an error of O(h^5).
    """

    sixth: np.ndarray
    fourth: np.ndarray
    jump: np.ndarray


def differences(f: Callable[[], float], x: np.ndarray, step: float = STEP) -> Differences:
    """Differentiate the number f() with respect to every element of an array `x` that f reads.

    The slope. By Taylor's formula the central difference errs in even powers of h only, with some c2, c4, ...
    that depend on f and x but not on h:

        D(h) = (f(x + h) - f(x - h)) / 2h = df/dx + c2 * h^2 + c4 * h^4 + c6 * h^6 + ...

    So differences at several h may be weighted such that powers cancel. Two of them remove h^2, since
    4 * (h/4)^2 = (h/2)^2, and the error left begins with h^4:

        fourth = (4 * D(h/4) - D(h/2)) / 3

    Call this F(h), and F(2h) the same from D(h/2) and D(h). Halving h divides an error of h^4 by 16, so
    16 * F(h) - F(2h) has none left, and is 15 * df/dx:

        sixth = (16 * F(h) - F(2h)) / 15
              = (16 * (4 * D(h/4) - D(h/2)) - (4 * D(h/2) - D(h))) / 45
              = (64 * D(h/4) - 20 * D(h/2) + D(h)) / 45

    The jump. At a kink all this can agree and be wrong: for relu at 0 every D(h) is 1/2. There the slopes to
    the right and to the left differ. Where f is smooth their difference errs in odd powers of h,

        J(h) = (f(x + h) - f(x)) / h - (f(x) - f(x - h)) / h = jump + b1 * h + b3 * h^3 + b5 * h^5 + ...

    and h and h^3 are removed in the same way. Halving h halves an error of h, so G(h) = 2 * J(h/4) - J(h/2) has none;
    it divides an error of h^3 by 8, so 8 * G(h) - G(2h) has none, and 7 * jump:

        jump = (8 * (2 * J(h/4) - J(h/2)) - (2 * J(h/2) - J(h))) / 7
             = (16 * J(h/4) - 10 * J(h/2) + J(h)) / 7

    (At a kink the estimate is rougher, but it need only be far from 0 there.)

    x is changed in place, one element at a time, and put back, so f sees the memory layout that x has.

    Shapes: x any, float64; no two elements of x may share memory.
    Source: Richardson 1911, "The approximate arithmetical solution by finite differences of physical problems",
    Phil. Trans. A 210, section 1.2.
    """
    sixth, fourth, jump = np.empty(x.shape), np.empty(x.shape), np.empty(x.shape)
    centre = f()
    for index in np.ndindex(x.shape):
        middle = x[index]
        slopes, bends = [], []
        for h in (step, step / 2, step / 4):
            x[index] = middle + h
            above = f()
            x[index] = middle - h
            below = f()
            slopes.append((above - below) / (2 * h))
            bends.append((above - 2 * centre + below) / h)
        x[index] = middle
        sixth[index] = (64 * slopes[2] - 20 * slopes[1] + slopes[0]) / 45
        fourth[index] = (4 * slopes[2] - slopes[1]) / 3
        jump[index] = (16 * bends[2] - 10 * bends[1] + bends[0]) / 7
    return Differences(sixth, fourth, jump)
