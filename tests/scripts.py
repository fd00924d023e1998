"""The scripts as modules, and a run for them to work on."""

import importlib.util
import sys
from pathlib import Path

import numpy as np

from tinytransformer.checkpoint import RunConfig, save_config, save_weights
from tinytransformer.shortlist import learn

ROOT = Path(__file__).parent.parent


def load_script(name):
    """Import a file that is no part of a package, such as docs/figure.py; anew each time."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(name).stem}", ROOT / name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


def end_of(module, capsys):
    """Run the script that `module` is, in this process: exit status, lines of standard output, standard error."""
    try:
        status = module.main() or 0
    except SystemExit as caught:
        status = caught.code
    output, errors = capsys.readouterr()
    return status, output.split("\n")[:-1], errors


def write_run(directory, model, tokenizer):
    """Write a run as if `model` had been trained; what it says makes no sense, but depends on the line."""
    directory.mkdir()
    (directory / "tokenizer.model").write_bytes(tokenizer.model)
    save_config(directory, RunConfig(model.config, 0.5, {}, tokenizer.digest()))
    save_weights(directory / "model.safetensors", model)
    learn([([4, 5], [6, 7])], len(tokenizer), np.random.default_rng(0)).save(directory, tokenizer)
