"""The optimizer, its learning rate, and clipping: all on the flat vectors of `FlatParameters`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinytransformer import kernels
from tinytransformer.backend import Array, array_module, is_on_gpu
from tinytransformer.module import FlatParameters
from tinytransformer.timing import timed

# Elements per pass over the flat vectors, on a CPU: the pieces of all four, and what is computed from them, stay in a
# core's second-level cache, so the step waits once for memory, not once for each of its lines.
CHUNK = 1 << 15


class Adam:
    """Adam; with a weight decay, AdamW.

    For a gradient g at step t, with moments m and v that start at zero:

        m = beta1 * m + (1 - beta1) * g                     mean of the gradients
        v = beta2 * v + (1 - beta2) * g^2                   mean of their squares
        p = p - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) - rate * decay * p

    The moments start at zero and so are too small at first; dividing by 1 - beta^t corrects that. The decay stands
    outside the division, and is spared gains and biases, for which zero is no natural value. As in PyTorch it is
    multiplied by the whole rate; in algorithm 2 it is multiplied by the schedule alone, and not by the step size.

    Attributes:
        m, v: the moments, flat arrays like the parameters; step: how many steps have been taken. Together with the
        parameters they are all that has to be kept to go on later.

    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov and Hutter 2019, arXiv:1711.05101,
    algorithm 2. The defaults are those of Vaswani et al. 2017, section 5.3.
    """

    def __init__(
        self,
        parameters: FlatParameters,
        *,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-9,
        weight_decay: float = 0.0,
    ):
        xp = array_module(parameters.data)
        self.parameters = parameters
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.m: Array = xp.zeros_like(parameters.data)
        self.v: Array = xp.zeros_like(parameters.data)
        self.step = 0
        self.chunk = CHUNK if xp is np else self.m.size

    def update(self, learning_rate: float, *, scale: float | Array = 1.0, sound: Array | None = None) -> None:
        """Take one step along `parameters.grad`, which is zero afterwards, ready for the next gradient.

        scale: what the gradient is multiplied by before, to clip it.
        sound: a boolean where the parameters are, shape (); if it turns out False, parameters and moments stay as they
            are. For a gradient on a GPU that nobody has looked at yet. None: the gradient is known to be finite.
        """
        self.move(0, self.m.size, self.begin_step(learning_rate, scale, sound))

    def begin_step(self, learning_rate: float, scale: float | Array, sound: Array | None) -> Numbers:
        """Count a step, and return its numbers for `move`."""
        self.step += 1
        beta1, beta2 = self.betas
        # The correction of v taken out of the square root, and both put into the rate: rate' * m / (sqrt(v) + eps').
        correction = math.sqrt(1 - beta2**self.step)
        rate, eps = learning_rate * correction / (1 - beta1**self.step), self.eps * correction
        fade = 1 - learning_rate * self.weight_decay if self.weight_decay else None
        return Numbers(scale * (1 - beta1), beta1, (1 - beta2) / (1 - beta1) ** 2, beta2, rate, eps, fade, sound)

    @timed("Adam")
    def move(self, start: int, stop: int, numbers: Numbers) -> None:
        """Take the step for the elements from `start` to `stop`."""
        if is_on_gpu(self.m):
            kernels.move(self, start, stop, numbers)
            return
        if numbers.sound is not None and not numbers.sound:
            self.parameters.grad[start:stop] = 0
            return
        if numbers.fade is not None:
            self.parameters.data[start : min(stop, self.parameters.decayed)] *= numbers.fade
        for part in self.pieces(start, stop):
            gradient, m, v, p = self.parameters.grad[part], self.m[part], self.v[part], self.parameters.data[part]
            g = gradient * numbers.take_m  # (1 - beta1) times the gradient, clipped
            gradient.fill(0)  # now, while it is in the cache
            m *= numbers.fade_m
            m += g
            g *= g
            g *= numbers.take_v
            v *= numbers.fade_v
            v += g
            np.sqrt(v, out=g)
            g += numbers.eps
            np.divide(m, g, out=g)
            g *= numbers.rate
            p -= g

    def pieces(self, start: int, stop: int) -> Iterator[slice]:
        """Divide what lies from `start` to `stop` in the flat vectors into what is best worked on at a time."""
        for first in range(start, stop, self.chunk):
            yield slice(first, min(first + self.chunk, stop))


@dataclass(frozen=True)
class Numbers:
    """What is the same for all elements in one step of Adam.

    take_m, fade_m: what m takes of the gradient, its scale included, and what it keeps of itself; the first may
        be an array on a GPU, of shape ().
    take_v, fade_v: what v takes of the square of that, and what it keeps of itself.
    rate, eps: with the corrections of m and v in them. fade: what a matrix keeps of itself; None: all.
    sound: as in `Adam.update`.
    """

    take_m: float | Array
    fade_m: float
    take_v: float
    fade_v: float
    rate: float
    eps: float
    fade: float | None
    sound: Array | None


@timed("clipping")
def clipping(gradient: Array, limit: float) -> tuple[Array, float | Array]:
    """Return the Euclidean norm of the flat `gradient`, and the scale that brings it down to at most `limit`.

    A limit that is infinite in the gradient's dtype changes nothing.

    Source: Pascanu, Mikolov and Bengio 2013, arXiv:1211.5063, algorithm 1.
    """
    xp = array_module(gradient)
    norm = xp.sqrt(gradient @ gradient)
    if limit >= float(xp.finfo(gradient.dtype).max):  # which in this dtype would be infinite, and inf / inf no number
        return norm, 1.0
    return norm, limit / xp.maximum(norm, limit)


def inverse_square_root(step: int, *, peak: float, warmup: int) -> float:
    """Return the learning rate of step 1, 2, ...: linear up to `peak` over `warmup` steps, then as 1 / sqrt(step).

    With peak = (D * warmup)^-1/2 it is the schedule of Vaswani et al. 2017, equation 3.
    """
    return peak * min(step / warmup, math.sqrt(warmup / step))


def cosine(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Return the learning rate of step 1, 2, ...: a linear rise to `peak`, then half a cosine down to 0 at `total`.

    If `total` does not come after the warm-up, the rise is all.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, with one period.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
