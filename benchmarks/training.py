"""One contender trains one size: `python -m benchmarks.training ours tiny` prints what a step took, as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import tinytransformer.openblas  # noqa: F401  before NumPy is loaded, as train.py does
from benchmarks.clock import Clock
from benchmarks.floor import measure_floor, products
from benchmarks.processes import memory_with_workers, peak_memory
from benchmarks.sizes import CLIP, LABEL_SMOOTHING, LEARNING_RATE, SIZES, Size
from tinytransformer.backend import keep_freed_memory
from tinytransformer.training import WEIGHTS, TrainingOptions, generator_for, train
from tinytransformer.transformer import Transformer

CONTENDERS = ("ours", "floor", "floor-in-cache", "pytorch", "pytorch-same-dropout", "pytorch-compiled")


def ours(size: Size, clock: Clock) -> int:
    """Train by the product's own loop, as train.py does, until the clock says that it is enough.

    Returns the memory it held at the end, in bytes, its workers included. It frees none before that.
    """
    keep_freed_memory()
    options = TrainingOptions(
        steps=sys.maxsize,
        batch_tokens=size.batch_tokens,
        learning_rate=LEARNING_RATE,
        label_smoothing=LABEL_SMOOTHING,
        clip=CLIP,
        replicas=size.replicas,
        valid_every=sys.maxsize,
    )
    model = Transformer(size.config(), generator_for(options.seed, WEIGHTS))
    held = [0]

    def enough() -> bool:
        if clock.enough():
            held.append(memory_with_workers())
        return clock.enough()

    train(model, size.corpus(), options, report=clock, stop=enough)
    return held[-1]


def measure_training(contender: str, size: Size, new_clock: Callable[[], Clock] = Clock) -> dict[str, float]:
    """Return the seconds of a step; its peak memory, and what the libraries alone take; of the floor its FLOP/s."""
    clock = new_clock()
    if contender.startswith("floor"):
        seconds = measure_floor(size, (clock, new_clock()), in_cache=contender == "floor-in-cache")
        operations = sum(product.operations() for product in products(size, size.batch))
        return {"seconds": seconds, "operations_per_second": operations / seconds}
    if contender == "ours":
        libraries = peak_memory()
        held = ours(size, clock)
    else:
        from benchmarks import pytorch_training  # here, so that ours is measured without PyTorch in memory

        libraries = peak_memory()
        same, compiled = contender == "pytorch-same-dropout", contender == "pytorch-compiled"
        pytorch_training.train(size, clock, same_dropout=same, compiled=compiled)
        held = 0
    return {"seconds": clock.median(), "peak_memory": max(held, peak_memory()), "libraries": libraries}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.training", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("size", choices=SIZES)
    options = parser.parse_args()
    try:
        result = measure_training(options.contender, SIZES[options.size])
    except RuntimeError as error:  # of PyTorch, such as that there is no compiler: the first of many lines says it
        sys.exit(str(error).split("\n")[0])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
