"""What attention promises beside its values: how they lie in memory."""

import numpy as np

from tinytransformer.ops import attention


def test_heads_are_laid_out_as_they_are_merged():
    """Of each position side by side, forward and backward, so that neither way copies anything."""
    query, key, value = (np.random.default_rng(i).normal(size=(2, 3, 5, 4)) for i in range(3))
    heads, backward = attention.plain(query, key, value)
    for x in (heads, *backward(np.ones_like(heads))):
        assert x.swapaxes(1, 2).flags.c_contiguous
