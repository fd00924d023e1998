"""Scaled dot-product attention: every query takes a weighted mean of the values, weighted by its keys."""

from __future__ import annotations

import math
from typing import Any

from tinytransformer import kernels
from tinytransformer.backend import Array, array_module, is_on_gpu
from tinytransformer.ops.checks import require, require_rate
from tinytransformer.ops.dropout import draw_dropping, dropout_mask
from tinytransformer.ops.sums import MODERATE, is_moderate, max_last, sum_last, sum_of_products
from tinytransformer.tensor import ShapeError, op

LEAST = math.exp(-MODERATE)  # the least a sum of e^scores can be where a key is visible; where none is, it is 0


@op
def attention(query, key, value, *, mask=None, causal=False, rate=0.0, generator=None):
    """Let every query gather values from the positions whose keys it matches.

    Forward, for one head: queries Q, keys K and values V are matrices with a row for every position. c = 1 / sqrt(d),
    and m is a mask of `dropout`:

        S = c * Q @ K^T                     how well each query matches each key
        P = softmax(S) over the keys        a key that is hidden has S = -inf, hence P = 0
        A = m * P                           the weights; A = P without dropout
        Y = A @ V

    Without c the entries of S would have variance d for queries and keys of independent elements of mean 0 and variance
    1. Softmax would put nearly all weight on one key, and its gradient would vanish. A query that sees no key at all
    has P = 0 and gets Y = 0, rather than 0 / 0. To take a number off all scores of a query changes nothing (see
    `softmax`). So the largest is taken off, lest anything overflow; on a CPU only where not all scores are between -60
    and 60.

    Backward, from the end to the beginning, by the rules of `matmul`, `multiply` and `softmax`:

        dV = A^T @ dY                       from Y' = A' @ V + A @ V'
        dA = dY @ V^T
        dP = m * dA                         from A' = m * P'
        dS = P * (dP - sum(dP * P) over the keys)
        dQ = c * dS @ K                     from S' = c * (Q' @ K^T + Q @ K'^T)
        dK = c * dS^T @ Q

    Hidden keys need no rule of their own: where P = 0, dS = 0.

    mask: booleans, True where a key may be seen, that broadcast to (B, H, T_query, T_key); or None.
    causal: whether a query may see only keys up to its own position. The last query stands at the last key, so
        this also holds when fewer queries than keys are passed.
    rate, generator: dropout on P; nothing is dropped without a generator.

    Shapes, for B sentences, H heads, T positions and d features in a head: query (B, H, T_query, d), key
        (B, H, T_key, d), value (B, H, T_key, d_value) -> (B, H, T_query, d_value).
    Raises: ShapeError if these or the mask do not fit, TypeError for a mask that is not boolean, ValueError
    unless 0 <= rate < 1.
    Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1; dropout as in the authors' tensor2tensor.
    """
    require_attention_shapes("attention", query, key, value, mask)
    require_rate("attention", rate)
    if is_on_gpu(query):
        dropping = None if generator is None or rate == 0 else draw_dropping(rate, generator)
        return kernels.attention(query, key, value, mask, causal, dropping, LEAST)
    xp = array_module(query)
    scale = 1 / math.sqrt(query.shape[-1])
    scaled_query = query * scale  # scaling Q costs less than scaling S, which is larger
    probabilities = scaled_query @ key.swapaxes(-1, -2)  # S; from here on P is computed in its place
    moderate = is_moderate(probabilities)
    visible = _visible(xp, probabilities.shape, mask, causal)
    if visible is not None:
        probabilities += xp.where(visible, probabilities.dtype.type(0), probabilities.dtype.type(-math.inf))
    if not moderate:
        # Where all is hidden the maximum is -inf; any finite number in its stead makes exp(-inf - number) = 0.
        probabilities -= xp.maximum(max_last(probabilities), xp.finfo(probabilities.dtype).min)
    xp.exp(probabilities, out=probabilities)
    probabilities /= xp.maximum(sum_last(probabilities), LEAST)
    kept = None if generator is None or rate == 0 else dropout_mask(probabilities, rate, generator)  # m

    def backward(dy):
        weights = probabilities if kept is None else probabilities * kept
        dvalue = _product(weights.swapaxes(-1, -2), dy)
        dscores = dy @ value.swapaxes(-1, -2)  # dA; turned into dP and then dS in its place
        if kept is not None:
            dscores *= kept
        dscores -= sum_of_products(dscores, probabilities)
        dscores *= probabilities
        dquery = _product(dscores, key)
        dquery *= scale
        return dquery, _product(dscores.swapaxes(-1, -2), scaled_query), dvalue

    return _product(probabilities if kept is None else probabilities * kept, value), backward


def _product(x: Array, y: Array) -> Array:
    """Return x @ y, (B, H, T, d), laid out in memory as (B, T, H, d).

    So the heads of a position lie side by side, as they were made and as they are wanted: to merge them moves nothing.
    """
    xp = array_module(x)
    batch, heads, time, _ = x.shape
    return xp.matmul(x, y, out=xp.empty((batch, time, heads, y.shape[-1]), x.dtype).swapaxes(1, 2))


def _visible(xp: Any, shape: tuple[int, ...], mask: Array | None, causal: bool) -> Array | None:
    """Return what `mask` and `causal` leave visible, broadcastable to `shape`; None if that is everything."""
    queries, keys = shape[-2:]
    if not causal or queries == 1:
        return mask
    past = xp.tri(queries, keys, keys - queries, dtype=bool)  # aligned at the last query and the last key
    return past if mask is None else past & mask


def require_attention_shapes(name: str, query: Array, key: Array, value: Array, mask: Array | None) -> None:
    """Raise ShapeError or TypeError, with the operation's name, unless these are arrays that attention takes."""
    require(
        query.ndim == key.ndim == value.ndim == 4
        and query.shape[:2] == key.shape[:2] == value.shape[:2]
        and query.shape[-1] == key.shape[-1]
        and key.shape[2] == value.shape[2],
        name,
        f"query {query.shape}, key {key.shape} and value {value.shape} do not fit as "
        "(B, H, T_query, d), (B, H, T_key, d) and (B, H, T_key, d_value)",
    )
    if mask is None:
        return
    if mask.dtype != bool:
        raise TypeError(f"{name}: mask must be boolean, True where a key may be seen, got {mask.dtype}")
    full = (*query.shape[:3], key.shape[2])
    if mask.ndim > 4 or any(m not in (1, f) for m, f in zip(mask.shape[::-1], full[::-1], strict=False)):
        raise ShapeError(f"{name}: mask of shape {mask.shape} does not broadcast to {full}")
