"""The models are those of the comparison, and their batches are full."""

import numpy as np

from benchmarks.sizes import SIZES
from tinytransformer.data import batches


def test_every_batch_is_full_on_both_sides(size):
    found = list(batches(size.corpus(3).pairs, size.batch_tokens))
    assert len(found) == 3
    for batch in found:
        assert batch.source.shape == (size.batch, size.length)
        assert batch.target[:, 1:].shape == (size.batch, size.length)
        assert batch.tokens == size.batch_tokens


def test_ids_are_as_frequent_as_words():
    """The most frequent id is about twice as frequent as the second, and no special id is drawn."""
    size = SIZES["tiny"]
    ids = np.array([size.corpus(4).pairs]).ravel()
    counts = np.bincount(ids, minlength=size.vocabulary)
    assert counts[:4].sum() == 0
    assert 1.7 < counts[4] / counts[5] < 2.3
    assert ids.max() < size.vocabulary


def test_the_same_ids_every_time(size):
    assert size.corpus().pairs == size.corpus().pairs


def test_the_shape_of_the_model_is_that_of_the_size():
    config = SIZES["base"].config()
    assert (config.source_vocabulary, config.width, config.feed_forward_width, config.heads) == (8000, 512, 2048, 8)
    assert (config.encoder_layers, config.decoder_layers, config.dropout, config.norm) == (6, 6, 0.1, "pre")
