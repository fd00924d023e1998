"""The training loop: batches in, a better model out.

Everything random in a run comes from its seed and from where the run stands, never from what was drawn before: the
order of an epoch from (seed, epoch), the dropout of a step from (seed, step). So a run can be taken up anywhere, and
goes on bit for bit as if it had never been interrupted.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinytransformer.backend import Array, array_module, to_host
from tinytransformer.data import Batch, Corpus, make_batch, plan_batches
from tinytransformer.ops import cross_entropy
from tinytransformer.optim import Adam, clip_by_global_norm, cosine, inverse_square_root
from tinytransformer.timing import timed
from tinytransformer.transformer import PAD, Transformer

SCHEDULES = ("inverse-square-root", "cosine")

# What a generator is for, so that two generators of one run never draw the same numbers.
WEIGHTS, ORDER, DROPOUT = range(3)

READ_EVERY = 16  # steps from one look at what a GPU has computed to the next: each look waits until it is done


class TrainingError(RuntimeError):
    """A run that cannot go on; the message says at which step and why."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. `steps` counts updates of the parameters.

    batch_tokens: the most tokens either side of a batch may have, padding included; accumulate: batches per update.
    learning_rate: the peak, reached after `warmup` steps; schedule: one of SCHEDULES.
    clip: the largest norm that the gradient of an update may have.
    replicas: how many threads share the work of an update.
    valid_every: steps between two looks at the validation set.
    """

    steps: int
    seed: int = 1
    batch_tokens: int = 4096
    accumulate: int = 1
    learning_rate: float = 5e-4
    warmup: int = 4000
    schedule: str = "inverse-square-root"
    label_smoothing: float = 0.1
    weight_decay: float = 0.0
    clip: float = 1.0
    replicas: int = 1
    valid_every: int = 1000


@dataclass(frozen=True)
class Progress:
    """What `train` reports of each update. loss: with label smoothing, per target token of this update."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    tokens: int


@dataclass
class Standing:
    """Where a run stands: beside the parameters and the optimizer's moments all that it needs to go on.

    step: updates taken. loss_sum, token_sum: over the updates since the last validation.
    """

    step: int = 0
    loss_sum: float = 0.0
    token_sum: int = 0


def generator_for(seed: int, *purpose: int) -> np.random.Generator:
    """Return the generator of a run for one purpose and place: the same numbers every time."""
    return np.random.Generator(np.random.SFC64([seed, *purpose]))


def train(
    model: Transformer,
    corpus: Corpus,
    options: TrainingOptions,
    *,
    optimizer: Adam | None = None,
    standing: Standing | None = None,
    report: Callable[[Progress], object] = lambda progress: None,
    validate: Callable[[int, float, float], object] = lambda step, loss, speed: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train `model` on `corpus`, in place, from where `standing` says to `options.steps`.

    optimizer, standing: of the run to go on with; fresh ones if left out. Both are kept up to date.
    report: is told of every update. validate: is called every `valid_every` steps, and after the last, with the step,
        the mean training loss per token since it was called before, and the target tokens per second.
    stop: is asked after every update whether to leave off there; on a GPU, after every look.
    Raises: TrainingError if loss or gradient cease to be finite; the parameters are then those before that step.

    A GPU works behind this loop, which hands the steps over without waiting for them. Their losses are read, and they
    are reported, up to READ_EVERY at once.
    """
    optimizer = optimizer or Adam(model.parameters, weight_decay=options.weight_decay)
    now = standing or Standing()
    stream = _endless_batches(corpus, options, skip=now.step * options.accumulate)
    unread, step = Unread(optimizer, now, report), now.step
    began, tokens_timed = time.perf_counter(), 0
    # NumPy need not warn of what is not finite: the run ends there, and says so.
    with np.errstate(all="ignore"), Replicas(model, options) as replicas:
        ahead = _place(model, islice(stream, options.accumulate))
        while step < options.steps and not (step == now.step and stop()):
            step, epoch, parts = step + 1, ahead[-1][0], [batch for _, batch in ahead]
            tokens = sum(batch.tokens for batch in parts)

            loss = replicas.gradient(parts, tokens, step)
            norm = clip_by_global_norm(model.parameters.grad, options.clip)
            rate = learning_rate(step, options)
            sound = unread.add(Progress(step, epoch, loss, rate, tokens), norm)
            optimizer.update(rate, sound)

            tokens_timed += tokens
            if step < options.steps:  # the next batches are made and copied while a GPU still computes
                ahead = _place(model, islice(stream, options.accumulate))
            validating = step % options.valid_every == 0 or step == options.steps
            if validating or unread.is_due():
                unread.read()
            if validating:
                mean, speed = now.loss_sum / now.token_sum, tokens_timed / (time.perf_counter() - began)
                now.loss_sum, now.token_sum = 0.0, 0
                validate(step, mean, speed)
                began, tokens_timed = time.perf_counter(), 0


class Unread:
    """The updates that were handed over, and whose losses have not been looked at.

    On a CPU that is the last one at most, and whether it is finite is known before it is made. A GPU is not asked:
    it decides by itself, and from the first step on that is not finite it changes nothing, until `read` says so.
    """

    def __init__(self, optimizer: Adam, standing: Standing, report: Callable[[Progress], object]):
        self.optimizer, self.now, self.report = optimizer, standing, report
        self.updates: list[tuple[Progress, Array]] = []
        self.xp = array_module(optimizer.m)
        self.sound: Array | None = None

    def add(self, progress: Progress, norm: Array) -> Array | None:
        """Note an update that is about to be made; return what `Adam.update` is to be told of it.

        progress: its loss may still be on the device, as the norm of the gradient.
        Raises: as `read`, on a CPU.
        """
        self.updates.append((progress, norm))
        finite = self.xp.isfinite(progress.loss + norm)
        if self.xp is np:
            if not finite:
                self.read()
            return None
        self.sound = finite if self.sound is None else self.sound & finite
        return self.sound

    def is_due(self) -> bool:
        return len(self.updates) >= (1 if self.xp is np else READ_EVERY)

    def read(self) -> None:
        """Report all updates, and bring the standing up to date; this waits for a GPU, once.

        Raises: TrainingError at the first that is not finite.
        """
        updates, self.updates = self.updates, []
        values = to_host(self.xp.stack([x for progress, norm in updates for x in (progress.loss, norm)]))
        for (progress, _), (loss, norm) in zip(updates, values.reshape(-1, 2).tolist(), strict=True):
            now, tokens = self.now, progress.tokens
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self.optimizer.step = now.step  # all after it was handed over in vain
                raise TrainingError(
                    f"step {progress.step}: the loss is {loss} and the norm of its gradient {norm}; "
                    "a smaller learning rate or a longer warm-up may help"
                )
            now.step, now.loss_sum, now.token_sum = progress.step, now.loss_sum + loss * tokens, now.token_sum + tokens
            self.report(replace(progress, loss=loss))


class Replicas:
    """Computes the gradient of an update in several threads, each with a share of every batch.

    The replicas use the same parameters, but each has its own tape, generator and gradients. Their gradients are added
    in a fixed order, so the result depends on their number and not on which thread was faster. NumPy lets other threads
    run while it computes, and BLAS is held to one thread each, so that they do not wait for each other.
    """

    def __init__(self, model: Transformer, options: TrainingOptions):
        self.options = options
        self.models = [model] + [model.replica() for _ in range(options.replicas - 1)]

    def __enter__(self) -> Replicas:
        self.blas = threadpool_limits(limits=1, user_api="blas")
        self.threads = ThreadPoolExecutor(len(self.models))
        return self

    def __exit__(self, *exception: object) -> None:
        self.threads.shutdown()
        self.blas.restore_original_limits()

    def gradient(self, parts: list[Batch], tokens: int, step: int) -> Array:
        """Leave the gradient of the mean loss over `parts` in the first model; return that loss, of shape ().

        tokens: how many target tokens `parts` hold together.
        """

        def run(i: int) -> Array:
            model, generator = self.models[i], generator_for(self.options.seed, DROPOUT, step, i)
            model.parameters.zero_grad()
            shares = [share for batch in parts if (share := batch.share(i, len(self.models))) is not None]
            return sum(add_gradient(model, share, tokens, self.options.label_smoothing, generator) for share in shares)

        contexts = [copy_context() for _ in self.models]  # so that `debugging()` and a profile reach into the threads
        losses = list(self.threads.map(lambda i: contexts[i].run(run, i), range(len(self.models))))
        for model in self.models[1:]:
            self.models[0].parameters.grad += model.parameters.grad
        return sum(losses)


@timed("layers and tape")
def add_gradient(model: Transformer, batch: Batch, tokens: int, label_smoothing: float, generator: Any) -> Array:
    """Run `model` forward and backward on `batch`; return the batch's share of the mean loss over `tokens`.

    The gradients are added to those that the parameters have already. The loss stays on the device, in float64, so that
    shares can be added up.
    """
    source, target = model.place_source(batch.source), model.place_target(batch.target)
    read, predicted = target[:, :-1], target[:, 1:]  # at every position the model predicts the token after it
    logits = model(source, read, generator)
    loss = cross_entropy(logits, targets=predicted, padding=PAD, label_smoothing=label_smoothing, count=tokens)
    loss.backward()
    return loss.data.astype(np.float64)


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Return the learning rate of step 1, 2, ..."""
    if options.schedule == "cosine":
        return cosine(step, peak=options.learning_rate, warmup=options.warmup, total=options.steps)
    return inverse_square_root(step, peak=options.learning_rate, warmup=options.warmup)


def _endless_batches(corpus: Corpus, options: TrainingOptions, skip: int = 0) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of epoch 1, 2, ..., each shuffled anew, with the number of the epoch; not the first `skip`."""
    for epoch in itertools.count(1):
        plan = plan_batches(corpus.pairs, options.batch_tokens, generator_for(options.seed, ORDER, epoch))
        for indices in plan[skip:]:
            yield epoch, make_batch([corpus.pairs[i] for i in indices])
        skip = max(0, skip - len(plan))


def _place(model: Transformer, batches: Iterable[tuple[int, Batch]]) -> list[tuple[int, Batch]]:
    """Return the batches of an update, each behind the number of its epoch, where the parameters are."""
    return [
        (epoch, replace(b, source=model.place_source(b.source), target=model.place_target(b.target)))
        for epoch, b in batches
    ]
