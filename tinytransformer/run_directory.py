"""The directory of a training run: made, recorded, and found again by --resume."""

from __future__ import annotations

import argparse
from pathlib import Path

from tinytransformer.checkpoint import (
    FILES,
    CheckpointError,
    RunConfig,
    load_config,
    load_state,
    save_config,
)
from tinytransformer.optim import Adam
from tinytransformer.options import TEXTS
from tinytransformer.training import Standing
from tinytransformer.translation import Translator
from tinytransformer.validation import Validation
from tinytransformer.writing import write_atomically

NOT_RECORDED = {"out", "overwrite", "resume", "summary"}  # these are about one call of the script, not about the run


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
    paths = {name: Path(record[name]) for name in TEXTS if record[name] is not None}
    return argparse.Namespace(**{**vars(options), **record, **paths})


def resume(directory: Path, optimizer: Adam, validation: Validation) -> Standing:
    """Set everything to where the run in `directory` was last saved."""
    counters = load_state(directory, optimizer)
    try:
        validation.best, validation.since = counters["best"], int(counters["since"])
        standing = Standing(int(counters["step"]), counters["loss_sum"], int(counters["token_sum"]))
    except KeyError as error:
        raise CheckpointError(f"{directory / 'state.safetensors'}: the counter {error} is missing") from None
    validation.forget_after(standing.step)
    validation.settle()
    return standing
