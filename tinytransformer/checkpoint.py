"""What is on disk: a trained model in a directory of its own.

    config.json        the model's configuration, and what the training was asked for
    tokenizer.model    the subword vocabulary, a sentencepiece model
    model.safetensors  the weights, by dotted name, float32
    metrics.jsonl      what the training measured, a line of JSON each time
    state.safetensors  where the training stands: parameters, moments of the optimizer, counters
    step-N.safetensors the weights of the last validations, where their mean is wanted
    shortlist.safetensors  what translates what, for searches over shortlists
    best-N.safetensors the best weights, until the state that counts on them is saved; then they are model.safetensors

Lines are added to metrics.jsonl. All others are written beside their place and moved into it when they are whole, so a
reader never meets half of one.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinytransformer.backend import Array, array_module, to_host
from tinytransformer.optim import Adam
from tinytransformer.reading import digest, in_one_line, parse_json, read_arrays, read_bytes, read_shapes
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import Transformer, TransformerConfig
from tinytransformer.writing import append_line, write_atomically

# All that a run writes into its directory, as patterns.
FILES = (
    "config.json",
    "tokenizer.model",
    "shortlist.safetensors",
    "model.safetensors",
    "metrics.jsonl",
    "state.safetensors",
    "step-[0-9]*.safetensors",
    "best-[0-9]*.safetensors",
)
FORMAT = 1  # of config.json; a change that older versions cannot read raises it
HARMLESS = 10_000_000  # parameters for which memory is taken whatever a stranger's configuration asks
CHANGED = "its content has changed since it was written: its SHA-256 is another"


class CheckpointError(RuntimeError):
    """A directory or file that holds no usable model; the message names it."""


@dataclass(frozen=True)
class RunConfig:
    """What config.json holds.

    model: the shape of the model. length_ratio: tokens of target per token of source that training data reach.
    training: the options of the training run, by which it can be resumed.
    vocabulary: the SHA-256 of tokenizer.model, if it is known.

    Raises: ValueError that names the field for a value that cannot be.
    """

    model: TransformerConfig
    length_ratio: float
    training: dict[str, Any]
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        most = self.model.max_length  # tokens on either side of a training pair
        if type(self.length_ratio) not in (int, float) or not 0 <= self.length_ratio <= most:
            raise ValueError(f"length_ratio is {self.length_ratio!r}, expected a number from 0 to max_length, {most}")
        if not isinstance(self.training, dict):
            raise ValueError(f"training is {self.training!r}, expected the options of a training")


def save_config(directory: Path, config: RunConfig) -> None:
    """Write config.json."""
    text = json.dumps({"format": FORMAT, **asdict(config)}, indent=2, ensure_ascii=False)
    # Bytes of a path that are no UTF-8 are lone surrogates in Python, and then, as \udc80 and so on, in JSON.
    write_atomically(directory / "config.json", (text + "\n").encode(errors="backslashreplace"))


def save_weights(path: Path, model: Transformer) -> None:
    """Write the weights of `model`; the same weights give the same bytes."""
    # safetensors writes wrong bytes for arrays that are not C-contiguous.
    arrays = {n: np.asarray(to_host(p.data), order="C") for n, p in model.parameters.named.items()}
    write_atomically(path, safetensors.numpy.save(arrays, metadata={"sha256": digest(arrays)}))


def load_model(directory: Path, *, device: str = "cpu") -> tuple[Transformer, Tokenizer, RunConfig]:
    """Return the model, tokenizer and configuration that stand in `directory`.

    Raises: CheckpointError or VocabularyError that names the file and what is wrong with it.
    """
    if not (directory / "config.json").exists():
        raise CheckpointError(f"{directory} holds no trained model; run first: python train.py")
    config = load_config(directory)
    tokenizer = Tokenizer.load(directory / "tokenizer.model")
    require_same_vocabulary(directory, config, tokenizer)
    for side in ("source_vocabulary", "target_vocabulary"):
        if getattr(config.model, side) != len(tokenizer):
            raise CheckpointError(
                f"{directory}: config.json has {side} {getattr(config.model, side)}, "
                f"but tokenizer.model has {len(tokenizer)} pieces"
            )
    weights = directory / "model.safetensors"
    if not weights.exists():
        raise CheckpointError(f"{weights} does not exist; the first validation writes it")
    require_held(weights, config.model)
    model = Transformer(config.model, np.random.default_rng(0), device=device)
    load_weights(weights, model)
    return model, tokenizer, config


def require_same_vocabulary(directory: Path, config: RunConfig, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError if `directory` holds another vocabulary than its configuration was written for."""
    if config.vocabulary not in (None, tokenizer.digest()):
        raise CheckpointError(f"{directory}: tokenizer.model is not the one that config.json was written for")


def load_config(directory: Path) -> RunConfig:
    """Read config.json. Raises: CheckpointError that names it and what is wrong with it."""
    path = directory / "config.json"
    with refused(path):
        fields = parse_json(read_bytes(path))
        if fields["format"] != FORMAT:
            raise ValueError(f"format is {fields['format']!r}, and this version reads {FORMAT}")
        model = fields["model"]
        if not isinstance(model, dict) or "source_vocabulary" not in model or "target_vocabulary" not in model:
            raise ValueError("model holds no source_vocabulary and target_vocabulary")
        if unknown := model.keys() - TransformerConfig.__dataclass_fields__.keys():
            raise ValueError(f"model has the unknown field {min(unknown)!r}")
        shape = TransformerConfig(**model)
        return RunConfig(shape, fields["length_ratio"], fields["training"], fields.get("vocabulary"))


def load_weights(path: Path, model: Transformer) -> None:
    """Copy the weights that `path` holds into `model`. Raises: CheckpointError that names the file."""
    model.parameters.load(require_weights(path, model))


def require_weights(path: Path, model: Transformer) -> dict[str, np.ndarray]:
    """Return the weights that `path` holds by name. Raises: CheckpointError unless they are whole, and fit `model`."""
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; put it back, or begin again with --overwrite")
    with refused(path):
        arrays, metadata = read_arrays(path, model.parameters.shapes(), model.parameters.data.dtype)
        if metadata.get("sha256") not in (None, digest(arrays)):
            raise ValueError(CHANGED)
    return arrays


def require_held(path: Path, shape: TransformerConfig, *, copies: int = 1) -> None:
    """Raise CheckpointError if a model of this shape would take more memory than the numbers in `path` account for.

    copies: how many numbers the file holds for each parameter.
    """
    with refused(path):
        asked, held = shape.parameter_count(), sum(map(math.prod, read_shapes(path).values())) // copies
    if asked > max(held, HARMLESS):
        raise CheckpointError(
            f"{path.parent}: config.json asks for {asked:,} parameters ({4e-9 * asked:,.1f} GB), "
            f"but {path.name} holds {held:,}"
        )


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
    arrays = {name: to_host(array) for name, array in _arrays_of(optimizer).items()}
    # One entry, since safetensors writes several in an order that changes from process to process.
    record = {**counters, "sha256": digest(arrays, json.dumps(counters))}
    content = safetensors.numpy.save(arrays, metadata={"counters": json.dumps(record)})
    write_atomically(directory / "state.safetensors", content)


def load_state(directory: Path, optimizer: Adam) -> dict[str, float]:
    """Read state.safetensors into `optimizer` and its parameters; return the counters.

    Raises: CheckpointError that names the file; then nothing has been read into them.
    """
    path = directory / "state.safetensors"
    if not path.exists():
        raise CheckpointError(f"{path} does not exist: nothing was saved yet, so begin again with --overwrite")
    mine = _arrays_of(optimizer)
    with refused(path):
        arrays, metadata = read_arrays(path, {n: a.shape for n, a in mine.items()}, optimizer.m.dtype)
        counters = parse_json(metadata["counters"])
        written = counters.pop("sha256", None)
        for name, value in counters.items():
            least = -math.inf if name == "best" else 0
            most = 2**63 if type(value) is int else math.inf if name == "best" else sys.float_info.max
            if type(value) not in (int, float) or not least <= value <= most:
                raise ValueError(f"the counter {name} is {value!r}, expected a number from {least} to {most:g}")
        if type(counters["step"]) is not int:
            raise ValueError(f"the counter step is {counters['step']!r}, expected a whole number")
        if written not in (None, digest(arrays, json.dumps(counters))):
            raise ValueError(CHANGED)
    for name, array in mine.items():
        array[...] = array_module(array).asarray(arrays[name])
    optimizer.step = counters["step"]
    return counters


def _arrays_of(optimizer: Adam) -> dict[str, Array]:
    """Return all that an optimizer has learned, by name."""
    return {"parameters": optimizer.parameters.data, "m": optimizer.m, "v": optimizer.v}


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is read into a CheckpointError of one line that names it."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from None
    except KeyError as error:
        raise CheckpointError(f"{path}: the field {error} is missing") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: {in_one_line(error)}") from None


def append_metrics(directory: Path, metrics: dict[str, float]) -> None:
    """Add a line to metrics.jsonl; JSON has no infinity, so what is not finite is null there."""
    finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    append_line(directory / "metrics.jsonl", json.dumps(finite))
