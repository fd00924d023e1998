"""What is on disk: a trained model in a directory of its own.

    config.json        the model's configuration, and what the training was asked for
    tokenizer.model    the subword vocabulary, a sentencepiece model
    model.safetensors  the weights, by dotted name, float32
    metrics.jsonl      what the training measured, a line of JSON each time
    state.safetensors  where the training stands: parameters, moments of the optimizer, counters
    step-N.safetensors the weights of the last validations, where their mean is wanted
    best-N.safetensors the best weights, until the state that counts on them is saved; then they are model.safetensors

A file is written beside its place and moved into it when it is whole, so a reader never meets half of one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinytransformer.backend import array_module, to_host
from tinytransformer.optim import Adam
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import Transformer, TransformerConfig
from tinytransformer.writing import append_line, write_atomically

# All that a run writes into its directory, as patterns.
FILES = (
    "config.json",
    "tokenizer.model",
    "model.safetensors",
    "metrics.jsonl",
    "state.safetensors",
    "step-[0-9]*.safetensors",
    "best-[0-9]*.safetensors",
)
FORMAT = 1  # of config.json; a change that older versions cannot read raises it


class CheckpointError(RuntimeError):
    """A directory or file that holds no usable model; the message names it."""


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds.

    model: the shape of the model. length_ratio: tokens of target per token of source that training data reach.
    training: the options of the training run, by which it can be resumed.
    """

    model: TransformerConfig
    length_ratio: float
    training: dict[str, Any]

    def __post_init__(self) -> None:
        if not 0 <= self.length_ratio < math.inf:
            raise ValueError(f"length_ratio is {self.length_ratio}, expected a number from 0 up")


def save_config(directory: Path, config: RunConfig) -> None:
    """Write config.json."""
    text = json.dumps({"format": FORMAT, **asdict(config)}, indent=2, ensure_ascii=False)
    write_atomically(directory / "config.json", (text + "\n").encode())


def save_weights(path: Path, model: Transformer) -> None:
    """Write the weights of `model`; the same weights give the same bytes."""
    # safetensors writes wrong bytes for arrays that are not C-contiguous.
    arrays = {n: np.asarray(to_host(p.data), order="C") for n, p in model.parameters.named.items()}
    write_atomically(path, safetensors.numpy.save(arrays))


def load_model(directory: Path, *, device: str = "cpu") -> tuple[Transformer, Tokenizer, RunConfig]:
    """Return the model, tokenizer and configuration that stand in `directory`.

    Raises: CheckpointError or VocabularyError that names the file and what is wrong with it.
    """
    config = load_config(directory)
    tokenizer = Tokenizer.load(directory / "tokenizer.model")
    for side in ("source_vocabulary", "target_vocabulary"):
        if getattr(config.model, side) != len(tokenizer):
            raise CheckpointError(
                f"{directory}: config.json has {side} {getattr(config.model, side)}, "
                f"but tokenizer.model has {len(tokenizer)} pieces"
            )
    model = Transformer(config.model, np.random.default_rng(0), device=device)
    load_weights(directory / "model.safetensors", model)
    return model, tokenizer, config


def load_config(directory: Path) -> RunConfig:
    """Read config.json. Raises: CheckpointError that names it and what is wrong with it."""
    path = directory / "config.json"
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"format is {fields['format']!r}, and this version reads {FORMAT}")
        return RunConfig(TransformerConfig(**fields["model"]), float(fields["length_ratio"]), dict(fields["training"]))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None
    except KeyError as error:
        raise CheckpointError(f"{path}: the field {error} is missing") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def load_weights(path: Path, model: Transformer) -> None:
    """Copy the weights that `path` holds into `model`. Raises: CheckpointError that names the file."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; no validation was reached yet")
    try:
        model.parameters.load(safetensors.numpy.load_file(path))
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    except (safetensors.SafetensorError, TypeError, ValueError) as error:  # TypeError: a dtype that NumPy lacks
        raise CheckpointError(f"{path}: {error}") from None


def average_weights(paths: Sequence[Path], model: Transformer) -> None:
    """Load into `model` the mean of the weights that `paths` hold. Raises: as `load_weights`."""
    total = np.zeros(model.parameters.data.shape, dtype=np.float64)
    for path in paths:
        load_weights(path, model)
        total += to_host(model.parameters.data)
    model.parameters.data[...] = array_module(model.parameters.data).asarray(total / len(paths))


def save_state(directory: Path, optimizer: Adam, counters: dict[str, float]) -> None:
    """Write state.safetensors: one file, so that what it holds always belongs together.

    counters: numbers by name, among them `step`.
    """
    arrays = {"parameters": optimizer.parameters.data, "m": optimizer.m, "v": optimizer.v}
    content = safetensors.numpy.save(
        {name: to_host(array) for name, array in arrays.items()}, metadata={"counters": json.dumps(counters)}
    )
    write_atomically(directory / "state.safetensors", content)


def load_state(directory: Path, optimizer: Adam) -> dict[str, float]:
    """Read state.safetensors into `optimizer` and its parameters; return the counters.

    Raises: CheckpointError that names the file.
    """
    path = directory / "state.safetensors"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: nothing was saved yet, so begin again with --overwrite")
    try:
        with safetensors.safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in ("parameters", "m", "v")}
            counters = json.loads(file.metadata()["counters"])
        if not isinstance(counters["step"], int) or not all(isinstance(n, int | float) for n in counters.values()):
            raise ValueError(f"the counters are {counters}, expected numbers")
        for name, array in arrays.items():
            if array.shape != optimizer.m.shape or array.dtype != optimizer.m.dtype:
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected {optimizer.m.shape}")
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path}: {error} is missing") from None
    except (safetensors.SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from None
    xp = array_module(optimizer.m)
    optimizer.parameters.data[...] = xp.asarray(arrays["parameters"])
    optimizer.m[...], optimizer.v[...] = xp.asarray(arrays["m"]), xp.asarray(arrays["v"])
    optimizer.step = counters["step"]
    return counters


def append_metrics(directory: Path, metrics: dict[str, Any]) -> None:
    """Add a line to metrics.jsonl."""
    append_line(directory / "metrics.jsonl", json.dumps(metrics))
