#!/usr/bin/env python3
"""Train a Transformer to translate: on the toy corpus, or on any two files that translate each other line by line."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

from tinytransformer.backend import DEVICES, require_device
from tinytransformer.checkpoint import FILES, CheckpointError, RunConfig, load_weights, save_config, write_atomically
from tinytransformer.command_line import HelpFormatter, above_zero, count, errors_in_one_line, seed, share
from tinytransformer.data import Corpus, DataError, encode_corpus, plan_batches, read_parallel
from tinytransformer.evaluation import evaluate_translation
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.training import (
    SCHEDULES,
    WEIGHTS,
    Progress,
    TrainingOptions,
    Validation,
    ValidationSet,
    generator_for,
    train,
)
from tinytransformer.transformer import PRESETS, Transformer, TransformerConfig
from tinytransformer.translation import Translator

TOY = Path(__file__).parent / "data" / "toy"
TOY_FILES = {
    f"{option}{side}": TOY / f"{split}.{language}"
    for option, split in (("", "train"), ("valid_", "valid"), ("test_", "test"))
    for side, language in (("source", "en"), ("target", "de"))
}


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
    "toy": Recipe(600, 0.0, 1e-2, 200, "cosine", 2048, 2400),
    "tiny": Recipe(8000, 0.3, 5e-3, 2000, "inverse-square-root", 4096, 7000),
    "small": Recipe(8000, 0.1, 1e-3, 4000, "inverse-square-root", 4096, 50_000),
    "base": Recipe(37_000, 0.1, 7e-4, 4000, "inverse-square-root", 4096, 100_000),
}


def main() -> None:
    options = parse_arguments()
    if options.source is None:
        vars(options).update(TOY_FILES)
    with errors_in_one_line("train.py"):
        require_device(options.device)
        run(options)


def run(options: argparse.Namespace) -> None:
    """Read, train, report."""
    if (options.out / "config.json").exists() and not options.overwrite:
        raise CheckpointError(f"{options.out} already holds a run; choose another --out, or --overwrite it")
    training_text = read_parallel(options.source, options.target)
    validation_text = read_parallel(options.valid_source, options.valid_target) if options.valid_source else None
    test_text = read_parallel(options.test_source, options.test_target) if options.test_source else None

    tokenizer = make_tokenizer(options, training_text)
    corpus = make_corpus(options, tokenizer, "training", training_text)
    held_out = None
    if validation_text:
        held_out = ValidationSet(make_corpus(options, tokenizer, "validation", validation_text), *validation_text)
    training = make_training_options(options, corpus)
    model = make_model(options, len(tokenizer))
    translator = Translator(model, tokenizer, corpus.length_ratio())

    options.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:  # weights of an earlier run must not stand beside the vocabulary of this one
        (options.out / name).unlink(missing_ok=True)
    write_atomically(options.out / "tokenizer.model", tokenizer.model)
    save_config(options.out, RunConfig(model.config, translator.length_ratio, asdict(training)))
    say(
        f"preset {options.preset}: {model.parameters.data.size:,} parameters, {len(tokenizer)} subwords, "
        f"{len(corpus.pairs):,} sentence pairs, {training.steps:,} steps, into {options.out}"
    )
    with tqdm(total=training.steps, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:
        validation = Validation(options.out, translator, held_out, say)
        train(model, corpus, training, report=Meter(bar), validate=validation)
    load_weights(options.out / "model.safetensors", model)
    if test_text:
        report_results(options, translator, test_text)


def make_tokenizer(options: argparse.Namespace, text: tuple[list[str], list[str]]) -> Tokenizer:
    """Learn the subwords of both sides. A size that the user asked for is had, or it is an error."""
    size = options.vocab_size or RECIPES[options.preset].vocab_size
    tokenizer = Tokenizer.train([*text[0], *text[1]], size, exact=options.vocab_size is not None)
    if len(tokenizer) < size:
        say(f"note: the text is small; it yields {len(tokenizer)} subwords, not the {size} of preset {options.preset}")
    return tokenizer


def make_corpus(
    options: argparse.Namespace, tokenizer: Tokenizer, name: str, text: tuple[list[str], list[str]]
) -> Corpus:
    """Turn sentence pairs into ids, and say which were left out."""
    corpus = encode_corpus(tokenizer, *text, options.max_length)
    if not corpus.pairs:
        raise DataError(f"no {name} pair is shorter than --max-length {options.max_length}")
    if corpus.empty:
        say(f"note: left out {corpus.empty} {name} pairs with an empty side")
    if corpus.long:
        say(f"note: left out {corpus.long} {name} pairs of more than {options.max_length} subwords")
    return corpus


def make_model(options: argparse.Namespace, vocabulary: int) -> Transformer:
    """Make a model with fresh weights, drawn from the seed."""
    config = TransformerConfig(
        vocabulary,
        vocabulary,
        tied_embeddings=not options.untied,
        positions=options.positions,
        max_length=options.max_length + 1,  # BEGIN stands before the sentence
        norm=options.norm,
        activation=options.activation,
        dropout=RECIPES[options.preset].dropout if options.dropout is None else options.dropout,
        attention_dropout=options.attention_dropout,
        **PRESETS[options.preset],
    )
    return Transformer(config, generator_for(options.seed, WEIGHTS), device=options.device)


def make_training_options(options: argparse.Namespace, corpus: Corpus) -> TrainingOptions:
    """Fill in from the preset's recipe what the command line left open."""
    recipe = RECIPES[options.preset]
    batch_tokens = options.batch_tokens or recipe.batch_tokens
    steps = options.steps or recipe.steps
    if options.epochs:
        batches = len(plan_batches(corpus.pairs, batch_tokens))
        steps = max(1, round(options.epochs * batches / options.accumulate))
    return TrainingOptions(
        steps=steps,
        seed=options.seed,
        batch_tokens=batch_tokens,
        accumulate=options.accumulate,
        learning_rate=options.learning_rate or recipe.learning_rate,
        warmup=options.warmup or recipe.warmup,
        schedule=options.schedule or recipe.schedule,
        label_smoothing=options.label_smoothing,
        weight_decay=options.weight_decay,
        clip=options.clip,
        replicas=options.replicas,
        valid_every=options.valid_every or math.ceil(steps / 5),
    )


class Meter:
    """Shows on the progress bar how the training goes."""

    def __init__(self, bar: tqdm):
        self.bar = bar
        self.tokens = 0

    def __call__(self, progress: Progress) -> None:
        self.tokens += progress.tokens
        self.bar.update()
        self.bar.set_postfix_str(
            f"epoch {progress.epoch}, loss {progress.loss:.3f}, learning rate {progress.learning_rate:.1e}, "
            f"{self.tokens / max(self.bar.format_dict['elapsed'], 1e-9):,.0f} tokens/s",
            refresh=False,
        )


def report_results(options: argparse.Namespace, translator: Translator, test: tuple[list[str], list[str]]) -> None:
    """Print BLEU on the test text, and on the toy corpus on its unseen combinations; show five translations."""
    named = [("test", test)]
    if options.source == TOY_FILES["source"]:
        named.append(("unseen combinations", read_parallel(TOY / "unseen.en", TOY / "unseen.de")))
    examples: list[str] = []
    for name, (sources, references) in named:
        score, translations = evaluate_translation(translator, sources, references, beam=options.beam)
        print(
            f"BLEU {score.bleu:.2f} on {name}, {len(sources)} sentences, beam {options.beam} ({score.bleu_signature})"
        )
        if not examples:
            chosen = range(0, len(sources), max(1, len(sources) // 5))[:5]
            examples = [
                f"\nsource     {sources[i]}\nreference  {references[i]}\nmodel      {translations[i]}" for i in chosen
            ]
    print(*examples, sep="\n")


def say(message: str) -> None:
    """Print a line to standard error, above the progress bar if there is one."""
    tqdm.write(message, file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line; exit with status 2 if there is something wrong with them."""
    parser = argparse.ArgumentParser(
        description="Train a Transformer to translate. Without options: from English to German, on the toy corpus.",
        epilog="Where no default is shown, it comes with the preset.",
        formatter_class=HelpFormatter,
    )
    add_data_options(parser.add_argument_group("data", "UTF-8 text; line n of one file translates line n of the other"))
    add_model_options(parser.add_argument_group("model"))
    add_training_options(parser.add_argument_group("training"))
    options = parser.parse_args()
    options.out = options.out or Path("runs") / options.preset
    for split in ("", "valid_", "test_"):
        source, target = (f"--{split}{side}".replace("_", "-") for side in ("source", "target"))
        given = getattr(options, f"{split}source") is not None
        if given != (getattr(options, f"{split}target") is not None):
            parser.error(f"{source} and {target} go together")
        if given and options.source is None:
            parser.error(f"{source} needs --source and --target")
    return options


def add_data_options(group: argparse._ArgumentGroup) -> None:
    for split, what in (("", "training"), ("valid-", "validation"), ("test-", "test")):
        for side in ("source", "target"):
            group.add_argument(f"--{split}{side}", type=Path, metavar="FILE", help=f"{what} text, {side} side")
    group.add_argument("--vocab-size", type=count, metavar="N", help="subwords, shared by both languages")
    group.add_argument(
        "--max-length", type=count, default=256, metavar="N", help="leave out sentences of more subwords"
    )
    group.add_argument("--out", type=Path, metavar="DIR", help="where the run is written (default: runs/PRESET)")
    group.add_argument("--overwrite", action="store_true", help="replace a run that stands there")


def add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--preset", choices=PRESETS, default="toy", help="size of the model, and how it is trained")
    group.add_argument("--norm", choices=("pre", "post"), default="pre", help="where the layer norms stand")
    group.add_argument("--positions", choices=("sinusoidal", "learned"), default="sinusoidal", help="kind of positions")
    group.add_argument("--activation", choices=("relu", "gelu"), default="relu", help="bend of the feed-forward layers")
    group.add_argument("--untied", action="store_true", help="separate source, target and output embeddings")
    group.add_argument("--dropout", type=share, metavar="P", help="on embeddings and sublayers")
    group.add_argument("--attention-dropout", type=share, default=0.0, metavar="P", help="on attention weights")


def add_training_options(group: argparse._ArgumentGroup) -> None:
    length = group.add_mutually_exclusive_group()
    length.add_argument("--steps", type=count, metavar="N", help="updates of the parameters")
    length.add_argument(
        "--epochs", type=above_zero, metavar="N", help="passes over the training text, instead of steps"
    )
    group.add_argument("--batch-tokens", type=count, metavar="N", help="most subwords on either side of a batch")
    group.add_argument("--accumulate", type=count, default=1, metavar="N", help="batches per update")
    group.add_argument("--learning-rate", type=above_zero, metavar="R", help="at its peak")
    group.add_argument("--warmup", type=count, metavar="N", help="steps until the peak")
    group.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate after it")
    group.add_argument("--label-smoothing", type=share, default=0.1, metavar="E", help="mass spread over all subwords")
    group.add_argument("--weight-decay", type=share, default=0.0, metavar="W", help="of AdamW")
    group.add_argument("--clip", type=above_zero, default=1.0, metavar="NORM", help="largest norm of a gradient")
    group.add_argument("--valid-every", type=count, metavar="N", help="steps between validations (default: a fifth)")
    group.add_argument("--beam", type=count, default=4, metavar="N", help="hypotheses followed in the final test")
    group.add_argument("--replicas", type=count, default=2, metavar="N", help="threads that share each update")
    group.add_argument(
        "--seed", type=seed, default=1, metavar="N", help="same seed and replicas, same machine: same bits"
    )
    group.add_argument("--device", choices=DEVICES, default="cpu", help="where to compute")


if __name__ == "__main__":
    main()
