"""A linear layer: a product and a launch forward, two products and a launch backward."""

from __future__ import annotations

import math
from typing import Any

from tinytransformer.backend import Array, array_module
from tinytransformer.kernels.launch import launch, launch_elements
from tinytransformer.kernels.products import product


def linear(x: Array, weight: Array, bias: Array | None) -> tuple[Array, Any]:
    """`ops.linear`."""
    xp = array_module(x)
    n, m = weight.shape
    rows = x.reshape(math.prod(x.shape[:-1]), n)
    y = product(rows, weight)
    if bias is not None:
        launch_elements("add_bias", y.size, y, y, xp.ascontiguousarray(bias), y.size, m)

    def backward(dy):
        dy = xp.ascontiguousarray(dy).reshape(len(rows), m)
        dx, dweight, dbias = product(dy, weight.T).reshape(x.shape), product(rows.T, dy), None
        if bias is not None:
            dbias = xp.empty(m, dy.dtype)
            launch("sum_columns", (-(-m // 32),), (32, 32), dy, dy, dbias, len(dy), m)
        return dx, dweight, dbias

    return y.reshape(*x.shape[:-1], m), backward
