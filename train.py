#!/usr/bin/env python3
"""Train a Transformer to translate: on the toy corpus, or on any two files that translate each other line by line."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from tinytransformer.backend import keep_freed_memory, require_device
from tinytransformer.checkpoint import (
    FILES,
    CheckpointError,
    RunConfig,
    load_config,
    load_state,
    require_writable,
    save_config,
    save_state,
    write_atomically,
)
from tinytransformer.command_line import errors_in_one_line, interruptible
from tinytransformer.data import (
    Corpus,
    DataError,
    encode_corpus,
    fingerprint,
    padding_share,
    plan_batches,
    read_parallel,
)
from tinytransformer.evaluation import evaluate_translation
from tinytransformer.optim import Adam
from tinytransformer.options import RECIPES, parse_arguments
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.training import (
    WEIGHTS,
    Progress,
    Standing,
    TrainingOptions,
    generator_for,
    train,
)
from tinytransformer.transformer import PRESETS, Transformer, TransformerConfig
from tinytransformer.translation import Search, Translator
from tinytransformer.validation import Validation, ValidationSet

TOY = Path(__file__).parent / "data" / "toy"
TOY_FILES = {
    f"{option}{side}": TOY / f"{split}.{language}"
    for option, split in (("", "train"), ("valid_", "valid"), ("test_", "test"))
    for side, language in (("source", "en"), ("target", "de"))
}

NOT_RECORDED = {"out", "overwrite", "resume", "summary"}  # these are about one call of the script, not about the run


def main() -> None:
    options = parse_arguments()
    if options.source is None:
        vars(options).update(TOY_FILES)
    with errors_in_one_line("train.py"):
        require_device(options.device)
        require_writable(options.out)
        keep_freed_memory()
        if options.resume:
            options = options_of_run(options)
        elif not options.overwrite and not options.summary and any(any(options.out.glob(pattern)) for pattern in FILES):
            raise CheckpointError(
                f"{options.out} already holds a run; --resume it, --overwrite it, or choose another --out"
            )
        run(options)


def run(options: argparse.Namespace) -> None:
    """Read, train, report."""
    training_text, validation_text, test_text = (read_text(options, split) for split in ("", "valid_", "test_"))
    assert training_text is not None
    texts = fingerprint(*training_text, *(validation_text or ()))
    if options.resume and texts != options.texts:
        raise DataError(f"the texts are no longer those that the run in {options.out} began with")

    tokenizer = make_tokenizer(options, training_text)
    corpus = make_corpus(options, tokenizer, "training", training_text)
    held_out = None
    if validation_text:
        held_out = ValidationSet(make_corpus(options, tokenizer, "validation", validation_text), *validation_text)
    training = make_training_options(options, corpus)
    model = make_model(options, len(tokenizer))
    if options.summary:
        print(model.summary())
        return
    translator = Translator(model, tokenizer, corpus.length_ratio())
    validation = Validation(options.out, translator, held_out, say, average=options.average)
    if not options.resume:
        prepare_directory(options, translator, texts)
    train_and_save(options, training, corpus, validation)
    if test_text:
        report_results(options, translator, test_text)


def train_and_save(
    options: argparse.Namespace, training: TrainingOptions, corpus: Corpus, validation: Validation
) -> None:
    """Train, from the beginning or from where the run was left; leave the best weights in the model and on disk."""
    model = validation.translator.model
    optimizer = Adam(model.parameters, weight_decay=training.weight_decay)
    standing = resume(options, optimizer, validation) if options.resume else Standing()
    plan = plan_batches(corpus.pairs, training.batch_tokens)
    say(
        f"preset {options.preset}: {model.parameters.data.size:,} parameters, {model.config.target_vocabulary} "
        f"subwords, {len(corpus.pairs):,} sentence pairs in {len(plan):,} batches with "
        f"{100 * padding_share(corpus.pairs, plan):.1f} % padding, {training.steps:,} steps, into {options.out}"
    )

    def save() -> None:
        counters = {**asdict(standing), "best": validation.best, "since": validation.since}
        save_state(options.out, optimizer, counters)

    def validate(step: int, loss: float, speed: float) -> None:
        validation(step, loss, speed)
        save()

    with interruptible() as interrupted, progress_bar(training, standing) as bar:
        train(
            model,
            corpus,
            training,
            optimizer=optimizer,
            standing=standing,
            report=Meter(bar),
            validate=validate,
            stop=lambda: interrupted() or validation.since >= (options.patience or math.inf),
        )
        if interrupted():
            save()
            out = shlex.quote(str(options.out))
            say(f"interrupted after step {standing.step}; to go on: python train.py --resume --out {out}")
    validation.finish()


def read_text(options: argparse.Namespace, split: str) -> tuple[list[str], list[str]] | None:
    """Read the two files of the training text, or of the one that `split` names; None if there are none."""
    source, target = getattr(options, f"{split}source"), getattr(options, f"{split}target")
    return None if source is None else read_parallel(source, target)


def make_tokenizer(options: argparse.Namespace, text: tuple[list[str], list[str]]) -> Tokenizer:
    """Learn the subwords of both sides. A size that the user asked for is had, or it is an error."""
    if options.resume:
        return Tokenizer.load(options.out / "tokenizer.model")
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
        say(f"note: left out {corpus.long} {name} pairs of {options.max_length} subwords and more")
    return corpus


def make_model(options: argparse.Namespace, vocabulary: int) -> Transformer:
    """Make a model with fresh weights, drawn from the seed."""
    config = TransformerConfig(
        vocabulary,
        vocabulary,
        tied_embeddings=not options.untied,
        positions=options.positions,
        max_length=options.max_length,
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


def progress_bar(training: TrainingOptions, standing: Standing) -> tqdm:
    return tqdm(total=training.steps, initial=standing.step, unit="step", file=sys.stderr, dynamic_ncols=True)


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


def prepare_directory(options: argparse.Namespace, translator: Translator, texts: str) -> None:
    """Make the directory of a new run and write what does not change while it is trained."""
    options.out.mkdir(parents=True, exist_ok=True)
    for pattern in FILES:  # weights of an earlier run must not stand beside the vocabulary of this one
        for path in options.out.glob(pattern):
            path.unlink()
    write_atomically(options.out / "tokenizer.model", translator.tokenizer.model)
    paths = {name: str(value.resolve()) for name, value in vars(options).items() if isinstance(value, Path)}
    record = {name: value for name, value in (vars(options) | paths).items() if name not in NOT_RECORDED}
    save_config(options.out, RunConfig(translator.model.config, translator.length_ratio, record | {"texts": texts}))


def options_of_run(options: argparse.Namespace) -> argparse.Namespace:
    """Return the options that the run in `options.out` began with."""
    record = load_config(options.out).training
    if record.keys() != vars(options).keys() - NOT_RECORDED | {"texts"}:
        raise CheckpointError(f"{options.out}: config.json does not hold the options of train.py")
    paths = {name: Path(record[name]) for name in TOY_FILES if record[name] is not None}
    return argparse.Namespace(**{**vars(options), **record, **paths})


def resume(options: argparse.Namespace, optimizer: Adam, validation: Validation) -> Standing:
    """Set everything to where the run in `options.out` was last saved."""
    counters = load_state(options.out, optimizer)
    try:
        validation.best, validation.since = counters["best"], int(counters["since"])
        standing = Standing(int(counters["step"]), counters["loss_sum"], int(counters["token_sum"]))
    except KeyError as error:
        raise CheckpointError(f"{options.out / 'state.safetensors'}: the counter {error} is missing") from None
    validation.forget_after(standing.step)
    return standing


def report_results(options: argparse.Namespace, translator: Translator, test: tuple[list[str], list[str]]) -> None:
    """Print BLEU on the test text, and on the toy corpus on its unseen combinations; show five translations."""
    named = [("test", test)]
    if options.source == TOY_FILES["source"]:
        named.append(("unseen combinations", read_parallel(TOY / "unseen.en", TOY / "unseen.de")))
    examples: list[str] = []
    for name, (sources, references) in named:
        score, translations = evaluate_translation(translator, sources, references, Search(beam=options.beam))
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


if __name__ == "__main__":
    main()
