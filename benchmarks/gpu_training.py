"""One measurement of training on a GPU: `python -m benchmarks.gpu_training CONTENDER SIZE PRECISION` prints it as JSON.

tinytransformer is measured through `train`, as its users run it; PyTorch eager in the loop that its users write, with
its loss read as often.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from tinytransformer.backend import PRECISIONS, array_module, require_device, set_precision, to_device
from tinytransformer.data import Corpus, batches
from tinytransformer.layers import sinusoidal_table
from tinytransformer.optim import Adam, clip_by_global_norm
from tinytransformer.training import READ_EVERY, Replicas, TrainingOptions, train
from tinytransformer.transformer import END, PAD, Transformer, TransformerConfig

DROPOUT = LABEL_SMOOTHING = 0.1
TURNS = 5  # of READ_EVERY steps each, after one in which kernels are compiled and memory is taken


@dataclass(frozen=True)
class Size:
    """A model and its batches: `batch` sentences of `length` tokens on either side; layers in each stack."""

    vocabulary: int
    width: int
    feed_forward_width: int
    heads: int
    layers: int
    batch: int
    length: int

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    def config(self) -> TransformerConfig:
        return TransformerConfig(
            self.vocabulary,
            self.vocabulary,
            width=self.width,
            feed_forward_width=self.feed_forward_width,
            heads=self.heads,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            dropout=DROPOUT,
        )

    def corpus(self) -> Corpus:
        """Return four full batches of random ids, the k-th of them with a probability in proportion to 1 / k."""
        generator, ids = np.random.default_rng(1), np.arange(END + 1, self.vocabulary)
        chances = 1 / np.arange(1, len(ids) + 1)
        drawn = generator.choice(ids, (4 * self.batch, 2, self.length - 1), p=chances / chances.sum())
        return Corpus([(source, target) for source, target in drawn.tolist()], 0, 0)

    def operations(self) -> int:
        """Return the multiplications and additions of the matrix products of a step, forward and twice backward."""
        attentions = 3 * self.layers  # one in each block of the encoder, two in each of the decoder
        per_token = attentions * (4 * self.width**2 + 2 * self.length * self.width)
        per_token += 2 * self.layers * 2 * self.width * self.feed_forward_width + self.width * self.vocabulary
        return 3 * 2 * self.tokens * per_token


SIZES = {
    "toy": Size(100, 64, 128, 2, 2, 32, 12),
    "tiny": Size(10_000, 128, 256, 4, 4, 128, 16),
    "small": Size(8000, 256, 1024, 4, 3, 64, 32),
    "base": Size(8000, 512, 2048, 8, 6, 32, 32),
    "60M": Size(32_000, 512, 2048, 8, 6, 64, 64),
}


def measure_tinytransformer(size: Size, precision: str) -> dict[str, Any]:
    """Return the tokens per second of training, the kernels of one step, and the rate of a large matrix product."""
    require_device("cuda")
    set_precision(precision)
    model = Transformer(size.config(), np.random.default_rng(1), device="cuda")
    steps = READ_EVERY * (1 + TURNS)
    options = TrainingOptions(steps, batch_tokens=size.tokens, learning_rate=1e-4, valid_every=READ_EVERY)
    speeds: list[float] = []
    train(model, size.corpus(), options, validate=lambda step, loss, speed: speeds.append(speed))
    optimizer, batch = Adam(model.parameters), next(batches(size.corpus().pairs, size.tokens))
    with Replicas(model, options) as replicas:

        def step() -> None:
            loss = replicas.gradient([batch], batch.tokens, 1)
            norm = clip_by_global_norm(model.parameters.grad, options.clip)
            optimizer.update(1e-4, array_module(norm).isfinite(loss + norm))

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
    """Return how many kernels a step launches, whoever launches them; None where PyTorch is not there to count."""
    try:
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return None
    step()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        step()
    events = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    return sum(not event.name.startswith(("Memcpy", "Memset")) for event in events)


def measure_pytorch(size: Size, precision: str) -> dict[str, Any]:
    """Return the tokens per second of torch.nn.Transformer with fused Adam, and the kernels of one step."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    scale, cuda = math.sqrt(size.width), torch.device("cuda")
    transformer = torch.nn.Transformer(
        size.width,
        size.heads,
        size.layers,
        size.layers,
        size.feed_forward_width,
        dropout=DROPOUT,
        norm_first=True,
        batch_first=True,
        device=cuda,
    )
    table = torch.nn.Parameter(torch.randn(size.vocabulary, size.width, device=cuda) / scale)
    parameters = [table, *transformer.parameters()]
    positions = torch.from_numpy(sinusoidal_table(size.length, size.width)).float().to(cuda)
    future = torch.ones(size.length, size.length, dtype=torch.bool, device=cuda).triu(1)
    optimizer = torch.optim.Adam(parameters, 1e-4, (0.9, 0.98), 1e-9, fused=True)
    ready = [
        [torch.from_numpy(side).pin_memory() for side in (batch.source, batch.target)]
        for batch in batches(size.corpus().pairs, size.tokens)
    ]

    def step(number: int = 0) -> Any:
        source, target = (side.to(cuda, non_blocking=True) for side in ready[number % len(ready)])
        inputs = (F.dropout(F.embedding(x, table) * scale + positions, DROPOUT) for x in (source, target[:, :-1]))
        padding = source == PAD
        masks = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding}
        features = transformer(*inputs, tgt_mask=future, tgt_is_causal=True, **masks)
        logits, wanted = (features @ table.T).flatten(0, 1), target[:, 1:].flatten()
        loss = F.cross_entropy(logits, wanted, ignore_index=PAD, label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    speeds = []
    for turn in range(1 + TURNS):
        started = time.perf_counter()
        for i in range(READ_EVERY):
            loss = step(turn * READ_EVERY + i)
        loss.item()  # this waits
        speeds.append(READ_EVERY * size.tokens / (time.perf_counter() - started))
    return {"speed": median(speeds[1:]), "launches": kernels_of(step)}


CONTENDERS = {"tinytransformer": measure_tinytransformer, "PyTorch": measure_pytorch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("precision", choices=PRECISIONS)
    options = parser.parse_args()
    print(json.dumps(CONTENDERS[options.contender](SIZES[options.size], options.precision)))


if __name__ == "__main__":
    main()
