"""The optimizer, its learning rate, and clipping: all on the flat vectors of `FlatParameters`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinytransformer.backend import Array, array_module, zeros
from tinytransformer.module import FlatParameters
from tinytransformer.timing import timed

# Elements per pass over the flat vectors, on a CPU: the pieces of all four arrays stay in a core's second-level cache,
# so the step waits once for memory, not once for each of its ten lines.
CHUNK = 1 << 15


class Adam:
    """Adam; with a weight decay, AdamW.

    For a gradient g at step t, with moments m and v that start at zero:

        m = beta1 * m + (1 - beta1) * g                     mean of the gradients
        v = beta2 * v + (1 - beta2) * g^2                   mean of their squares
        p = p - rate * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps) - rate * decay * p

    The moments start at zero and so are too small at first; dividing by 1 - beta^t corrects that. The decay stands
    outside the division, and is spared gains and biases, for which zero is no natural value.

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
        self.m: Array = zeros(parameters.data.size, parameters.data.dtype, parameters.device)
        self.v: Array = zeros(parameters.data.size, parameters.data.dtype, parameters.device)
        self.step = 0
        self.chunk = CHUNK if xp is np else self.m.size

    def update(self, learning_rate: float, *, scale: float | Array = 1.0, sound: Array | None = None) -> None:
        """Take one step along `parameters.grad`, which is used up: it holds no gradient afterwards.

        scale: what the gradient is multiplied by before, to clip it.
        sound: a boolean on the device, shape (); if it turns out False, parameters and moments stay as they are. For a
            gradient on a GPU that nobody has looked at yet. None: the gradient is known to be finite.
        """
        self.move(0, self.m.size, *self.begin_step(learning_rate, scale, sound))

    def begin_step(self, learning_rate: float, scale: float | Array, sound: Array | None) -> tuple[Any, ...]:
        """Count a step, and return its numbers, which are the same for all elements, for `move`."""
        self.step += 1
        xp = array_module(self.m)
        beta1, beta2 = self.betas
        # Both corrections taken out of the square root: rate * m / (sqrt(v) + eps'), one pass less over v.
        correction = math.sqrt(1 - beta2**self.step)
        rate, eps = learning_rate * correction / (1 - beta1**self.step), self.eps * correction
        fade1, fade2, fade = beta1, beta2, 1 - learning_rate * self.weight_decay  # of the moments, of the parameters
        if sound is not None:  # if not: a step without gradient and rate, in which nothing fades
            self.parameters.grad[...] = xp.where(sound, self.parameters.grad * scale, 0)
            still, rate = xp.ones((), self.m.dtype), xp.where(sound, rate, xp.zeros((), self.m.dtype))
            fade1, fade2, fade = (xp.where(sound, factor, still) for factor in (fade1, fade2, fade))
            scale = 1.0
        return scale, rate, eps, fade1, fade2, fade

    @timed("Adam")
    def move(self, start: int, stop: int, scale: Any, rate: Any, eps: float, fade1: Any, fade2: Any, fade: Any) -> None:
        """Take the step for the elements from `start` to `stop`, with the numbers of `begin_step`."""
        xp = array_module(self.m)
        beta1, beta2 = self.betas
        if self.weight_decay:
            self.parameters.data[start : min(stop, self.parameters.decayed)] *= fade
        for first in range(start, stop, self.chunk):
            part = slice(first, min(first + self.chunk, stop))
            g, m, v, p = self.parameters.grad[part], self.m[part], self.v[part], self.parameters.data[part]
            g *= scale
            m *= fade1
            m += (1 - beta1) * g
            g *= g
            g *= 1 - beta2
            v *= fade2
            v += g
            xp.sqrt(v, out=g)
            g += eps
            xp.divide(m, g, out=g)
            g *= rate
            p -= g


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
    """Return the learning rate of step 1, 2, ...: a linear rise to `peak` over `warmup` steps, then 1 / sqrt(step).

    With peak = (D * warmup)^-1/2 it is the schedule of Vaswani et al. 2017, equation 3.
    """
    return peak * min(step / warmup, math.sqrt(warmup / step))


def cosine(step: int, *, peak: float, warmup: int, total: int) -> float:
    """Return the learning rate of step 1, 2, ...: a linear rise to `peak`, then half a cosine down to 0 at `total`.

    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, with one period.
    """
    if step < warmup:
        return peak * step / warmup
    progress = min((step - warmup) / max(total - warmup, 1), 1)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
