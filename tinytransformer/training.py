"""The training loop: batches in, a better model out.

Everything random in a run comes from its seed and from where the run stands, never from what was drawn before: the
order of an epoch from (seed, epoch), the dropout of a step from (seed, step). So a run can be taken up anywhere, and
goes on bit for bit as if it had never been interrupted.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tinytransformer.backend import Array, may_fork, shared
from tinytransformer.data import Batch, Corpus, make_batch, plan_batches
from tinytransformer.ops import cross_entropy
from tinytransformer.optim import Adam, Numbers, clipping, cosine, inverse_square_root
from tinytransformer.progress import Progress, Standing, Unread
from tinytransformer.timing import timed
from tinytransformer.transformer import PAD, Transformer
from tinytransformer.workers import hire, one_thread_of_blas

SCHEDULES = ("inverse-square-root", "cosine")

# What a generator is for, so that two generators of one run never draw the same numbers.
WEIGHTS, ORDER, DROPOUT, SHORTLIST = range(4)


@dataclass(frozen=True)
class TrainingOptions:
    """How to train. `steps` counts updates of the parameters.

    batch_tokens: the most tokens either side of a batch may have, padding included; accumulate: batches per update.
    learning_rate: the peak, reached after `warmup` steps; schedule: one of SCHEDULES.
    clip: the largest norm that the gradient of an update may have.
    replicas: how many processes share the work of an update; see `Replicas`.
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
    stop: is asked before every update whether to leave off there; on a GPU, after every look.
    Raises: TrainingError if loss or gradient cease to be finite; the parameters are then those before that step.

    A GPU works behind this loop, which hands the steps over without waiting for them: the batches of a step are made
    and copied while the last one runs. Losses are read, and updates reported, up to READ_EVERY at once.
    """
    optimizer = optimizer or Adam(model.parameters, weight_decay=options.weight_decay)
    now = standing or Standing()
    updates, unread = _updates(model, corpus, options, skip=now.step), Unread(optimizer, now, report)
    began, tokens_timed = time.perf_counter(), 0
    # NumPy need not warn of what is not finite: the run ends there, and says so.
    with np.errstate(all="ignore"), Replicas(model, options, optimizer) as replicas:
        for step in range(now.step + 1, options.steps + 1):
            if not unread.updates and stop():
                break

            epoch, parts, tokens = next(updates)
            loss = replicas.gradient(parts, tokens, step)
            norm, scale = clipping(model.parameters.grad, options.clip)
            rate = learning_rate(step, options)
            unread.add(Progress(step, epoch, loss, rate, tokens), norm)
            replicas.update(rate, scale, unread.verdict())

            tokens_timed += tokens
            validating = step % options.valid_every == 0 or step == options.steps
            if validating or unread.is_due():
                unread.read()
            if validating:
                mean, speed = now.loss_sum / now.token_sum, tokens_timed / (time.perf_counter() - began)
                now.loss_sum, now.token_sum = 0.0, 0
                validate(step, mean, speed)
                began, tokens_timed = time.perf_counter(), 0


class Replicas:
    """Divides the work of an update over several processes, each with a share of every batch.

    The replicas use the same parameters, but each has its own tape, generator and gradients. Their gradients are added
    in a fixed order, so the result depends on their number and not on which was faster. What goes element by element,
    adding gradients and moving parameters, each does for a slice of the flat vectors. BLAS is held to one thread each,
    so that they do not wait for each other. Where no process can share a model, they are threads: workers.py. Processes
    share memory that the parameters are moved into, and out of at the end; arrays that were taken of them before stay.
    """

    def __init__(self, model: Transformer, options: TrainingOptions, optimizer: Adam):
        self.options, self.optimizer, self.models = options, optimizer, [model]
        cuts = [i * model.parameters.data.size // options.replicas for i in range(options.replicas + 1)]
        self.slices = list(itertools.pairwise(cuts))

    def __enter__(self) -> Replicas:
        with ExitStack() as stack:
            stack.enter_context(one_thread_of_blas())
            self.models[0].parameters.zero_grad()  # from here on each step leaves zeros
            if self.options.replicas > 1 and may_fork(self.optimizer.m):
                self._move_all(shared)
                stack.callback(self._move_all, lambda x: x.copy())
            self.models += [self.models[0].replica() for _ in self.slices[1:]]
            self.workers = [hire(self._do, self.models[0].parameters.data, stack) for _ in self.slices[1:]]
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stack.close()

    def _move_all(self, copy: Callable[[Array], Array]) -> None:
        """Move what the replicas have in common: into memory that they share, or back, so that nobody else does."""
        self.models[0].parameters.move(copy)
        self.optimizer.m, self.optimizer.v = copy(self.optimizer.m), copy(self.optimizer.v)

    def gradient(self, parts: list[Batch], tokens: int, step: int) -> Array:
        """Leave the gradient of the mean loss over `parts` in the first model; return that loss, of shape ().

        All gradients are zero before: `update` leaves them so.
        tokens: how many target tokens `parts` hold together.
        """
        count = len(self.models)
        shares = [[batch.share(i, count) for batch in parts] for i in range(count)]
        losses = self._each("_gradient", [(share, tokens, step) for share in shares])
        self._each("_add_up", [()] * count)
        return sum(losses)

    def update(self, learning_rate: float, scale: float | Array, sound: Array | None) -> None:
        """Move the parameters along that gradient; the arguments are those of `Adam.update`."""
        numbers = self.optimizer.begin_step(learning_rate, scale, sound)
        self._each("_move", [(numbers,)] * len(self.models))

    def _each(self, task: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """Let every replica do a task, one of those below, each with its arguments; return what they give, in order."""
        for i, worker in enumerate(self.workers, start=1):
            worker.ask(task, i, *arguments[i])
        return [self._do(task, 0, *arguments[0]), *(worker.answer() for worker in self.workers)]

    def _do(self, task: str, i: int, *arguments: Any) -> Any:
        return getattr(self, task)(i, *arguments)

    def _gradient(self, i: int, shares: list[Batch | None], tokens: int, step: int) -> Array:
        """Add the gradient of these shares to that of model i; return their loss. A small batch leaves some none."""
        model, generator = self.models[i], generator_for(self.options.seed, DROPOUT, step, i)
        smoothing = self.options.label_smoothing
        return sum(add_gradient(model, share, tokens, smoothing, generator) for share in shares if share is not None)

    def _add_up(self, i: int) -> None:
        """Add the gradients of all other models to that of the first, in slice i, and leave zeros in their place."""
        first, *others = (model.parameters.grad for model in self.models)
        for other in others:
            for part in self.optimizer.pieces(*self.slices[i]):
                first[part] += other[part]
                other[part] = 0

    def _move(self, i: int, numbers: Numbers) -> None:
        """Take the optimizer's step in slice i."""
        self.optimizer.move(*self.slices[i], numbers)


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


def _updates(
    model: Transformer, corpus: Corpus, options: TrainingOptions, skip: int
) -> Iterator[tuple[int, list[Batch], int]]:
    """Yield what each update learns from, but the first `skip`: its epoch, its batches, and their target tokens.

    The batches are where the parameters are; their tokens were counted before, which waits for no GPU.
    """
    stream = _endless_batches(corpus, options, skip * options.accumulate)
    while True:
        made = list(islice(stream, options.accumulate))
        tokens = sum(batch.tokens for _, batch in made)
        parts = [Batch(model.place_source(batch.source), model.place_target(batch.target)) for _, batch in made]
        yield made[-1][0], parts, tokens


def _endless_batches(corpus: Corpus, options: TrainingOptions, skip: int = 0) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of epoch 1, 2, ..., each shuffled anew, with the number of the epoch; not the first `skip`."""
    for epoch in itertools.count(1):
        plan = plan_batches(corpus.pairs, options.batch_tokens, generator_for(options.seed, ORDER, epoch))
        for indices in plan[skip:]:
            yield epoch, make_batch([corpus.pairs[i] for i in indices])
        skip = max(0, skip - len(plan))
