"""What docs/article.md says about the article, run."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from tinytransformer.data import encode_corpus, make_batch
from tinytransformer.evaluation import score
from tinytransformer.layers import Block, MultiHeadAttention, SinusoidalPositions
from tinytransformer.ops import concatenate, cross_entropy
from tinytransformer.tensor import OPS, ShapeError, Tensor
from tinytransformer.transformer import BEGIN, END, PAD, Transformer, TransformerConfig

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / name).read_text("utf-8") for name in ("article.md", "article.zh-CN.md")}


def quoted(*numbers):
    """Both pages quote these numbers as they were computed."""
    for name, page in PAGES.items():
        for number in numbers:
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", page), f"{name} does not say {number}"


def small_model(seed=0):
    config = TransformerConfig(
        11, 11, width=16, feed_forward_width=32, heads=4, encoder_layers=2, decoder_layers=2, dropout=0.0
    )
    return Transformer(config, np.random.default_rng(seed), dtype=np.float64)


SOURCE = np.array([[4, 5, 6, 7, 8, 9, END], [5, 7, END, PAD, PAD, PAD, PAD]])
TARGET = np.array([[BEGIN, 4, 6, 8], [BEGIN, 9, 9, 10]])


# Sections 1 to 3: the prose.


def test_decoder_has_one_sublayer_more():
    model = small_model()
    assert all(block.cross_attention is None for block in model.encoder.blocks)
    assert all(block.cross_attention is not None for block in model.decoder.blocks)


# Section 4: the formulas.


def test_lengths_may_differ():
    """Ids in, and for every position of the target a score for every token: no vectors of the user's, no n = m."""
    logits = small_model()(SOURCE, TARGET)
    assert SOURCE.shape[1] != TARGET.shape[1]
    assert logits.shape == (2, 4, 11)


def test_softmax_saturates_without_the_scale():
    """At d_k = 512 most queries see one key and pass on almost no gradient; divided by sqrt(d_k) they do not."""
    rng = np.random.default_rng(0)
    query, key = rng.standard_normal((64, 512)), rng.standard_normal((64, 512))
    upstream = rng.standard_normal((64, 64))
    largest, gradient = [], []
    for scores in (query @ key.T, query @ key.T / math.sqrt(512)):
        weights, backward = OPS["softmax"].plain(scores)
        (dscores,) = backward(upstream)
        largest.append(np.median(weights.max(axis=-1)))
        assert np.median(np.linalg.norm(upstream, axis=-1)) == pytest.approx(8, abs=0.3)
        gradient.append(np.median(np.linalg.norm(dscores, axis=-1)))
    assert (query @ key.T).std() == pytest.approx(math.sqrt(512), rel=0.01)
    quoted(f"{largest[0]:.3f}", f"{largest[1]:.3f}", f"{gradient[0]:.3f}", f"{gradient[1]:.3f}")


def heads_of(layer, x):
    """The output of each head of `layer`, before W_O: (H, T, d)."""
    query, key, value = (layer._split(part(x)).data for part in (layer.query, layer.key, layer.value))
    return OPS["attention"].plain(query, key, value)[0][0]


def test_joined_heads_are_a_weighted_sum():
    """concatenate(head_1, ..., head_H) @ W_O = sum of head_i @ W_O_i, with W_O_i the i-th block of rows of W_O."""
    rng = np.random.default_rng(0)
    layer = MultiHeadAttention(12, 4, 0.0, rng)
    x = Tensor(rng.standard_normal((1, 5, 12)))
    blocks = layer.output.weight.data.reshape(4, 3, 12)
    expected = sum(head @ block for head, block in zip(heads_of(layer, x), blocks, strict=True))
    np.testing.assert_allclose(layer(x).data[0], expected, rtol=1e-12)


def test_summed_heads_cannot_be_told_apart():
    """It is the one W_O that stacks identities: of rank d, where W_O may have rank D = H * d."""
    rng = np.random.default_rng(0)
    layer = MultiHeadAttention(12, 4, 0.0, rng)
    heads = heads_of(layer, Tensor(rng.standard_normal((1, 5, 12))))  # (4, 5, 3)
    joined = heads.swapaxes(0, 1).reshape(5, 12)
    plain_sum = np.tile(np.eye(3), (4, 1))
    np.testing.assert_allclose(joined @ plain_sum, heads.sum(0), rtol=1e-12)
    assert np.linalg.matrix_rank(plain_sum) == 3
    assert np.linalg.matrix_rank(layer.output.weight.data) == 12
    with pytest.raises(ShapeError):  # (5, 12) + (5, 3): the residual has nothing to be added to
        Tensor(np.ones((5, 12))) + Tensor(heads.sum(0))

    swapped = heads[[1, 0, 2, 3]]
    np.testing.assert_allclose(swapped.sum(0), heads.sum(0), rtol=1e-12)
    output = layer.output.weight.data
    assert not np.allclose(swapped.swapaxes(0, 1).reshape(5, 12) @ output, joined @ output, atol=0.1)


def test_heads_without_an_index_are_one_head():
    """The article's W_Q, W_K and W_V carry no index i; taken at its word, all C_i are equal and C = H * C_1."""
    rng = np.random.default_rng(0)
    layer = MultiHeadAttention(12, 4, 0.0, rng)
    for part in (layer.query, layer.key, layer.value):
        part.weight.data[...] = np.tile(part.weight.data[:, :3], (1, 4))
    heads = heads_of(layer, Tensor(rng.standard_normal((1, 5, 12))))
    np.testing.assert_allclose(heads.sum(0), 4 * heads[0], rtol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_self_attention_has_heads(heads):
    rng = np.random.default_rng(0)
    layer = MultiHeadAttention(12, heads, 0.0, rng)
    x = Tensor(rng.standard_normal((2, 5, 12)))
    np.testing.assert_array_equal(layer(x).data, layer(x, memory=x).data)
    assert layer(x, memory=Tensor(rng.standard_normal((2, 9, 12)))).shape == x.shape  # and this is cross-attention


def test_positions_cannot_define_themselves():
    """PE(X) = LN(X) + PE(X) asks for LN(X) = 0, but every row that LN returns has a mean square of 1."""
    rng = np.random.default_rng(0)
    normed, _ = OPS["layer_norm"].plain(rng.standard_normal((5, 16)), np.ones(16), np.zeros(16))
    np.testing.assert_allclose((normed**2).mean(-1), 1, rtol=1e-4)


def test_positions_do_not_depend_on_x():
    positions = SinusoidalPositions(8)
    tables = [positions(Tensor(x), 0).data - x for x in np.random.default_rng(0).standard_normal((2, 1, 6, 8))]
    np.testing.assert_allclose(tables[0], tables[1], atol=1e-12)
    for t in range(6):
        for i in range(4):
            angle = t / 10000 ** (2 * i / 8)
            np.testing.assert_allclose(tables[0][0, t, 2 * i : 2 * i + 2], [math.sin(angle), math.cos(angle)])


def test_positions_in_values_stay():
    """With W_V = 0 no content gets through; the article's layer still returns positions, the paper's nothing."""
    rng = np.random.default_rng(0)
    x, p = rng.standard_normal((5, 8)), SinusoidalPositions(8)(Tensor(np.zeros((1, 5, 8))), 0).data[0]
    wq, wk, wv = rng.standard_normal((8, 8)), rng.standard_normal((8, 8)), np.zeros((8, 8))

    def attend(q, k, v):
        return OPS["attention"].plain(q[None, None], k[None, None], v[None, None])[0][0, 0]

    article = attend(x @ wq + p, x @ wk + p, x @ wv + p)
    paper = attend((x + p) @ wq, (x + p) @ wk, (x + p) @ wv)
    assert np.linalg.norm(article) > 1
    np.testing.assert_array_equal(paper, 0)


def test_concatenation_doubles_the_width():
    """[MLP(...) || LayerNorm(...)] + X: (n, 2D) + (n, D)."""
    part, x = Tensor(np.ones((5, 8))), Tensor(np.ones((5, 8)))
    doubled = concatenate(part, part, axis=-1)
    assert doubled.shape == (5, 16)
    with pytest.raises(ShapeError, match="do not broadcast"):
        doubled + x


@pytest.mark.parametrize("pre_norm", [True, False])
def test_norm_before_or_after(pre_norm):
    """After the sum, every position leaves the block normalised; before the sublayer, the stream is never touched."""
    rng = np.random.default_rng(0)
    block = Block(16, 32, 4, rng, cross_attention=False, pre_norm=pre_norm)
    y = block(Tensor(10 * rng.standard_normal((1, 5, 16)))).data
    assert np.allclose((y**2).mean(-1), 1, rtol=1e-3) is not pre_norm


@pytest.mark.parametrize("causal", [True, False])
def test_future_leaks_without_a_mask(causal):
    model = small_model()
    memory, memory_mask = model.encode(SOURCE)
    changed = TARGET.copy()
    changed[:, 2:] = 7  # the future of positions 0 and 1
    before, after = (
        model.decoder(target, memory, memory_mask=memory_mask, causal=causal).data[:, :2]
        for target in (TARGET, changed)
    )
    assert np.allclose(before, after) is causal


@pytest.mark.parametrize("reads_the_encoder", [True, False])
def test_unread_encoder_learns_nothing(reads_the_encoder):
    """Keys and values from X instead of the encoder's output: no gradient reaches a single block of the encoder."""
    model = small_model()
    memory, memory_mask = model.encode(SOURCE)
    if not reads_the_encoder:
        memory = model.encoder.embedding(SOURCE)
    logits = model.project(model.decode(TARGET, memory, memory_mask))
    cross_entropy(logits, targets=np.roll(TARGET, -1, axis=1)).backward()
    gradients = [p.grad for name, p in model.parameters.named.items() if name.startswith("encoder.blocks")]
    assert any(gradient.any() for gradient in gradients) is reads_the_encoder


# Section 5: the code.


class Words:
    """A tokenizer of whole words."""

    def __init__(self):
        self.ids = {}

    def encode(self, line):
        return [self.ids.setdefault(word, len(self.ids) + 4) for word in line.split()]


def test_missing_target_teaches_copying():
    tokenizer = Words()

    def as_in_the_article(source, target):
        ids = tokenizer.encode(source)
        return {"source": ids, "target": ids}

    item = as_in_the_article("a dog runs", "ein Hund läuft")
    assert item["target"] == item["source"] == as_in_the_article("a dog runs", "eine Katze schläft")["target"]

    (pair,) = encode_corpus(tokenizer, ["a dog runs"], ["ein Hund läuft"], 16).pairs
    batch = make_batch([pair])
    assert batch.target.tolist() == [[BEGIN, *tokenizer.encode("ein Hund läuft"), END]]
    assert not set(batch.source[0, :-1]) & set(batch.target[0])


def test_batches_have_an_axis_too_many():
    """The tokenizer returns (1, 512), the loader stacks: (16, 1, 512), where the model expects (16, 512)."""
    assert np.stack([np.zeros((1, 512), int)] * 16).shape == (16, 1, 512)


def test_two_classes_name_no_token():
    logits = Tensor(np.zeros((16, 2)))
    with pytest.raises(ShapeError):  # 16 x 512 labels for 16 rows of scores
        cross_entropy(logits, targets=np.zeros((16, 512), int))
    with pytest.raises(IndexError):  # and a token id is no class from 0 to 1
        cross_entropy(logits, targets=np.full(16, 1996))


def test_no_such_axis():
    logits = np.zeros((16, 2))
    with pytest.raises(np.exceptions.AxisError):
        logits.argmax(axis=2)
    with pytest.raises(ShapeError, match="axis 2 does not exist"):
        OPS["max"].plain(logits, axis=2)


def test_pytorch_refuses_it_too():
    torch = pytest.importorskip("torch")
    logits = torch.zeros(16, 2)
    with pytest.raises(ValueError, match="batch_size"):
        torch.nn.functional.cross_entropy(logits, torch.zeros(16 * 512, dtype=torch.long))
    with pytest.raises(IndexError, match="Dimension out of range"):
        logits.argmax(dim=2)


def test_counted_padding_rewards_padding():
    """12 tokens in 512 positions: "always padding" is right nearly everywhere. Here padding adds nothing."""
    labels = np.full(512, PAD)
    labels[:12] = np.arange(4, 16)
    quoted(f"{(labels == PAD).mean():.1%}")

    rng = np.random.default_rng(0)
    logits = rng.standard_normal((512, 20))
    short = cross_entropy(Tensor(logits[:12]), targets=labels[:12], padding=PAD)
    padded = cross_entropy(Tensor(logits), targets=labels, padding=PAD)
    np.testing.assert_allclose(padded.data, short.data, rtol=1e-12)


def test_score_by_position():
    reference = "yesterday a small black dog ran through the tall green grass"
    translation = reference.removeprefix("yesterday ")
    hits = sum(a == b for a, b in zip(translation.split(), reference.split(), strict=False))
    assert hits == 0
    quoted(f"{score([translation], [reference]).bleu:.1f}")
