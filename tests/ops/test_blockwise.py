"""Attention block by block is attention, for less memory; what a table of small cases cannot show."""

import tracemalloc

import numpy as np
import pytest

from tinytransformer.ops import attention, blockwise_attention

from .cases import Case, relative_difference


def sequences(queries, keys, *, dtype=np.float64, heads=2, width=4):
    random = np.random.default_rng(0)
    return tuple(random.normal(size=(1, heads, time, width)).astype(dtype) for time in (queries, keys, keys))


@pytest.mark.parametrize("queries", [300, 600])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_long_sequences_have_the_outputs_and_gradients_of_attention(queries, causal, masked):
    """In blocks of the size that nobody chose, of which neither length is a multiple."""
    mask = np.random.default_rng(1).random((1, 1, 1, 600)) < 0.8 if masked else None
    inputs = sequences(queries, 600)
    assert all(time > blockwise_attention.plain.__kwdefaults__["block"] for time in (queries, 600))
    case = Case("attention", "long", inputs, {"causal": causal, "mask": mask})
    output, _, gradients = case.run(blockwise_attention)
    plain_output, _, plain_gradients = case.run(attention)
    for found, plain in zip([output, *gradients], [plain_output, *plain_gradients], strict=True):
        assert relative_difference(found, plain) < 1e-13


def test_one_head_in_one_block_drops_what_attention_drops():
    inputs = sequences(9, 11, heads=1)
    outputs = [
        operation.plain(*inputs, rate=0.5, generator=np.random.Generator(np.random.SFC64(1)))[0]
        for operation in (blockwise_attention, attention)
    ]
    assert relative_difference(*outputs) < 1e-13


def test_blocks_that_are_hidden_are_not_computed():
    """No query of the first two blocks may see the last one: NaN there touches neither them nor their gradients."""
    query, key, value = sequences(6, 6)
    key[:, :, 4:] = value[:, :, 4:] = np.nan
    y, backward = blockwise_attention.plain(query, key, value, causal=True, block=2)
    dy = np.ones(y.shape)
    dquery = backward(dy)[0]
    assert np.isfinite(y[:, :, :4]).all()
    assert np.isfinite(dquery[:, :, :4]).all()
    assert np.isnan(y[:, :, 4:]).all()


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"rate": 0.1, "generator": np.random.default_rng(0)}])
def test_memory_grows_with_the_length_and_not_with_its_square(options):
    """Four times the length costs about four times the memory, and not 16; a T x T matrix is nowhere near."""

    def peak(length):
        query, key, value = sequences(length, length, dtype=np.float32, heads=1, width=8)
        tracemalloc.start()
        y, backward = blockwise_attention.plain(query, key, value, block=64, **options)
        backward(y)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    short, long = peak(512), peak(2048)
    assert long < 6 * short
    assert long < 2048 * 2048 * 4 / 8
