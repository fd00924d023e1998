"""PyTorch in float64 with the same weights: layers and the whole model, outputs and all gradients, to 1e-10.

PyTorch's own modules are called with tensors that are cut and turned from leaves in our layout, so PyTorch's gradients
arrive in our layout too, by our names. Run with `-s` to see the worst relative difference of every comparison.
"""

import math

import numpy as np
import pytest
from ops.cases import relative_difference

from tinytransformer.layers import Block, MultiHeadAttention, sinusoidal_table
from tinytransformer.ops import cross_entropy
from tinytransformer.tensor import Tensor
from tinytransformer.transformer import BEGIN, END, PAD, Transformer, TransformerConfig

torch = pytest.importorskip("torch")
F = torch.nn.functional

D, HIDDEN, H, V = 12, 20, 3, 11
ACTIVATIONS = {"relu": F.relu, "gelu": lambda x: F.gelu(x, approximate="tanh")}
SOURCE = np.array([[4, 5, 6, 7, 8, END], [9, 4, END, PAD, PAD, PAD], [10, 5, 7, 5, END, PAD]])
TARGET = np.array([[BEGIN, 5, 6, 4, 9, END], [BEGIN, 7, END, PAD, PAD, PAD], [BEGIN, 4, 8, 10, END, PAD]])
SEEN = (SOURCE != PAD)[:, None, None, :]

# The names of one block, ours and PyTorch's.
ENCODER_BLOCK = {
    "self_attention": "self_attn",
    "self_attention_norm": "norm1",
    "feed_forward.expand": "linear1",
    "feed_forward.contract": "linear2",
    "feed_forward_norm": "norm2",
}
DECODER_BLOCK = {
    **ENCODER_BLOCK,
    "cross_attention": "multihead_attn",
    "cross_attention_norm": "norm2",
    "feed_forward_norm": "norm3",
}
MIRRORS = {"self_attention", "cross_attention"}


def random_parameters(module):
    """Put normal numbers into all parameters; return PyTorch leaves of the same values, by our names."""
    random, leaves = np.random.default_rng(5), {}
    for name, parameter in module.named_parameters():
        parameter.data[...] = random.normal(0, 0.4, parameter.shape) + name.endswith("gain")
        leaves[name] = torch.tensor(parameter.data, requires_grad=True)
    return leaves


def attention_weights(leaves, ours, theirs):
    """Return the arguments of nn.MultiheadAttention: three projections in one matrix, everything transposed."""
    three = [f"{ours}{part}" for part in ("query", "key", "value")]
    return {
        f"{theirs}in_proj_weight": torch.cat([leaves[f"{part}.weight"].T for part in three]),
        f"{theirs}in_proj_bias": torch.cat([leaves[f"{part}.bias"] for part in three]),
        f"{theirs}out_proj.weight": leaves[f"{ours}output.weight"].T,
        f"{theirs}out_proj.bias": leaves[f"{ours}output.bias"],
    }


def block_weights(leaves, names, ours="", theirs=""):
    """Return the arguments of nn.TransformerEncoderLayer or nn.TransformerDecoderLayer."""
    weights = {}
    for our, their in names.items():
        if our in MIRRORS:
            weights |= attention_weights(leaves, f"{ours}{our}.", f"{theirs}{their}.")
            continue
        norm = our.endswith("norm")
        weight = leaves[f"{ours}{our}.gain"] if norm else leaves[f"{ours}{our}.weight"].T
        weights |= {f"{theirs}{their}.weight": weight, f"{theirs}{their}.bias": leaves[f"{ours}{our}.bias"]}
    return weights


def compare(label, pairs):
    """Hold every pair (name, ours, PyTorch's) to 1e-10; gradients that are zero by nature to 1e-11 absolutely."""
    worst = {}
    for name, ours, theirs in pairs:
        theirs = theirs.detach().numpy()
        if name.endswith("key.bias"):
            assert max(np.abs(ours).max(), np.abs(theirs).max()) < 1e-11
        else:
            assert np.linalg.norm(theirs) > 1e-6, name
            worst[name] = relative_difference(ours, theirs)
    name = max(worst, key=worst.get)
    print(f"\n{label:44} {len(worst):3} arrays, worst relative difference {worst[name]:.1e} ({name})", end="")
    assert worst[name] < 1e-10, name


def compare_call(label, module, leaves, inputs, ours, theirs):
    """Compare two functions of the same inputs: outputs, and under a random dy all gradients."""
    tensors = [Tensor(x, requires_grad=True) for x in inputs]
    their_inputs = [torch.tensor(x, requires_grad=True) for x in inputs]
    y, their_y = ours(*tensors), theirs(*their_inputs)
    dy = np.random.default_rng(6).normal(size=y.shape)
    y.backward(dy)
    their_y.backward(torch.from_numpy(dy))
    pairs = [("output", y.data, their_y)]
    pairs += [(f"input {i}", x.grad, z.grad) for i, (x, z) in enumerate(zip(tensors, their_inputs, strict=True))]
    pairs += [(name, p.grad, leaves[name].grad) for name, p in module.named_parameters()]
    compare(label, pairs)


def inputs(*lengths):
    random = np.random.default_rng(7)
    return [random.normal(size=(3, length, D)) for length in lengths]


def future(length):
    """Return PyTorch's causal mask: True where a key must not be seen."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


@pytest.mark.parametrize(
    ("cross", "masking"), [(False, "none"), (False, "padding"), (False, "causal"), (True, "none"), (True, "padding")]
)
def test_multi_head_attention(cross, masking):
    layer = MultiHeadAttention(D, H, 0.0, np.random.default_rng(1))
    leaves = random_parameters(layer)
    module = torch.nn.MultiheadAttention(D, H, batch_first=True, dtype=torch.float64)
    options = {"need_weights": False}
    if masking == "padding":
        options["key_padding_mask"] = torch.from_numpy(SOURCE == PAD)
    if masking == "causal":
        options["attn_mask"] = future(6)

    def theirs(x, memory=None):
        memory = x if memory is None else memory
        return torch.func.functional_call(
            module, attention_weights(leaves, "", ""), (x, memory, memory), options, strict=True
        )[0]

    def ours(x, memory=None):
        return layer(x, memory, mask=SEEN if masking == "padding" else None, causal=masking == "causal")

    label = f"attention, {'cross' if cross else 'self'}, mask {masking}"
    compare_call(label, layer, leaves, inputs(*([4, 6] if cross else [6])), ours, theirs)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("pre_norm", [True, False], ids=["pre", "post"])
@pytest.mark.parametrize("cross", [False, True], ids=["encoder", "decoder"])
def test_blocks(cross, pre_norm, activation):
    """An encoder block over padded sources; a decoder block, causal, over a padded memory."""
    block = Block(
        D, HIDDEN, H, np.random.default_rng(1), cross_attention=cross, pre_norm=pre_norm, activation=activation
    )
    leaves = random_parameters(block)
    kind = torch.nn.TransformerDecoderLayer if cross else torch.nn.TransformerEncoderLayer
    options = {"activation": ACTIVATIONS[activation], "norm_first": pre_norm, "batch_first": True}
    module = kind(D, H, HIDDEN, dropout=0.0, dtype=torch.float64, **options)
    weights = block_weights(leaves, DECODER_BLOCK if cross else ENCODER_BLOCK)
    padding = torch.from_numpy(SOURCE == PAD)

    def ours(x, memory=None):
        if memory is None:
            return block(x, mask=SEEN)
        return block(x, memory, memory_mask=SEEN, causal=True)

    def theirs(x, memory=None):
        if memory is None:
            return torch.func.functional_call(module, weights, (x, None, padding), strict=True)
        masks = {"tgt_mask": future(x.shape[1]), "memory_key_padding_mask": padding}
        return torch.func.functional_call(module, weights, (x, memory), masks, strict=True)

    label = f"{'decoder' if cross else 'encoder'} block, {'pre' if pre_norm else 'post'}-norm, {activation}"
    compare_call(label, block, leaves, inputs(*([5, 6] if cross else [6])), ours, theirs)


def their_logits(config, leaves, source, target):
    """Return the logits of nn.Transformer between PyTorch embeddings and an output projection."""
    module = torch.nn.Transformer(
        config.width,
        config.heads,
        config.encoder_layers,
        config.decoder_layers,
        config.feed_forward_width,
        dropout=0.0,
        activation=ACTIVATIONS[config.activation],
        norm_first=config.norm == "pre",
        batch_first=True,
        dtype=torch.float64,
    )
    weights, embedded = {}, []
    for stack, blocks, names, ids in (
        ("encoder", config.encoder_layers, ENCODER_BLOCK, source),
        ("decoder", config.decoder_layers, DECODER_BLOCK, target),
    ):
        for i in range(blocks):
            weights |= block_weights(leaves, names, f"{stack}.blocks.{i}.", f"{stack}.layers.{i}.")
        if config.norm == "pre":
            weights[f"{stack}.norm.weight"] = leaves[f"{stack}.norm.gain"]
            weights[f"{stack}.norm.bias"] = leaves[f"{stack}.norm.bias"]
        else:
            getattr(module, stack).norm = None  # PyTorch puts a final norm after post-norm blocks too
        table = leaves.get(f"{stack}.embedding.table", leaves["encoder.embedding.table"])
        places = leaves.get(f"{stack}.positions.table", torch.from_numpy(sinusoidal_table(50, D)))
        embedded.append(F.embedding(ids, table) * math.sqrt(D) + places[: ids.shape[1]])
    masks = {
        "tgt_mask": future(target.shape[1]),
        "src_key_padding_mask": source == PAD,
        "memory_key_padding_mask": source == PAD,
    }
    features = torch.func.functional_call(module, weights, tuple(embedded), masks, strict=True)
    return features @ leaves.get("output.weight", leaves["encoder.embedding.table"].T)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # of no concern in training
@pytest.mark.parametrize(
    ("norm", "activation", "positions", "tied"),
    [
        ("pre", "relu", "sinusoidal", True),
        ("pre", "gelu", "learned", False),
        ("post", "relu", "sinusoidal", True),
        ("post", "gelu", "learned", True),
        ("post", "gelu", "sinusoidal", False),
    ],
)
def test_the_whole_model(norm, activation, positions, tied):
    """Logits, loss with label smoothing and padding, and the gradient of every parameter."""
    config = TransformerConfig(
        source_vocabulary=V,
        target_vocabulary=V if tied else V + 2,
        tied_embeddings=tied,
        positions=positions,
        max_length=9,
        width=D,
        feed_forward_width=HIDDEN,
        heads=H,
        encoder_layers=2,
        decoder_layers=3,
        norm=norm,
        activation=activation,
    )
    model = Transformer(config, np.random.default_rng(1), dtype=np.float64)
    leaves = random_parameters(model)
    read, predicted = TARGET[:, :-1], TARGET[:, 1:]
    logits = model(SOURCE, read)
    loss = cross_entropy(logits, targets=predicted, padding=PAD, label_smoothing=0.1)
    theirs = their_logits(config, leaves, torch.from_numpy(SOURCE), torch.from_numpy(read))
    their_loss = F.cross_entropy(
        theirs.flatten(0, 1), torch.from_numpy(predicted).flatten(), ignore_index=PAD, label_smoothing=0.1
    )
    loss.backward()
    their_loss.backward()
    pairs = [("logits", logits.data, theirs), ("loss", loss.data, their_loss)]
    pairs += [(name, p.grad, leaves[name].grad) for name, p in model.named_parameters()]
    compare(f"model, {norm}-norm, {activation}, {positions}, {'tied' if tied else 'untied'}", pairs)
