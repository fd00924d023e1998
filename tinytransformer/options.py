"""The options of train.py: what can be asked for, what a preset fills in, and what they make of model and training."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tinytransformer.backend import DEVICES, PRECISIONS
from tinytransformer.command_line import (
    HelpFormatter,
    above_zero,
    count,
    directory,
    epochs,
    hypotheses,
    seed,
    share,
    up_to,
)
from tinytransformer.data import Corpus, plan_batches
from tinytransformer.training import SCHEDULES, TrainingOptions
from tinytransformer.transformer import ACTIVATIONS, NORMS, POSITIONS, PRESETS, TransformerConfig


@dataclass(frozen=True)
class Recipe:
    """What a preset is trained with unless the command line says otherwise."""

    vocab_size: int
    dropout: float
    learning_rate: float
    warmup: int
    schedule: str
    batch_tokens: int
    steps: int


RECIPES = {
    "toy": Recipe(600, 0.0, 1e-2, 200, "cosine", 2048, 2000),
    "tiny": Recipe(8000, 0.3, 5e-3, 2000, "inverse-square-root", 4096, 7000),
    "small": Recipe(8000, 0.1, 1e-3, 4000, "inverse-square-root", 4096, 50_000),
    "base": Recipe(37_000, 0.1, 7e-4, 4000, "inverse-square-root", 4096, 100_000),
}


class RecordParser(argparse.ArgumentParser):
    """Reads options that a run has recorded, which nobody has typed just now."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse_arguments(record: dict[str, Any] | None = None) -> argparse.Namespace:
    """Return the options of the command line; exit with status 2 if there is something wrong with them.

    record: options by name, to be read in place of the command line, and to be held to the same.
    Raises: ValueError for a record that the command line would not take.
    """
    parser = (argparse.ArgumentParser if record is None else RecordParser)(
        description="Train a Transformer to translate. Without options: from English to German, on the toy corpus.",
        epilog="Where no default is shown, it comes with the preset.",
        formatter_class=HelpFormatter,
    )
    add_data_options(parser.add_argument_group("data", "UTF-8 text; line n of one file translates line n of the other"))
    add_model_options(parser.add_argument_group("model"))
    add_training_options(parser.add_argument_group("training"))
    add_output_options(parser.add_argument_group("output"))
    arguments = None if record is None else list(typed(record))
    options = parser.parse_args(arguments)
    if options.resume:
        untouched = argparse.Namespace(**dict.fromkeys(vars(options), ...))  # no option has this value
        asked = {name for name, value in vars(parser.parse_args(arguments, untouched)).items() if value is not ...}
        if asked - {"resume", "out", "debug", "profile"}:
            parser.error(
                "--resume goes on with the options that the run began with; give only --out, --debug, --profile"
            )
    if options.valid_source is None and options.source is not None and (options.patience or options.average > 1):
        parser.error("--patience and --average need --valid-source and --valid-target to measure on")
    if options.precision != "float32" and options.device != "cuda":
        parser.error(f"--precision {options.precision} is for a GPU: --device cuda")
    options.out = options.out or Path("runs") / options.preset
    for split in ("", "valid_", "test_"):
        source, target = (f"--{split}{side}".replace("_", "-") for side in ("source", "target"))
        given = getattr(options, f"{split}source") is not None
        if given != (getattr(options, f"{split}target") is not None):
            parser.error(f"{source} and {target} go together")
        if given and options.source is None:
            parser.error(f"{source} needs --source and --target")
    return options


def typed(record: dict[str, Any]) -> Iterator[str]:
    """Yield the arguments of a command line that asks for the options in `record`."""
    for name, value in record.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            yield option
        elif value is not None and value is not False:
            yield f"{option}={value}"


def add_data_options(group: argparse._ArgumentGroup) -> None:
    for split, what in (("", "training"), ("valid-", "validation"), ("test-", "test")):
        for side in ("source", "target"):
            group.add_argument(f"--{split}{side}", type=Path, metavar="FILE", help=f"{what} text, {side} side")
    group.add_argument("--vocab-size", type=count, metavar="N", help="subwords, shared by both languages")
    group.add_argument(
        "--max-length", type=count, default=256, metavar="N", help="leave out sentences of N subwords and more"
    )


def add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--preset", choices=PRESETS, default="toy", help="size of the model, and how it is trained")
    group.add_argument("--norm", choices=NORMS, default="pre", help="where the layer norms stand")
    group.add_argument("--positions", choices=POSITIONS, default="sinusoidal", help="kind of positions")
    group.add_argument(
        "--activation", choices=tuple(ACTIVATIONS), default="relu", help="bend of the feed-forward layers"
    )
    group.add_argument("--untied", action="store_true", help="separate source, target and output embeddings")
    group.add_argument("--dropout", type=share, metavar="P", help="on embeddings and sublayers")
    group.add_argument("--attention-dropout", type=share, default=0.0, metavar="P", help="on attention weights")


def add_training_options(group: argparse._ArgumentGroup) -> None:
    length = group.add_mutually_exclusive_group()
    most = 99_999_999  # a step names files, by eight digits
    length.add_argument("--steps", type=up_to(most), metavar="N", help="updates of the parameters")
    length.add_argument("--epochs", type=epochs, metavar="N", help="passes over the text, rounded to whole steps")
    group.add_argument("--batch-tokens", type=count, metavar="N", help="most subwords on either side of a batch")
    group.add_argument("--accumulate", type=up_to(1_000_000), default=1, metavar="N", help="batches per update")
    group.add_argument("--learning-rate", type=above_zero, metavar="R", help="at its peak")
    group.add_argument("--warmup", type=count, metavar="N", help="steps until the peak")
    group.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate after it")
    group.add_argument("--label-smoothing", type=share, default=0.1, metavar="E", help="mass spread over all subwords")
    group.add_argument("--weight-decay", type=share, default=0.0, metavar="W", help="of AdamW")
    group.add_argument("--clip", type=above_zero, default=1.0, metavar="NORM", help="largest norm of a gradient")
    group.add_argument(
        "--replicas", type=up_to(1024), metavar="N", help="processes that share each update (default: 2; on a GPU 1)"
    )
    group.add_argument(
        "--seed", type=seed, default=1, metavar="N", help="same seed and replicas, same machine: same bits"
    )
    group.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute")
    group.add_argument("--precision", choices=PRECISIONS, default="float32", help="of a GPU's matrix products")


def add_output_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--out", type=directory, metavar="DIR", help="directory of the run (default: runs/PRESET)")
    group.add_argument("--resume", action="store_true", help="go on with the run that was interrupted there")
    group.add_argument("--debug", action="store_true", help="name the operation that first yields no finite number")
    group.add_argument("--profile", action="store_true", help="print at the end where the time of the training went")
    group.add_argument("--overwrite", action="store_true", help="replace the run that stands there")
    group.add_argument(
        "--valid-every", type=count, metavar="N", help="steps between validations (default: a fifth of all)"
    )
    group.add_argument(
        "--average", type=count, default=1, metavar="N", help="at the end keep the mean of the last N weights"
    )
    group.add_argument("--patience", type=count, metavar="N", help="stop when N validations brought no better BLEU")
    group.add_argument("--summary", action="store_true", help="print the parts of the model, and train nothing")
    group.add_argument("--beam", type=hypotheses, default=4, metavar="N", help="hypotheses followed in the final test")


def model_config(options: argparse.Namespace, vocabulary: int) -> TransformerConfig:
    """Return the shape of the model that was asked for, with so many subwords on either side."""
    return TransformerConfig(
        vocabulary,
        vocabulary,
        tied_embeddings=not options.untied,
        positions=options.positions,
        max_length=options.max_length,
        norm=options.norm,
        activation=options.activation,
        dropout=or_recipe(options, "dropout"),
        attention_dropout=options.attention_dropout,
        **PRESETS[options.preset],
    )


def training_options(options: argparse.Namespace, corpus: Corpus) -> TrainingOptions:
    """Return how to train on `corpus`: as the command line says, and where it is silent, as the preset's recipe."""
    batch_tokens, steps = or_recipe(options, "batch_tokens"), or_recipe(options, "steps")
    if options.epochs:
        batches = len(plan_batches(corpus.pairs, batch_tokens))
        steps = max(1, round(options.epochs * batches / options.accumulate))
    return TrainingOptions(
        steps=steps,
        seed=options.seed,
        batch_tokens=batch_tokens,
        accumulate=options.accumulate,
        learning_rate=or_recipe(options, "learning_rate"),
        warmup=or_recipe(options, "warmup"),
        schedule=or_recipe(options, "schedule"),
        label_smoothing=options.label_smoothing,
        weight_decay=options.weight_decay,
        clip=options.clip,
        replicas=options.replicas or (2 if options.device == "cpu" else 1),  # one process keeps a GPU busy
        valid_every=options.valid_every or math.ceil(steps / 5),
    )


def or_recipe(options: argparse.Namespace, name: str) -> Any:
    """Return what the command line says of `name`; where it is silent, what the preset's recipe does."""
    asked = getattr(options, name)
    return getattr(RECIPES[options.preset], name) if asked is None else asked
