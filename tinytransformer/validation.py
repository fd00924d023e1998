"""Looking at held-out sentences while a run goes on, and keeping the weights that do best on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tinytransformer.checkpoint import (
    append_metrics,
    average_weights,
    load_weights,
    require_weights,
    save_weights,
)
from tinytransformer.data import Corpus
from tinytransformer.evaluation import evaluate_loss, evaluate_translation, has_four_words
from tinytransformer.reading import open_file, parse_json
from tinytransformer.translation import Translator
from tinytransformer.writing import move, write_atomically


@dataclass(frozen=True)
class ValidationSet:
    """Held-out pairs, as ids for the loss and as text for BLEU."""

    corpus: Corpus
    sources: list[str]
    targets: list[str]


class Validation:
    """Measures a model as its training goes, and keeps the best weights in model.safetensors.

    The best are those with the highest BLEU, or where BLEU says nothing (`has_four_words`) those with the lowest loss;
    without held-out pairs, the latest. If a mean is wanted, the weights of the last few validations are kept as well,
    and their mean takes the place of the best at the end.

    What belongs to one checkpoint stands in several files, and the power may fail between any two. So a validation only
    adds: new weights stand beside the old, named by their step, until a state has been saved that counts on them
    (`settle`); and a run that goes on from an earlier state takes them back (`forget_after`).

    held_out: what to measure on, or None. average: how many to take the mean of, 1 for none.
    announce: is told each result in one line.
    by_loss: whether the loss decides.
    best: the highest BLEU so far, or the lowest loss, negative. since: how many validations ago that was.
    """

    def __init__(
        self,
        directory: Path,
        translator: Translator,
        held_out: ValidationSet | None,
        announce: Callable[[str], object],
        *,
        average: int = 1,
    ):
        self.directory = directory
        self.translator = translator
        self.held_out = held_out
        self.announce = announce
        self.average = average
        self.by_loss = held_out is not None and not has_four_words(held_out.targets)
        self.best = -math.inf
        self.since = 0

    @property
    def better(self) -> str:
        """What is looked for, in words."""
        return "lower loss" if self.by_loss else "better BLEU"

    def __call__(self, step: int, training_loss: float, tokens_per_second: float) -> None:
        """Measure, and save the weights beside the old ones if they are the best so far, or a mean is wanted."""
        measured = {"training_loss": round(training_loss, 4), "tokens_per_second": round(tokens_per_second)}
        value = self._measure({"step": step, **measured})
        self.since = 0 if value > self.best else self.since + 1
        if value >= self.best:
            self.best = value
            save_weights(self.directory / f"best-{step:08}.safetensors", self.translator.model)
        if self.average > 1:
            save_weights(self.directory / f"step-{step:08}.safetensors", self.translator.model)

    def settle(self) -> None:
        """Now that the state is on disk, let the new weights take the place of the old."""
        for path in self._named_by_step("best"):
            move(path, self.directory / "model.safetensors")
        for old in self._named_by_step("step")[: -self.average]:
            old.unlink()

    def finish(self) -> None:
        """Keep the mean of the last weights, if one is wanted, else the best; and load into the model what is kept.

        The best of many validations is so in part by luck, so that its BLEU says less than that of the mean.
        """
        latest = self._named_by_step("step")
        if len(latest) > 1:
            average_weights(latest, self.translator.model)
            self._measure({"mean_of": len(latest)})
            save_weights(self.directory / "model.safetensors", self.translator.model)
        else:
            load_weights(self.directory / "model.safetensors", self.translator.model)

    def require_kept(self, step: int) -> None:
        """Raise CheckpointError unless the weights that `finish` would ask for after `step` are whole."""
        best, latest = ([p for p in self._named_by_step(kind) if _step_named(p) <= step] for kind in ("best", "step"))
        if len(latest) > 1:
            wanted = latest[-self.average :]
        else:
            wanted = best[-1:] or [self.directory / "model.safetensors"] if self.best > -math.inf else []
        for path in wanted:
            require_weights(path, self.translator.model)

    def forget_after(self, step: int) -> None:
        """Take back what was written after `step`, so that a run which goes on from there writes it again."""
        for path in [*self._named_by_step("best"), *self._named_by_step("step")]:
            if _step_named(path) > step:
                path.unlink()
        path = self.directory / "metrics.jsonl"
        kept = b""
        if path.exists():
            with open_file(path) as file:
                kept = b"".join(line for line in file if _step_of(line) <= step)
        write_atomically(path, kept)

    def _named_by_step(self, kind: str) -> list[Path]:
        return sorted(self.directory.glob(f"{kind}-{'[0-9]' * 8}.safetensors"))

    def _measure(self, metrics: dict[str, float]) -> float:
        """Write loss and BLEU of the model as it is beside `metrics`; return what `best` is made of, or infinity."""
        model, value = self.translator.model, math.inf
        if self.held_out is not None:
            loss = evaluate_loss(model, self.held_out.corpus.pairs)
            score, _ = evaluate_translation(self.translator, self.held_out.sources, self.held_out.targets)
            value = -loss.per_token if self.by_loss else score.bleu
            metrics["valid_loss"] = round(loss.per_token, 4)
            metrics["valid_perplexity"] = round(loss.perplexity, 3)
            metrics["valid_bleu"] = round(score.bleu, 2)
        append_metrics(self.directory, metrics)
        self.announce("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in metrics.items()))
        return value


def _step_named(path: Path) -> int:
    return int(path.stem.partition("-")[2])


def _step_of(line: bytes) -> float:
    """Return the step of a line of metrics; of the mean at the end, or of what is no whole line, infinity."""
    try:
        step = parse_json(line).get("step") if line.endswith(b"\n") else None
    except ValueError:
        return math.inf
    return step if type(step) is int else math.inf
