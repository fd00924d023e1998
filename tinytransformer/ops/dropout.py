"""Dropout: in training, every element is zeroed with a small probability, so that none is relied on alone."""

from __future__ import annotations

from typing import Any

from tinytransformer import kernels
from tinytransformer.backend import Array, array_module, is_on_gpu, random_bytes
from tinytransformer.ops.checks import require_rate
from tinytransformer.tensor import op


@op
def dropout(x, *, rate, generator=None):
    """Zero each element with probability `rate`, and scale the others so that the expected value stays.

    Forward, for a random mask m that is 0 with probability r and 1 / (1 - r) otherwise:

        y = m * x

    Without a generator nothing is dropped and y = x: so a model drops out exactly when it is handed one. r is `rate`
    rounded to a whole number of 256ths, from 1 to 255, since one random byte decides over each element.

    Backward. m does not depend on x, so y' = m * x':

        dx = m * dy

    Shapes: any.
    Raises: ValueError unless 0 <= rate < 1.
    Source: Srivastava et al. 2014, "Dropout", section 4; scaled in training as in section 10.
    """
    require_rate("dropout", rate)
    if generator is None or rate == 0:
        return x, lambda dy: (dy,)
    if is_on_gpu(x):
        dropping = draw_dropping(rate, generator)
        return kernels.drop(x, dropping), lambda dy: (kernels.drop(dy, dropping),)
    mask = dropout_mask(x, rate, generator)

    def backward(dy):
        return (dy * mask,)

    return x * mask, backward


def dropout_mask(x: Array, rate: float, generator: Any) -> Array:
    """Draw an array like `x`: 0 where an element is dropped, 1 / (share kept) elsewhere.

    One random byte decides over each element, at a tenth of the cost of a random float.
    """
    if is_on_gpu(x):
        return kernels.drop(array_module(x).ones_like(x), draw_dropping(rate, generator))
    threshold, factor = threshold_and_factor(rate)
    mask = (random_bytes(x, generator) >= threshold).astype(x.dtype)
    mask *= factor
    return mask


def draw_dropping(rate: float, generator: Any) -> kernels.Dropping:
    """Draw what is dropped on a GPU, where whoever wants the mask computes it."""
    return kernels.Dropping.drawn(*threshold_and_factor(rate), generator)


def threshold_and_factor(rate: float) -> tuple[int, float]:
    """Return below which byte an element is dropped, about 256 * rate, but from 1 to 255; and 1 / (share kept)."""
    threshold = min(max(round(256 * rate), 1), 255)
    return threshold, 1 / (1 - threshold / 256)
