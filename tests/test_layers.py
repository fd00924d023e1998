"""The parts of a Transformer, each against its formula written out once more."""

import math

import numpy as np
import pytest

from tinytransformer import layers
from tinytransformer.cache import AttentionCache, DecoderCache, Remaining, Tree
from tinytransformer.layers import (
    ACTIVATIONS,
    Block,
    Embedding,
    FeedForward,
    LayerNorm,
    LearnedPositions,
    Linear,
    MultiHeadAttention,
    SinusoidalPositions,
    sinusoidal_table,
)
from tinytransformer.ops import blockwise_attention, dropout, gelu, relu
from tinytransformer.tape import no_grad
from tinytransformer.tensor import Tensor

D, H = 12, 3  # three heads of four features each


def rng(seed=1):
    return np.random.Generator(np.random.SFC64(seed))


def randomised(module, seed=2):
    """Return the module with normal numbers in all its parameters, so that no bias is 0 and no gain is 1."""
    random = rng(seed)
    for _, parameter in module.named_parameters():
        parameter.data = random.normal(0, 0.5, parameter.shape)
    return module


def normal(*shape, seed=3):
    return Tensor(rng(seed).normal(size=shape))


def close(x, y, tolerance=1e-12):
    x, y = (z.data if isinstance(z, Tensor) else z for z in (x, y))
    assert x.shape == y.shape
    np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


# --- Linear, embedding, norm, feed-forward


@pytest.mark.parametrize(("inputs", "outputs"), [(300, 100), (64, 256)])
def test_linear_is_drawn_glorot_uniform_and_without_bias(inputs, outputs):
    """Uniform up to sqrt(6 / (inputs + outputs)): the limit is approached, the variance is a third of its square."""
    layer, limit = Linear(inputs, outputs, rng()), math.sqrt(6 / (inputs + outputs))
    weight = layer.weight.data
    assert weight.shape == (inputs, outputs)
    assert 0.999 * limit < np.abs(weight).max() <= limit
    assert abs(weight.mean()) < 0.02 * limit
    assert weight.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert layer.bias.shape == (outputs,)
    assert not layer.bias.data.any()
    assert Linear(2, 3, rng(), bias=False).bias is None


def test_linear_and_layer_norm_use_all_their_parameters():
    linear, norm, x = randomised(Linear(4, 3, rng())), randomised(LayerNorm(4)), normal(2, 5, 4)
    close(linear(x), x.data @ linear.weight.data + linear.bias.data)
    centred = x.data - x.data.mean(-1, keepdims=True)
    xhat = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    close(norm(x), norm.gain.data * xhat + norm.bias.data)
    close(LayerNorm(4)(x), xhat)


def test_embedding_has_elements_of_order_one():
    """Drawn with standard deviation D^-1/2, then multiplied by sqrt(D)."""
    layer, ids = Embedding(500, 64, rng()), np.array([[3, 499, 3], [0, 1, 2]])
    assert layer.table.data.std() == pytest.approx(1 / 8, rel=0.02)
    assert abs(layer.table.data.mean()) < 0.005
    close(layer(ids), 8 * layer.table.data[ids], 1e-15)


@pytest.mark.parametrize(("name", "activation"), [("relu", relu), ("gelu", gelu)])
def test_feed_forward_is_equation_2(name, activation):
    layer, x = randomised(FeedForward(4, 9, name, rng())), normal(2, 3, 4)
    hidden = x.data @ layer.expand.weight.data + layer.expand.bias.data
    bent = activation(hidden).data
    assert hidden.shape == (2, 3, 9)
    close(layer(x), bent @ layer.contract.weight.data + layer.contract.bias.data)


# --- Positions


def test_sinusoids_are_those_of_section_3_5():
    """Every element, with Python's own sin, cos and power."""
    table = sinusoidal_table(50, 8)
    for t in range(50):
        for i in range(4):
            angle = t / 10000 ** (2 * i / 8)
            assert table[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-14)
            assert table[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-14)


@pytest.mark.parametrize("shift", [1, 7, 100])
def test_a_shift_of_position_is_a_rotation_alike_everywhere(shift):
    """Each (sin, cos) pair turns by an angle that depends on the shift and not on the position."""
    table, width = sinusoidal_table(300, 16), 16
    for i in range(width // 2):
        a = shift / 10000 ** (2 * i / width)
        turn = np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])  # applied to rows (sin, cos)
        pair = table[:, 2 * i : 2 * i + 2]
        np.testing.assert_allclose(pair[:-shift] @ turn, pair[shift:], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sinusoidal_tables_grow_and_stay_exact(dtype):
    """A longer sequence gets a longer table, of the same numbers; float32 is float64 rounded, and never handed over."""
    layer, exact = SinusoidalPositions(8), sinusoidal_table(500, 8)
    for first, length, other in ((0, 3, np.float64), (2, 1, np.float32), (90, 200, np.float64), (0, 3, np.float32)):
        for kind in (dtype, other):
            y = layer(Tensor(np.zeros((2, length, 8), dtype=kind)), first)
            assert y.dtype == kind
            np.testing.assert_array_equal(y.data, np.stack([exact[first : first + length].astype(kind)] * 2))
    assert not list(layer.named_parameters())


def test_learned_positions_are_added_up_to_their_length():
    layer, x = LearnedPositions(6, 4, rng()), normal(2, 3, 4)
    assert LearnedPositions(500, 64, rng()).table.data.std() == pytest.approx(1, rel=0.02)
    for first in (0, 3):
        close(layer(x, first), x.data + layer.table.data[first : first + 3], 1e-15)
    with pytest.raises(ValueError, match="a sequence of 7 tokens is too long: 6 positions have been learned"):
        layer(x, 4)


# --- Multi-head attention


def attend(layer, x, memory=None, mask=None, causal=False):
    """Section 3.2.2 for one query and one head at a time, with the heads concatenated before the last projection."""
    memory = x if memory is None else memory
    mask = np.ones((1, 1, 1, 1), dtype=bool) if mask is None else mask
    mask = np.broadcast_to(mask, (len(x), H, x.shape[1], memory.shape[1]))
    size, y = D // H, np.empty(x.shape)

    def head(linear, vector, h):
        part = slice(h * size, (h + 1) * size)
        return vector @ linear.weight.data[:, part] + linear.bias.data[part]

    for b, t in np.ndindex(x.shape[:2]):
        found = []
        for h in range(H):
            query = head(layer.query, x[b, t], h)
            last = t + memory.shape[1] - x.shape[1] if causal else memory.shape[1]
            seen = [j for j in range(memory.shape[1]) if mask[b, h, t, j] and j <= last]
            scores = [float(query @ head(layer.key, memory[b, j], h)) / math.sqrt(size) for j in seen]
            total = math.fsum(map(math.exp, scores))
            weighted = zip([math.exp(s) / total for s in scores], seen, strict=True)
            found.append(sum((p * head(layer.value, memory[b, j], h) for p, j in weighted), start=np.zeros(size)))
        y[b, t] = np.concatenate(found) @ layer.output.weight.data + layer.output.bias.data
    return y


KEYS = np.array([[True, True, True, True, False], [True, True, False, False, False]])[:, None, None, :]


@pytest.mark.parametrize("mask", [None, KEYS, rng(8).random((2, H, 5, 5)) < 0.4], ids=["all", "padding", "random"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("cross", [False, True])
def test_multi_head_attention_is_section_3_2_2(mask, causal, cross):
    layer, x = randomised(MultiHeadAttention(D, H, 0.0, rng())), normal(2, 5, D)
    memory = normal(2, 5, D, seed=4) if cross else None
    y = layer(x, memory, mask=mask, causal=causal)
    close(y, attend(layer, x.data, memory.data if cross else None, mask, causal))


def test_attention_itself_knows_no_positions():
    """Reordered inputs give reordered outputs: order enters through the embeddings alone."""
    layer, x, order = randomised(MultiHeadAttention(D, H, 0.0, rng())), normal(2, 5, D), [3, 0, 4, 1, 2]
    close(layer(Tensor(x.data[:, order])), layer(x).data[:, order])


def test_weights_drop_only_with_a_generator():
    layer, x = randomised(MultiHeadAttention(D, H, 0.5, rng())), normal(2, 5, D)
    close(layer(x), attend(layer, x.data))
    one, same, other = (layer(x, generator=rng(seed)).data for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    assert not np.allclose(one, layer(x).data)


# --- Caches


def test_long_sequences_are_attended_to_block_by_block(monkeypatch):
    """From LONG pairs of a query and a key on; and nothing else changes."""
    layer, x, used = randomised(MultiHeadAttention(D, H, 0.0, rng())), normal(2, 5, D), []
    expected = layer(x, causal=True).data
    monkeypatch.setattr(layers, "blockwise_attention", lambda *x, **o: used.append(1) or blockwise_attention(*x, **o))
    for pairs, times in ((26, 0), (25, 1)):
        monkeypatch.setattr(layers, "LONG", pairs)
        np.testing.assert_allclose(layer(x, causal=True).data, expected, rtol=1e-12)
        assert len(used) == times


def test_self_attention_with_a_cache_is_the_causal_pass():
    """One position at a time: the cache holds the past."""
    layer, x, tree, parts = randomised(MultiHeadAttention(D, H, 0.0, rng())), normal(2, 6, D), Tree(2), []
    cache = AttentionCache(tree)
    for t in range(6):
        tree.grow()
        parts.append(layer(Tensor(x.data[:, t : t + 1]), cache=cache).data)
    close(np.concatenate(parts, axis=1), layer(x, causal=True))


def test_cross_attention_with_a_cache_looks_at_the_memory_once():
    """From the second call on, keys and values come from the cache: another memory changes nothing."""
    layer, x = randomised(MultiHeadAttention(D, H, 0.0, rng())), normal(2, 3, D)
    memory, cache = normal(2, 5, D, seed=4), AttentionCache()
    full = layer(x, memory, mask=KEYS)
    for t, source in enumerate((memory, memory, normal(2, 5, D, seed=5))):
        close(layer(Tensor(x.data[:, t : t + 1]), source, mask=KEYS, cache=cache), full.data[:, t : t + 1])
    assert cache.key.shape == (2, H, 5, D // H)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_block_with_a_cache_decodes_token_by_token(pre_norm):
    """After three tokens the first sentence leaves, and the last takes its place; what follows is the past of each."""
    block = randomised(Block(D, 20, H, rng(), cross_attention=True, pre_norm=pre_norm, activation="gelu"))
    x, memory, cache, kept = normal(3, 6, D), normal(3, 5, D, seed=4), DecoderCache(1, 3), np.arange(3)
    hidden = np.arange(5) < np.array([5, 3, 4])[:, None, None, None]
    with no_grad():
        full = block(x, memory, memory_mask=hidden, causal=True).data
        for t in range(6):
            if t == 3:
                cache.keep(remaining := Remaining(np.array([False, True, True])))
                kept = remaining.order
            mask = cache.grow(np.zeros((len(kept), 1), dtype=int))
            token, seen = Tensor(x.data[kept, t : t + 1]), Tensor(memory.data[kept])
            y = block(token, seen, mask=mask, memory_mask=hidden[kept], cache=cache.blocks[0])
            close(y, full[kept, t : t + 1])


# --- Blocks


def compose(block, x, memory, mask, memory_mask, causal, generator):
    """The two formulas of `Block`, each sublayer in turn."""
    sublayers = [
        (block.self_attention_norm, lambda y: block.self_attention(y, mask=mask, causal=causal, generator=generator)),
        (block.feed_forward_norm, block.feed_forward),
    ]
    if memory is not None:

        def look_back(y):
            return block.cross_attention(y, memory, mask=memory_mask, generator=generator)

        sublayers.insert(1, (block.cross_attention_norm, look_back))
    for norm, sublayer in sublayers:
        if block.pre_norm:
            x = x + dropout(sublayer(norm(x)), rate=block.rate, generator=generator)
        else:
            x = norm(x + dropout(sublayer(x), rate=block.rate, generator=generator))
    return x


@pytest.mark.parametrize("seed", [None, 6], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_a_block_is_its_formula(pre_norm, cross, seed):
    """Around each sublayer a residual and a norm; the same generator drops the same elements."""
    options = {"cross_attention": cross, "pre_norm": pre_norm, "rate": 0.3, "attention_rate": 0.2}
    block = randomised(Block(D, 20, H, rng(), **options))
    x, memory = normal(2, 5, D), normal(2, 5, D, seed=4) if cross else None
    mask = rng(9).random((2, 1, 5, 5)) < 0.6
    generators = [None, None] if seed is None else [rng(seed), rng(seed)]
    y = block(x, memory, mask=mask, memory_mask=KEYS, causal=True, generator=generators[0])
    close(y, compose(block, x, memory, mask, KEYS, True, generators[1]), 1e-14)
    assert np.allclose(y.data, block(x, memory, mask=mask, memory_mask=KEYS, causal=True).data) == (seed is None)


def test_an_encoder_block_has_no_cross_attention_and_activations_have_names():
    names = {name.split(".")[0] for name, _ in Block(D, 20, H, rng(), cross_attention=False).named_parameters()}
    assert names == {"self_attention", "self_attention_norm", "feed_forward", "feed_forward_norm"}
    assert dict(ACTIVATIONS) == {"relu": relu, "gelu": gelu}


def test_a_block_takes_a_memory_exactly_if_it_attends_to_one():
    x, memory = normal(2, 5, D), normal(2, 4, D, seed=4)
    for cross, wrong in ((True, None), (False, memory)):
        block = Block(D, 20, H, rng(), cross_attention=cross)
        with pytest.raises(ValueError, match=r"^a block takes a memory exactly if it has cross-attention$"):
            block(x, wrong)
        assert block(x, memory if cross else None).shape == x.shape
