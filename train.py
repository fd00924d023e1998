#!/usr/bin/env python3
"""Train a Transformer to translate: on the toy corpus, or on any two files that translate each other line by line."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from time import perf_counter

from tqdm import tqdm

import tinytransformer.openblas  # noqa: F401  before NumPy is loaded
from tinytransformer.backend import keep_freed_memory, require_device, set_precision
from tinytransformer.checkpoint import load_config, require_same_vocabulary
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
from tinytransformer.options import model_config, or_recipe, parse_arguments, training_options
from tinytransformer.profiling import Profile
from tinytransformer.progress import Progress, Standing, TrainingError
from tinytransformer.reading import is_pipe_or_device
from tinytransformer.run_directory import (
    Checkpoint,
    begin_run,
    keep_shortlist,
    make_shortlist,
    options_of_run,
    require_begun,
    require_no_run,
    require_same_model,
)
from tinytransformer.tape import NonFiniteError, debugging
from tinytransformer.tokenizer import Tokenizer, VocabularyError
from tinytransformer.training import WEIGHTS, TrainingOptions, generator_for, train
from tinytransformer.transformer import Transformer
from tinytransformer.translation import Search, Translator
from tinytransformer.validation import Validation, ValidationSet
from tinytransformer.writing import only_writer, require_writable

TOY = Path(__file__).parent / "data" / "toy"
TOY_FILES = {
    f"{option}{side}": TOY / f"{split}.{language}"
    for option, split in (("", "train"), ("valid_", "valid"), ("test_", "test"))
    for side, language in (("source", "en"), ("target", "de"))
}


def main() -> None:
    with errors_in_one_line("train.py"), ExitStack() as held:
        options = parse_arguments()
        if options.source is None:
            vars(options).update(TOY_FILES)
        require_device(options.device)
        keep_freed_memory()
        if not options.summary:
            require_writable(options.out)
            if options.resume:
                require_begun(options.out)
                held.enter_context(only_writer(options.out))  # or what is read here might be replaced meanwhile
                options = options_of_run(options)
            else:
                require_no_run(options)
        run(options, held)


def run(options: argparse.Namespace, held: ExitStack) -> None:
    """Read, train, report. held: gives the directory of the run free when it is closed."""
    training_text, validation_text, test_text = (read_text(options, split) for split in ("", "valid_", "test_"))
    if training_text is None:
        raise DataError(f"{options.out / 'config.json'} names no training text")
    texts = fingerprint(*training_text, *(validation_text or ()))
    if options.resume and texts != options.texts:
        raise DataError(f"the texts are no longer those that the run in {options.out} began with")

    tokenizer = make_tokenizer(options, training_text)
    corpus = make_corpus(options, tokenizer, "training", training_text)
    held_out = None
    if validation_text:
        held_out = ValidationSet(make_corpus(options, tokenizer, "validation", validation_text), *validation_text)
    config = model_config(options, len(tokenizer))
    if options.resume:
        require_same_model(options.out, config)
    set_precision(options.precision)
    model = Transformer(config, generator_for(options.seed, WEIGHTS), device=options.device)
    if options.summary:
        print(model.summary())
        return
    shortlist = make_shortlist(options, corpus, tokenizer, say)
    translator = Translator(model, tokenizer, corpus.length_ratio())
    validation = Validation(options.out, translator, held_out, say, average=options.average)
    if validation.by_loss:
        say("note: no sentence of the validation text has four words, so BLEU says nothing; the lowest loss is best")
    training = training_options(options, corpus)
    checkpoint = Checkpoint(options.out, Adam(model.parameters, weight_decay=training.weight_decay), validation)
    options.out.mkdir(parents=True, exist_ok=True)
    with held:
        if options.resume:
            checkpoint.load(training.steps)
        else:
            held.enter_context(only_writer(options.out))
            begin_run(options, translator, texts, checkpoint)
        if shortlist is not None:
            keep_shortlist(options.out, shortlist, tokenizer, say)
        train_and_save(options, training, corpus, checkpoint)
    if test_text:
        report_results(options, translator, test_text)


def train_and_save(
    options: argparse.Namespace, training: TrainingOptions, corpus: Corpus, checkpoint: Checkpoint
) -> None:
    """Train from where the checkpoint stands; leave the best weights in the model and on disk."""
    validation, standing = checkpoint.validation, checkpoint.standing
    model = validation.translator.model
    announce(options, training, corpus, model)
    profile = Profile(training.replicas)
    to_go_on = shlex.join(["python", sys.argv[0], "--resume", "--out", str(options.out)])

    def validate(step: int, loss: float, speed: float) -> None:
        with profile.paused(), meter.paused():
            checkpoint.require_finite()
            validation(step, loss, speed)
            checkpoint.save()

    def stop() -> bool:
        checkpoint.save_if_due()
        return interrupted() or validation.since >= (options.patience or math.inf)

    with interruptible() as interrupted, progress_bar(training, standing) as bar:
        meter = Meter(bar)
        try:
            with (
                debugging() if options.debug else nullcontext(),
                profile.running() if options.profile else nullcontext(),
            ):
                train(
                    model,
                    corpus,
                    training,
                    optimizer=checkpoint.optimizer,
                    standing=standing,
                    report=meter,
                    validate=validate,
                    stop=stop,
                )
        except TrainingError:
            checkpoint.save()
            if not options.debug:
                say(f"saved as it was before that step; to see which operation fails: {to_go_on} --debug")
            raise
        except NonFiniteError as error:
            checkpoint.save()
            raise TrainingError(f"step {standing.step + 1}: {error}") from None
        if interrupted():
            checkpoint.save()
            say(f"interrupted after step {standing.step}; to go on: {to_go_on}")
        elif standing.step < training.steps:
            say(f"stopped after step {standing.step}: {validation.since} validations brought no {validation.better}")
        if options.profile:
            tqdm.write(f"{profile.table()}\n", file=sys.stdout)
    validation.finish()


def announce(options: argparse.Namespace, training: TrainingOptions, corpus: Corpus, model: Transformer) -> None:
    """Say what is going to be trained."""
    plan = plan_batches(corpus.pairs, training.batch_tokens)
    say(
        f"preset {options.preset}: {model.parameters.data.size:,} parameters, {model.config.target_vocabulary} "
        f"subwords, {len(corpus.pairs):,} sentence pairs in {len(plan):,} batches with "
        f"{100 * padding_share(corpus.pairs, plan):.1f} % padding, {training.steps:,} steps, into {options.out}"
    )


def read_text(options: argparse.Namespace, split: str) -> tuple[list[str], list[str]] | None:
    """Read the two files of the training text, or of the one that `split` names; None if there are none."""
    source, target = getattr(options, f"{split}source"), getattr(options, f"{split}target")
    if source is None:
        return None
    for path in (source, target):
        if path.exists() and is_pipe_or_device(path):
            raise DataError(f"{path} is no file, but a pipe or a device, which --resume could not read again")
    return read_parallel(source, target)


def make_tokenizer(options: argparse.Namespace, text: tuple[list[str], list[str]]) -> Tokenizer:
    """Learn the subwords of both sides. A size that the user asked for is had, or it is an error."""
    if options.resume:
        tokenizer = Tokenizer.load(options.out / "tokenizer.model")
        require_same_vocabulary(options.out, load_config(options.out), tokenizer)
        return tokenizer
    size = or_recipe(options, "vocab_size")
    try:
        tokenizer = Tokenizer.train([*text[0], *text[1]], size, exact=options.vocab_size is not None)
    except VocabularyError as error:
        raise VocabularyError(str(error) if options.vocab_size else f"{error}: set --vocab-size") from None
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
    for note in corpus.notes(name, options.max_length):
        say(note if name == "training" else f"{note}; BLEU counts them, the loss does not")
    return corpus


def progress_bar(training: TrainingOptions, standing: Standing) -> tqdm:
    """Return a bar whose time left is that of all steps so far, validations included, not that of the last few."""
    return tqdm(
        total=training.steps,
        initial=standing.step,
        smoothing=0,
        file=sys.stderr,
        dynamic_ncols=True,
        bar_format="{n_fmt}/{total_fmt} {bar} {remaining} left{postfix}",  # as much as 80 columns hold
    )


class Meter:
    """Shows on the progress bar how the training goes, and how fast, but for what is done while it is paused."""

    def __init__(self, bar: tqdm):
        self.bar = bar
        self.tokens = 0
        self.seconds = -perf_counter()  # with the time added when it stops, of training alone

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.seconds += perf_counter()
        yield
        self.seconds -= perf_counter()

    def __call__(self, progress: Progress) -> None:
        self.tokens += progress.tokens
        self.bar.update()
        self.bar.set_postfix_str(
            f"loss {progress.loss:.3f}, rate {progress.learning_rate:.1e}, "
            f"{self.tokens / (self.seconds + perf_counter()):,.0f} tokens/s, epoch {progress.epoch}",
            refresh=False,
        )


def report_results(options: argparse.Namespace, translator: Translator, test: tuple[list[str], list[str]]) -> None:
    """Print BLEU on the test text, and on the toy corpus on its unseen combinations; show five translations."""
    named = [("test", test)]
    if options.source.resolve() == TOY_FILES["source"].resolve():  # --resume has the path from the record
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
