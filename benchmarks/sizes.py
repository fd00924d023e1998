"""The four models that are trained, and the text they are trained on: random ids, as frequent as words are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinytransformer.data import Corpus
from tinytransformer.transformer import END, TransformerConfig

DROPOUT = LABEL_SMOOTHING = 0.1
LEARNING_RATE, CLIP = 1e-4, 1.0
BETAS, EPS = (0.9, 0.98), 1e-9


@dataclass(frozen=True)
class Size:
    """One model and its batches.

    layers: of the encoder, and as many of the decoder. batch, length: sentences, and tokens on either side of each.
    replicas: how many processes share a step.
    """

    vocabulary: int
    width: int
    feed_forward_width: int
    heads: int
    layers: int
    batch: int
    length: int
    replicas: int = 2

    def config(self) -> TransformerConfig:
        """Return the shape of the model: pre-norm, sinusoidal positions, one table for all embeddings."""
        return TransformerConfig(
            self.vocabulary,
            self.vocabulary,
            width=self.width,
            feed_forward_width=self.feed_forward_width,
            heads=self.heads,
            encoder_layers=self.layers,
            decoder_layers=self.layers,
            dropout=DROPOUT,
        )

    def corpus(self, batches: int = 16) -> Corpus:
        """Return sentence pairs for so many full batches. With END, or BEGIN, every side has `length` tokens.

        The k-th most frequent id has a probability in proportion to 1 / k, as words have (Zipf's law): how often ids
        repeat decides what the gradient of the embeddings costs.
        """
        generator = np.random.default_rng(1)
        ids = np.arange(END + 1, self.vocabulary)
        chances = 1 / np.arange(1, len(ids) + 1)
        shape = (batches * self.batch, 2, self.length - 1)
        drawn = generator.choice(ids, shape, p=chances / chances.sum()).tolist()
        return Corpus([(source, target) for source, target in drawn], 0, 0)

    @property
    def batch_tokens(self) -> int:
        """The most tokens on either side of a batch."""
        return self.batch * self.length


SIZES = {
    "toy": Size(100, 64, 128, 2, 2, 32, 12),
    "tiny": Size(10_000, 128, 256, 4, 4, 128, 16),
    "small": Size(8000, 256, 1024, 4, 3, 64, 32),
    "base": Size(8000, 512, 2048, 8, 6, 32, 32),
}
