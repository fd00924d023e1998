"""The directory of a training run: made, recorded, and found again by --resume."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from tinytransformer.backend import array_module
from tinytransformer.checkpoint import (
    FILES,
    CheckpointError,
    RunConfig,
    load_config,
    load_state,
    require_held,
    save_config,
    save_state,
)
from tinytransformer.data import Corpus
from tinytransformer.optim import Adam
from tinytransformer.options import parse_arguments
from tinytransformer.progress import Standing, TrainingError
from tinytransformer.reading import in_one_line
from tinytransformer.shortlist import NAME, Shortlist, learn
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.training import SHORTLIST, generator_for
from tinytransformer.transformer import TransformerConfig
from tinytransformer.translation import Translator
from tinytransformer.validation import Validation
from tinytransformer.writing import BESIDE, require_same, write_atomically

# These are about one call of the script, not about the run.
NOT_RECORDED = {"out", "overwrite", "resume", "summary", "debug", "profile"}
SAVE_EVERY = 600  # seconds of training that a power cut may cost, at most


class Checkpoint:
    """All that a run needs to go on, in memory and on disk: saved as one, and loaded as one.

    optimizer: with the parameters. validation: which keeps the best weights. standing: how far the run is.
    """

    def __init__(self, directory: Path, optimizer: Adam, validation: Validation):
        self.directory = directory
        self.optimizer = optimizer
        self.validation = validation
        self.standing = Standing()
        self.saved = time.monotonic()

    def require_finite(self) -> None:
        """Raise TrainingError if a parameter is not finite. The moments are, as every gradient was."""
        parameters = self.optimizer.parameters.data
        if not array_module(parameters).isfinite(parameters).all():
            raise TrainingError(f"step {self.standing.step}: a parameter is not finite; the learning rate is too large")

    def save(self) -> None:
        """Put everything on disk. Raises: as `require_finite`; what was saved before stays."""
        self.require_finite()
        best = {"best": self.validation.best, "since": self.validation.since}
        save_state(self.directory, self.optimizer, {**asdict(self.standing), **best})
        self.validation.settle()
        self.saved = time.monotonic()

    def save_if_due(self) -> None:
        """Save if the last time is long ago."""
        if time.monotonic() - self.saved >= SAVE_EVERY:
            self.save()

    def load(self, steps: int) -> None:
        """Set everything to where the run, of so many steps, was last saved; take back what it wrote after that.

        Raises: CheckpointError for what is not whole, WritingError as `require_same`; then nothing on disk has changed.
        """
        path, counters = self.directory / "state.safetensors", load_state(self.directory, self.optimizer)
        try:
            self.validation.best, self.validation.since = counters["best"], int(counters["since"])
            self.standing = Standing(int(counters["step"]), counters["loss_sum"], int(counters["token_sum"]))
        except KeyError as error:
            raise CheckpointError(f"{path}: the counter {error} is missing") from None
        if self.standing.step > steps:
            raise CheckpointError(f"{path}: it stands at step {self.standing.step} of a run of {steps} steps")
        self.validation.require_kept(self.standing.step)
        require_same(self.directory)
        for half in written_in(self.directory, BESIDE):
            half.unlink()
        self.validation.forget_after(self.standing.step)
        self.validation.settle()


def written_in(directory: Path, ending: str = "") -> list[Path]:
    """Return what a run has written into `directory`; with the ending BESIDE, what it has not written to the end."""
    names = sorted(directory.iterdir()) if directory.is_dir() else []
    return [path for pattern in FILES for path in names if path.match(pattern + ending)]  # links that lead nowhere, too


def require_no_run(options: argparse.Namespace) -> None:
    """Raise CheckpointError if `options.out` holds a run that nobody wants replaced."""
    if not options.overwrite and written_in(options.out):
        to_resume = "--resume it, " if (options.out / "config.json").exists() else ""
        raise CheckpointError(f"{options.out} already holds a run; {to_resume}--overwrite it, or choose another --out")


def begin_run(options: argparse.Namespace, translator: Translator, texts: str, checkpoint: Checkpoint) -> None:
    """Write what does not change while a new run is trained, and its state before the first step.

    config.json goes first and comes last: where it stands, the run can be resumed.
    """
    require_no_run(options)
    old = [*written_in(options.out), *written_in(options.out, BESIDE)]
    for path in old:
        if path.is_dir() and not path.is_symlink():
            raise CheckpointError(f"{path} is a directory, and stands where a run has a file; move it away")
    for path in old:
        path.unlink()  # weights of an earlier run must not stand beside the vocabulary of this one
    write_atomically(options.out / "tokenizer.model", translator.tokenizer.model)
    checkpoint.save()
    paths = {name: str(value.resolve()) for name, value in vars(options).items() if isinstance(value, Path)}
    record = {name: value for name, value in (vars(options) | paths).items() if name not in NOT_RECORDED}
    config = RunConfig(
        translator.model.config, translator.length_ratio, record | {"texts": texts}, translator.tokenizer.digest()
    )
    save_config(options.out, config)


def make_shortlist(
    options: argparse.Namespace, corpus: Corpus, tokenizer: Tokenizer, announce: Callable[[str], object]
) -> Shortlist | None:
    """Learn what translate.py --shortlist needs; None if a run that is resumed has it, or memory does not suffice."""
    if options.resume:
        with suppress(CheckpointError):
            Shortlist.load(options.out, tokenizer)
            return None
    try:
        return learn(corpus.pairs, len(tokenizer), generator_for(options.seed, SHORTLIST))
    except MemoryError:
        announce("note: there is not enough memory to learn a shortlist; --resume will try again")
        return None


def keep_shortlist(
    directory: Path, shortlist: Shortlist, tokenizer: Tokenizer, announce: Callable[[str], object]
) -> None:
    """Write it. No training depends on it, so none ends because it cannot be written."""
    try:
        shortlist.save(directory, tokenizer)
    except OSError as error:
        announce(f"note: {directory / NAME}: {error.strerror or error}; --resume will try again")


def require_begun(directory: Path) -> None:
    """Raise CheckpointError unless `directory` holds a run that can be resumed."""
    if not (directory / "config.json").exists():
        raise CheckpointError(f"{directory} holds no run that has begun, so there is none to --resume")


def options_of_run(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options that the run in `options.out` began with."""
    require_begun(options.out)
    record = load_config(options.out).training
    texts = record.pop("texts", None)
    if record.keys() != vars(options).keys() - NOT_RECORDED or not isinstance(texts, str):
        raise CheckpointError(f"{options.out}: config.json does not hold the options of train.py")
    try:
        recorded = vars(parse_arguments(record))
    except ValueError as error:
        raise CheckpointError(f"{options.out / 'config.json'}: {in_one_line(error)}") from None
    of_this_call = {name: value for name, value in vars(options).items() if name in NOT_RECORDED}
    return argparse.Namespace(**{**recorded, **of_this_call, "texts": texts})


def require_same_model(directory: Path, shape: TransformerConfig) -> None:
    """Raise CheckpointError unless the run in `directory` is of a model of this shape, and so is its state."""
    if load_config(directory).model != shape:
        raise CheckpointError(f"{directory / 'config.json'}: its model is not the one that its options make")
    if (directory / "state.safetensors").exists():
        require_held(directory / "state.safetensors", shape, copies=3)  # parameters and two moments
