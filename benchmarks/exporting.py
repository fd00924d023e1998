"""Which models the other programs are given: those of train.py's defaults, of any size."""

from __future__ import annotations

from tinytransformer.checkpoint import CheckpointError
from tinytransformer.transformer import TransformerConfig

EXPORTABLE = {"tied_embeddings": True, "positions": "sinusoidal", "norm": "pre", "activation": "relu"}


def require_exportable(config: TransformerConfig) -> None:
    """Raise CheckpointError that names the first field in which a model is of another kind."""
    for name, expected in EXPORTABLE.items():
        if getattr(config, name) != expected:
            raise CheckpointError(f"the benchmark is for models with {name} {expected}, not {getattr(config, name)}")
