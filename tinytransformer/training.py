"""The training loop: batches in, a better model out.

Everything random in a run comes from its seed and from where the run stands, never from what was drawn before: the
order of an epoch from (seed, epoch), the dropout of a step from (seed, step). So a run can be taken up anywhere.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tinytransformer.backend import array_module
from tinytransformer.checkpoint import append_metrics, save_weights
from tinytransformer.data import Batch, Corpus, batches
from tinytransformer.evaluation import evaluate_loss, evaluate_translation
from tinytransformer.ops import cross_entropy
from tinytransformer.optim import Adam, clip_by_global_norm, cosine, inverse_square_root
from tinytransformer.transformer import PAD, Transformer
from tinytransformer.translation import Translator

SCHEDULES = ("inverse-square-root", "cosine")

# What a generator is for, so that two generators of one run never draw the same numbers.
WEIGHTS, ORDER, DROPOUT = range(3)


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
    """What `train` reports after each update. loss: with label smoothing, per target token of this update."""

    step: int
    epoch: int
    loss: float
    learning_rate: float
    tokens: int


@dataclass(frozen=True)
class ValidationSet:
    """Held-out pairs, as ids for the loss and as text for BLEU."""

    corpus: Corpus
    sources: list[str]
    targets: list[str]


def generator_for(seed: int, *purpose: int) -> np.random.Generator:
    """Return the generator of a run for one purpose and place: the same numbers every time."""
    return np.random.Generator(np.random.SFC64([seed, *purpose]))


def train(
    model: Transformer,
    corpus: Corpus,
    options: TrainingOptions,
    *,
    report: Callable[[Progress], object] = lambda progress: None,
    validate: Callable[[int, float, float], object] = lambda step, loss, speed: None,
) -> None:
    """Train `model` on `corpus`, in place.

    report: is told of every update. validate: is called every `valid_every` steps, and after the last, with the step,
        the mean training loss per token and the target tokens per second since it was called before.
    Raises: TrainingError if loss or gradient cease to be finite; the parameters are then those before that step.
    """
    optimizer = Adam(model.parameters, weight_decay=options.weight_decay)
    stream = _endless_batches(corpus, options)
    loss_sum, token_sum, started = 0.0, 0, time.perf_counter()
    with Replicas(model, options) as replicas:
        for step in range(1, options.steps + 1):
            numbered = list(islice(stream, options.accumulate))
            epoch, parts = numbered[-1][0], [batch for _, batch in numbered]
            tokens = sum(batch.tokens for batch in parts)

            loss = replicas.gradient(parts, tokens, step)
            norm = clip_by_global_norm(model.parameters.grad, options.clip)
            _require_finite(step, loss, norm)
            rate = learning_rate(step, options)
            optimizer.update(rate)

            report(Progress(step, epoch, loss, rate, tokens))
            loss_sum, token_sum = loss_sum + loss * tokens, token_sum + tokens
            if step % options.valid_every == 0 or step == options.steps:
                validate(step, loss_sum / token_sum, token_sum / (time.perf_counter() - started))
                loss_sum, token_sum, started = 0.0, 0, time.perf_counter()


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

    def gradient(self, parts: list[Batch], tokens: int, step: int) -> float:
        """Leave the gradient of the mean loss over `parts` in the first model; return that loss.

        tokens: how many target tokens `parts` hold together.
        """

        def run(i: int) -> float:
            model, generator = self.models[i], generator_for(self.options.seed, DROPOUT, step, i)
            model.parameters.zero_grad()
            shares = [share for batch in parts if (share := batch.share(i, len(self.models))) is not None]
            return sum(add_gradient(model, share, tokens, self.options.label_smoothing, generator) for share in shares)

        losses = list(self.threads.map(run, range(len(self.models))))
        for model in self.models[1:]:
            self.models[0].parameters.grad += model.parameters.grad
        return sum(losses)


def add_gradient(model: Transformer, batch: Batch, tokens: int, label_smoothing: float, generator: Any) -> float:
    """Run `model` forward and backward on `batch`; return the batch's share of the mean loss over `tokens`.

    The gradients are added to those that the parameters have already.
    """
    xp = array_module(model.parameters.data)
    source, target = xp.asarray(batch.source), xp.asarray(batch.target)
    read, predicted = target[:, :-1], target[:, 1:]  # at every position the model predicts the token after it
    logits = model(source, read, generator)
    loss = cross_entropy(logits, targets=predicted, padding=PAD, label_smoothing=label_smoothing, count=tokens)
    loss.backward()
    return float(loss.data)


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Return the learning rate of step 1, 2, ..."""
    if options.schedule == "cosine":
        return cosine(step, peak=options.learning_rate, warmup=options.warmup, total=options.steps)
    return inverse_square_root(step, peak=options.learning_rate, warmup=options.warmup)


def _endless_batches(corpus: Corpus, options: TrainingOptions) -> Iterator[tuple[int, Batch]]:
    """Yield the batches of epoch 1, 2, ..., each shuffled anew, with the number of the epoch."""
    epoch = 0
    while True:
        epoch += 1
        for batch in batches(corpus.pairs, options.batch_tokens, generator_for(options.seed, ORDER, epoch)):
            yield epoch, batch


def _require_finite(step: int, loss: float, norm: Any) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(
            f"step {step}: the loss is {loss} and the norm of its gradient {float(norm)}; "
            "a smaller learning rate or a longer warm-up may help"
        )


class Validation:
    """Looks at the validation set as the training goes, and keeps the best weights in model.safetensors.

    The best are those with the highest BLEU; without a validation set, the latest.
    """

    def __init__(
        self,
        directory: Path,
        translator: Translator,
        held_out: ValidationSet | None,
        announce: Callable[[str], object],
    ):
        self.directory = directory
        self.translator = translator
        self.held_out = held_out
        self.announce = announce
        self.best = -math.inf

    def __call__(self, step: int, training_loss: float, tokens_per_second: float) -> None:
        """Measure, write a line into metrics.jsonl, announce it, and save the weights if they are the best."""
        model = self.translator.model
        metrics: dict[str, Any] = {
            "step": step,
            "training_loss": round(training_loss, 4),
            "tokens_per_second": round(tokens_per_second),
        }
        bleu = math.inf
        if self.held_out is not None:
            loss = evaluate_loss(model, self.held_out.corpus.pairs)
            score, _ = evaluate_translation(self.translator, self.held_out.sources, self.held_out.targets)
            bleu = score.bleu
            metrics["valid_loss"] = round(loss.per_token, 4)
            metrics["valid_perplexity"] = round(loss.perplexity, 3)
            metrics["valid_bleu"] = round(bleu, 2)
        append_metrics(self.directory, metrics)
        self.announce("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in metrics.items()))
        if bleu >= self.best:
            self.best = bleu
            save_weights(self.directory / "model.safetensors", model)
