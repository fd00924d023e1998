"""One measurement of training on a GPU: `python -m benchmarks.gpu_training CONTENDER SIZE PRECISION` prints it as JSON.

tinytransformer is measured through `train`, as its users run it; PyTorch eager in the loop that its users write, with
its loss read as often.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks import sizes
from benchmarks.sizes import BETAS, CLIP, EPS, LABEL_SMOOTHING, LEARNING_RATE, Size
from tinytransformer.backend import (
    PRECISIONS,
    array_module,
    keep_freed_memory,
    require_device,
    set_precision,
    to_device,
)
from tinytransformer.data import batches
from tinytransformer.optim import Adam, clipping
from tinytransformer.progress import READ_EVERY
from tinytransformer.training import WEIGHTS, Replicas, TrainingOptions, generator_for, train
from tinytransformer.transformer import Transformer

TURNS = 5  # of READ_EVERY steps each, after one in which kernels are compiled and memory is taken

SIZES = {**sizes.SIZES, "60M": Size(32_000, 512, 2048, 8, 6, 64, 64)}  # with 60 million parameters


def measure_tinytransformer(size: Size, precision: str) -> dict[str, Any]:
    """Return the tokens per second of training, the kernels of one step, and the rate of a large matrix product."""
    keep_freed_memory()
    require_device("cuda")
    set_precision(precision)
    options = TrainingOptions(
        READ_EVERY * (1 + TURNS),
        batch_tokens=size.batch_tokens,
        learning_rate=LEARNING_RATE,
        label_smoothing=LABEL_SMOOTHING,
        clip=CLIP,
        valid_every=READ_EVERY,
    )
    model = Transformer(size.config(), generator_for(options.seed, WEIGHTS), device="cuda")
    speeds: list[float] = []
    train(model, size.corpus(), options, validate=lambda step, loss, speed: speeds.append(speed))
    optimizer, batch = Adam(model.parameters), next(batches(size.corpus(1).pairs, size.batch_tokens))
    with Replicas(model, options, optimizer) as replicas:

        def step() -> None:
            loss = replicas.gradient([batch], batch.tokens, 1)
            norm, scale = clipping(model.parameters.grad, options.clip)
            replicas.update(LEARNING_RATE, scale, array_module(norm).isfinite(loss + norm))

        launches = kernels_of(step)
    return {"speed": median(speeds[1:]), "launches": launches, "rate": product_rate()}


def product_rate(edge: int = 8192) -> float:
    """Return the operations per second of a large matrix product, in the precision that was set."""
    x = to_device(np.random.default_rng(1).random((edge, edge), dtype=np.float32), "cuda")
    xp, seconds = array_module(x), []
    for _ in range(6):
        xp.cuda.Device().synchronize()
        started = time.perf_counter()
        x @ x
        xp.cuda.Device().synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * edge**3 / median(seconds[1:])


def kernels_of(step: Callable[[], object]) -> int | None:
    """Return how many kernels a step launches, whoever launches them; None without a PyTorch for CUDA to count them."""
    try:
        import torch
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    step()
    torch.cuda.synchronize()  # or kernels of the step before would be counted too
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        step()
        torch.cuda.synchronize()
    events = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    kernels = [event for event in events if not getattr(event, "is_user_annotation", False)]  # such as Optimizer.step
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in kernels)


def measure_pytorch(size: Size, precision: str) -> dict[str, Any]:
    """Return the tokens per second of torch.nn.Transformer with fused Adam, and the kernels of one step."""
    import torch

    from benchmarks.pytorch_training import Model

    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    model = Model(size, same_dropout=False).to("cuda")
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, BETAS, EPS, fused=True)
    ready = [
        [torch.from_numpy(side).pin_memory() for side in (batch.source, batch.target)]
        for batch in batches(size.corpus().pairs, size.batch_tokens)
    ]

    def step(number: int = 0) -> Any:
        optimizer.zero_grad()
        loss = model(*(side.to("cuda", non_blocking=True) for side in ready[number % len(ready)]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss

    speeds = []
    for turn in range(1 + TURNS):
        started = time.perf_counter()
        for i in range(READ_EVERY):
            loss = step(turn * READ_EVERY + i)
        loss.item()  # this waits
        speeds.append(READ_EVERY * size.batch_tokens / (time.perf_counter() - started))
    return {"speed": median(speeds[1:]), "launches": kernels_of(step)}


CONTENDERS = {"tinytransformer": measure_tinytransformer, "PyTorch": measure_pytorch}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.gpu_training", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("precision", choices=PRECISIONS)
    options = parser.parse_args()
    print(json.dumps(CONTENDERS[options.contender](SIZES[options.size], options.precision)))


if __name__ == "__main__":
    main()
