"""The same model and the same step in PyTorch, as its users write them: torch.nn.Transformer and fused Adam."""

from __future__ import annotations

import itertools
import math
import warnings

import torch
from torch.nn import functional as F  # noqa: N812

from benchmarks.clock import Clock
from benchmarks.sizes import BETAS, CLIP, DROPOUT, EPS, LABEL_SMOOTHING, LEARNING_RATE, Size
from tinytransformer.data import batches
from tinytransformer.layers import sinusoidal_table
from tinytransformer.transformer import PAD

warnings.filterwarnings("ignore", message="enable_nested_tensor")  # of no concern in training


class Model(torch.nn.Module):
    """Tied embeddings around torch.nn.Transformer; returns the loss, so that `torch.compile` sees all of it.

    same_dropout: torch.nn.Transformer drops out in two places that tinytransformer, and Vaswani et al. 2017, section
        5.4, leave alone: attention weights, and the hidden features of the feed-forward layers. This turns both off.
    """

    def __init__(self, size: Size, *, same_dropout: bool):
        super().__init__()
        self.scale = math.sqrt(size.width)
        self.table = torch.nn.Parameter(torch.randn(size.vocabulary, size.width) / self.scale)
        self.dropout = torch.nn.Dropout(DROPOUT)
        self.transformer = torch.nn.Transformer(
            size.width,
            size.heads,
            size.layers,
            size.layers,
            size.feed_forward_width,
            dropout=DROPOUT,
            norm_first=True,
            batch_first=True,
        )
        self.register_buffer("positions", torch.from_numpy(sinusoidal_table(size.length, size.width)).float())
        self.register_buffer("future", torch.ones(size.length, size.length, dtype=torch.bool).triu(1))
        if same_dropout:
            for module in self.transformer.modules():
                if isinstance(module, torch.nn.MultiheadAttention):
                    module.dropout = 0.0
                if isinstance(module, torch.nn.TransformerEncoderLayer | torch.nn.TransformerDecoderLayer):
                    module.dropout = torch.nn.Identity()  # the one inside the feed-forward layer

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.dropout(F.embedding(ids, self.table) * self.scale + self.positions)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(B, T) and (B, T + 1) of token ids -> the mean loss per target token"""
        read, predicted = target[:, :-1], target[:, 1:]
        padding = source == PAD
        features = self.transformer(
            self.embed(source),
            self.embed(read),
            tgt_mask=self.future,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        logits = features @ self.table.T
        return F.cross_entropy(
            logits.flatten(0, 1), predicted.flatten(), ignore_index=PAD, label_smoothing=LABEL_SMOOTHING
        )


def train(size: Size, clock: Clock, *, same_dropout: bool = False, compiled: bool = False) -> None:
    """Train until the clock says that it is enough. The batches lie ready."""
    torch.manual_seed(1)
    model = Model(size, same_dropout=same_dropout)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, BETAS, EPS, fused=True)
    loss_of = torch.compile(model) if compiled else model
    prepared = [
        (torch.from_numpy(batch.source), torch.from_numpy(batch.target))
        for batch in batches(size.corpus().pairs, size.batch_tokens)
    ]
    for source, target in itertools.cycle(prepared):
        optimizer.zero_grad()
        loss = loss_of(source, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        loss.item()
        clock()
        if clock.enough():
            return
