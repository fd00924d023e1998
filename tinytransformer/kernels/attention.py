"""Attention: products of matrices, two forward and four backward, and between them one kernel in either direction."""

from __future__ import annotations

import math
from typing import Any

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.dropout import Dropping, drop
from tinytransformer.kernels.launch import launch_rows
from tinytransformer.kernels.products import products


def attention(
    query: Array, key: Array, value: Array, mask: Array | None, causal: bool, dropping: Dropping | None, least: float
) -> tuple[Array, Any]:
    """`ops.attention`; least: what a row of e^scores sums up to at the least.

    Results and gradients are laid out in memory as (B, T, H, d), so that to split and to merge heads moves nothing.
    """
    xp = array_module(query)
    (batch, heads, queries, d), keys = query.shape, key.shape[2]
    scale, rows = 1 / math.sqrt(d), batch * heads * queries

    def side_by_side(time: int, width: int) -> Array:
        return xp.empty((batch, time, heads, width), query.dtype).swapaxes(1, 2)

    probabilities = products(query, key.swapaxes(-1, -2), xp.empty((batch, heads, queries, keys), query.dtype))
    visible: tuple[Any, ...] = (0, 0, 0, 0, 0)  # where the mask begins, and its strides
    if mask is not None:
        mask = xp.broadcast_to(mask, probabilities.shape)
        visible = (mask, *mask.strides)  # of booleans, which are bytes
    options = (*visible, heads, queries, keys, causal, scale, least)
    launch_rows("attention_softmax", rows, keys, query, probabilities, *options)

    def weights() -> Array:
        return probabilities if dropping is None else drop(probabilities, dropping)  # not kept, but made once more

    def backward(dy):
        dvalue = products(weights().swapaxes(-1, -2), dy, side_by_side(keys, value.shape[-1]))
        dscores = products(dy, value.swapaxes(-1, -2), xp.empty(probabilities.shape, query.dtype))
        if dropping is not None:
            drop(dscores, dropping, out=dscores)
        launch_rows("attention_softmax_backward", rows, keys, query, dscores, probabilities, keys, scale)
        dquery = products(dscores, key, side_by_side(queries, d))
        return dquery, products(dscores.swapaxes(-1, -2), query, side_by_side(keys, d)), dvalue

    return products(weights(), value, side_by_side(queries, value.shape[-1])), backward
