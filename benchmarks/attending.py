"""One contender attends: `python -m benchmarks.attending blockwise 8192 --causal` prints what a step took, as JSON.

The layer has 8 heads and a width of 512. A step is its forward and its backward pass over one sequence.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import tinytransformer.openblas  # noqa: F401  before NumPy is loaded, as train.py does

# isort: split
import numpy as np

from benchmarks.clock import Clock
from benchmarks.processes import peak_memory
from tinytransformer import layers
from tinytransformer.backend import keep_freed_memory
from tinytransformer.command_line import count
from tinytransformer.module import FlatParameters
from tinytransformer.tensor import Tensor

WIDTH, HEADS = 512, 8
LONG = {"plain": sys.maxsize, "blockwise": 0}  # from how many pairs of query and key on the layer goes block by block
CONTENDERS = (*LONG, "pytorch")


def ours(contender: str, x: np.ndarray, causal: bool) -> Callable[[], object]:
    """Return the step of tinytransformer's layer, going block by block always or never."""
    keep_freed_memory()  # as train.py does
    layers.LONG = LONG[contender]
    layer = layers.MultiHeadAttention(WIDTH, HEADS, 0.0, np.random.default_rng(1))
    parameters = FlatParameters(layer)

    def step() -> None:
        parameters.zero_grad()
        y = layer(Tensor(x, requires_grad=True), causal=causal)
        y.backward(y.data)

    return step


def pytorch(x: np.ndarray, causal: bool) -> Callable[[], object]:
    """Return the step of PyTorch's layer, by the fused attention that it chooses for itself."""
    import torch

    layer = torch.nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(x.shape[1]) if causal else None

    def step() -> None:
        layer.zero_grad()
        given = torch.from_numpy(x).requires_grad_()
        y, _ = layer(given, given, given, attn_mask=mask, is_causal=causal, need_weights=False)
        y.backward(y.detach())

    return step


def measure_attention(contender: str, length: int, *, causal: bool, clock: Clock) -> dict[str, float]:
    """Return the seconds of a step, and the most memory that the process held."""
    x = np.random.default_rng(0).normal(size=(1, length, WIDTH)).astype(np.float32)
    step = pytorch(x, causal) if contender == "pytorch" else ours(contender, x, causal)
    while not clock.enough():
        step()
        clock()
    return {"seconds": clock.median(), "peak_memory": peak_memory()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.attending", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("length", type=count, help="tokens of the sequence")
    parser.add_argument("--causal", action="store_true", help="hide the future")
    options = parser.parse_args()
    clock = Clock(warm_up=1, least=2, seconds=1.0)
    print(json.dumps(measure_attention(options.contender, options.length, causal=options.causal, clock=clock)))


if __name__ == "__main__":
    main()
