"""The whole model: its configuration, what each token may depend on, and decoding with a cache."""

from itertools import product

import numpy as np
import pytest

from tinytransformer.data import make_batch
from tinytransformer.ops import cross_entropy
from tinytransformer.optim import Adam
from tinytransformer.tape import no_grad
from tinytransformer.tensor import Tensor
from tinytransformer.training import Replicas, TrainingOptions, add_gradient
from tinytransformer.transformer import BEGIN, PAD, PRESETS, Transformer, TransformerConfig

SMALL = {
    "source_vocabulary": 11,
    "target_vocabulary": 11,
    "width": 12,
    "feed_forward_width": 20,
    "heads": 3,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "dropout": 0.2,
    "attention_dropout": 0.1,
    "max_length": 16,
}
BATCH = make_batch([([4, 5, 6, 7, 8], [5, 6, 4, 9]), ([9, 4], [7]), ([10, 5, 7, 5], [4, 8, 10])])
SOURCE, TARGET, NEXT = BATCH.source, BATCH.target[:, :-1], BATCH.target[:, 1:]


def model_with(**options):
    """Return a small float64 model with normal numbers in all its gains and biases too."""
    model = Transformer(TransformerConfig(**{**SMALL, **options}), np.random.default_rng(1), dtype=np.float64)
    vectors = model.parameters.data[model.parameters.decayed :]
    vectors += np.random.default_rng(2).normal(0, 0.2, vectors.shape)
    return model


def logits_of(model, source=SOURCE, target=TARGET):
    with no_grad():
        return model(source, target).data


def far(x, y):
    """Return the largest difference: 1e-12 is rounding, 1e-3 is an influence."""
    return np.abs(x - y).max()


# --- Configuration


@pytest.mark.parametrize(
    ("field", "value"),
    [(name, value) for name in ("source_vocabulary", "width", "heads", "max_length") for value in (0, -1, 2.0, "8")]
    + [(name, 0) for name in ("target_vocabulary", "feed_forward_width", "encoder_layers", "decoder_layers")]
    + [(name, value) for name in ("dropout", "attention_dropout") for value in (-0.1, 1, 1.5, "0", None, True)]
    + [("dropout", float("nan")), ("heads", True), ("tied_embeddings", 1), ("tied_embeddings", "yes")]
    + [("positions", "rotary"), ("norm", "Pre"), ("activation", "swish"), ("norm", None), ("positions", 1)]
    + [("width", 10), ("width", 9), ("heads", 5), ("target_vocabulary", 12)],
)
def test_a_field_that_cannot_be_is_named(field, value):
    """Wrong kind, out of range, unknown choice, or at odds with another field."""
    with pytest.raises(ValueError, match=rf"\b{field}\b"):
        TransformerConfig(**{**SMALL, field: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10}, "width is 10, expected an even number that its 3 heads divide"),
        ({"width": 9}, "width is 9, expected an even number that its 3 heads divide"),
        ({"norm": "Pre"}, "norm is 'Pre', expected one of: pre, post"),
        ({"activation": "swish"}, "activation is 'swish', expected one of: relu, gelu"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"heads": True}, "heads is True, expected int"),
        ({"decoder_layers": 0}, "decoder_layers is 0, expected at least 1"),
        ({"target_vocabulary": 12}, "tied_embeddings needs one vocabulary, but source_vocabulary is 11 and target"),
    ],
)
def test_errors_say_what_is_expected(options, message):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        TransformerConfig(**{**SMALL, **options})


def test_what_can_be_is_accepted():
    assert TransformerConfig(**{**SMALL, "dropout": 0}).dropout == 0
    assert TransformerConfig(**{**SMALL, "tied_embeddings": False, "target_vocabulary": 12}).target_vocabulary == 12
    assert TransformerConfig(8, 8) == TransformerConfig(8, 8, **PRESETS["base"])


def count(vocabulary, d, hidden, encoder, decoder):
    """Return the number of parameters of a tied pre-norm model: matrices, biases and norms, one by one."""
    attention, norm, feed_forward = 4 * (d * d + d), 2 * d, d * hidden + hidden + hidden * d + d
    blocks = encoder * (attention + feed_forward + 2 * norm) + decoder * (2 * attention + feed_forward + 3 * norm)
    return vocabulary * d + blocks + 2 * norm


@pytest.mark.parametrize(
    ("name", "shape", "heads", "total"),
    [("toy", (64, 256, 2, 2), 4, 240_128), ("tiny", (128, 256, 4, 4), 4, 1_338_368)],
)
def test_presets_have_the_sizes_of_their_names(name, shape, heads, total):
    """The totals are those of 100 tokens, worked out apart from the code."""
    model = Transformer(TransformerConfig(100, 100, **PRESETS[name]), np.random.default_rng(1))
    assert model.parameters.data.size == count(100, *shape) == total
    assert model.parameters.data.dtype == np.float32
    assert [block.self_attention.heads for block in model.encoder.blocks] == [heads] * shape[2]
    assert f"{total:,}" in model.summary().splitlines()[-1]


def test_all_presets_are_configurations():
    assert set(PRESETS) == {"toy", "tiny", "small", "base"}
    for preset in PRESETS.values():
        TransformerConfig(8000, 8000, **preset)


# --- All architectures


@pytest.mark.parametrize(
    ("norm", "positions", "activation", "tied"),
    [*product(("pre", "post"), ("sinusoidal", "learned"), ("relu", "gelu"), (True, False))],
)
def test_every_parameter_of_every_architecture_gets_a_gradient(norm, positions, activation, tied):
    """Finite and not zero, but for the biases of the keys: a shift of all scores, which softmax does not see."""
    model = model_with(norm=norm, positions=positions, activation=activation, tied_embeddings=tied)
    logits = model(SOURCE, TARGET, np.random.default_rng(3))
    assert logits.shape == (3, 5, 11)
    cross_entropy(logits, targets=NEXT, padding=PAD, label_smoothing=0.1).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad).all()
        if name.endswith("key.bias"):
            assert np.abs(parameter.grad).max() < 1e-11
        else:
            assert np.linalg.norm(parameter.grad) > 1e-4, name
    names = list(model.parameters.named)
    assert ("encoder.norm.gain" in names) == ("decoder.norm.gain" in names) == (norm == "pre")
    assert sum("positions" in name for name in names) == 2 * (positions == "learned")


def test_tied_embeddings_are_one_table_and_the_output_projection():
    model = model_with()
    table = model.encoder.embedding.table
    assert model.decoder.embedding.table is table
    assert [name for name in model.parameters.named if "embedding" in name or "output." in name[:7]] == [
        "encoder.embedding.table"
    ]
    features = np.random.default_rng(4).normal(size=(2, 3, 12))
    np.testing.assert_allclose(model.project(Tensor(features)).data, features @ table.data.T, rtol=1e-13)
    np.testing.assert_array_equal(model.projection(), table.data.T)


def test_untied_embeddings_are_three_tables():
    model = model_with(tied_embeddings=False, target_vocabulary=13)
    shapes = {name: p.shape for name, p in model.parameters.named.items() if p.shape[0] in (11, 13) or 13 in p.shape}
    assert shapes == {
        "output.weight": (12, 13),
        "encoder.embedding.table": (11, 12),
        "decoder.embedding.table": (13, 12),
    }
    features = np.random.default_rng(4).normal(size=(2, 3, 12))
    np.testing.assert_allclose(model.project(Tensor(features)).data, features @ model.output.weight.data, rtol=1e-13)
    np.testing.assert_array_equal(model.projection(), model.output.weight.data)


# --- What depends on what


def test_logits_are_those_of_encode_decode_and_project():
    model = model_with(dropout=0.5)
    memory, mask = model.encode(SOURCE)
    assert memory.shape == (3, 6, 12)
    np.testing.assert_array_equal(mask, (SOURCE != PAD)[:, None, None, :])
    np.testing.assert_array_equal(model.project(model.decode(TARGET, memory, mask)).data, logits_of(model))
    dropped = [model(SOURCE, TARGET, np.random.default_rng(seed)).data for seed in (1, 1, 2)]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert far(dropped[0], dropped[2]) > 1e-3 < far(dropped[0], logits_of(model))


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_padding_changes_nothing_on_real_positions(norm):
    """More PAD in source or target, and each sentence alone without any: the same memory and logits."""
    model = model_with(norm=norm)
    logits, pad = logits_of(model), np.full((3, 4), PAD)
    wider = logits_of(model, np.hstack([SOURCE, pad]), np.hstack([TARGET, pad]))
    assert wider.shape == (3, 9, 11)
    assert far(wider[:, :5], logits) < 1e-12
    for row in range(3):
        source, target = (x[row : row + 1, : (x[row] != PAD).sum()] for x in (SOURCE, TARGET))
        assert far(logits_of(model, source, target), logits[row : row + 1, : target.shape[1]]) < 1e-12
        assert far(model.encode(source)[0].data, model.encode(SOURCE)[0].data[row, : source.shape[1]]) < 1e-12


@pytest.mark.parametrize("position", range(5))
def test_a_target_token_touches_its_own_and_later_logits_alone(position):
    model, changed = model_with(), TARGET.copy()
    changed[:, position] = 3
    before, after = logits_of(model), logits_of(model, target=changed)
    np.testing.assert_array_equal(after[:, :position], before[:, :position])
    assert (np.abs(after - before)[0, position:].max(axis=-1) > 1e-6).all()


@pytest.mark.parametrize("position", range(5))
def test_every_source_token_touches_every_logit_of_its_sentence_alone(position):
    model, changed = model_with(), SOURCE.copy()
    changed[0, position] = 3
    moved = np.abs(logits_of(model, changed) - logits_of(model)).max(axis=-1)
    assert (moved[0] > 1e-6).all()
    assert not moved[1:].any()


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_the_order_of_the_source_matters(positions):
    """Without positions the memory of a permuted source would be the permuted memory."""
    model, order = model_with(positions=positions), [2, 0, 1, 4, 3, 5]
    memory = model.encode(SOURCE[:1])[0].data
    permuted = model.encode(SOURCE[:1, order])[0].data
    assert far(permuted, memory[:, order]) > 1e-2
    repeated = logits_of(model, target=np.array([[BEGIN, 4, 4, 4]] * 3))
    assert (np.abs(np.diff(repeated[:, 1:], axis=1)).max(axis=-1) > 1e-3).all()


# --- Replicas and caches


def test_a_replica_computes_the_same_with_gradients_of_its_own():
    model = model_with()
    twin = model.replica()
    np.testing.assert_array_equal(logits_of(twin), logits_of(model))
    cross_entropy(twin(SOURCE, TARGET), targets=NEXT, padding=PAD).backward()
    assert not model.parameters.grad.any()
    cross_entropy(model(SOURCE, TARGET), targets=NEXT, padding=PAD).backward()
    np.testing.assert_array_equal(twin.parameters.grad, model.parameters.grad)
    model.parameters.data *= 0.9
    np.testing.assert_array_equal(logits_of(twin), logits_of(model))
    assert list(twin.parameters.named) == list(model.parameters.named)


def whole_gradient(parts):
    """Return the gradient and the loss of several batches, one after the other, dropping nothing out."""
    model, tokens = model_with(dropout=0.0, attention_dropout=0.0), 2 * BATCH.tokens
    loss = sum(add_gradient(model, part, tokens, 0.1, None) for part in parts)
    return model.parameters.grad, loss


def replicas_gradient(count, step, **options):
    """Return the gradient and the loss of two batches, found by as many replicas."""
    model = model_with(**options)
    with Replicas(
        model, TrainingOptions(steps=1, replicas=count, label_smoothing=0.1), Adam(model.parameters)
    ) as replicas:
        loss = replicas.gradient([BATCH, BATCH], 2 * BATCH.tokens, step)
    return model.parameters.grad, loss


def same_to_rounding(one, other):
    return np.linalg.norm(one[0] - other[0]) < 1e-12 * np.linalg.norm(other[0]) and abs(one[1] - other[1]) < 1e-12


def test_halves_add_up_to_the_whole():
    """Gradients accumulate if each part divides by the tokens of the whole; so do the losses."""
    assert same_to_rounding(whole_gradient([BATCH.share(0, 2), BATCH.share(1, 2)]), whole_gradient([BATCH]))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_any_number_of_replicas_finds_the_same_gradient(count):
    """With more replicas than sentences some have nothing to do."""
    found = replicas_gradient(count, 1, dropout=0.0, attention_dropout=0.0)
    assert same_to_rounding(found, whole_gradient([BATCH, BATCH]))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_replicas_drop_the_same_in_every_run(count):
    """To the last bit for a step of the same number; another number drops other elements."""
    (one, loss), (same, same_loss), (other, _) = (replicas_gradient(count, step) for step in (7, 7, 8))
    np.testing.assert_array_equal(one, same)
    assert loss == same_loss
    assert np.linalg.norm(one - other) > 1e-2 * np.linalg.norm(one)


@pytest.mark.parametrize(("norm", "positions"), [*product(("pre", "post"), ("sinusoidal", "learned"))])
def test_decoding_with_a_cache_is_decoding_at_once(norm, positions):
    """Token by token: the same logits to 1e-12."""
    model = model_with(norm=norm, positions=positions)
    with no_grad():
        memory, mask = model.encode(SOURCE)
        cache = model.new_cache(len(SOURCE))
        steps = [TARGET[:, t : t + 1] for t in range(TARGET.shape[1])]
        parts = [model.project(model.decode(step, memory, mask, cache=cache)).data for step in steps]
    assert len(cache.blocks) == 2
    assert far(np.concatenate(parts, axis=1), logits_of(model)) < 1e-12
