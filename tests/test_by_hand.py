"""by_hand.py against the tape: the same loss, the same gradient of every weight, the same weights after the step.

Run with `-s` to see the worst relative difference.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tinytransformer.ops import cross_entropy
from tinytransformer.optim import Adam
from tinytransformer.transformer import PAD, Transformer, TransformerConfig

SCRIPT = Path(__file__).parent.parent / "by_hand.py"
SOURCE = SCRIPT.read_text(encoding="utf-8")
CLOSE = 1e-12  # relative, in the Euclidean norm
RATE = 0.01

# The gradient of a bias on the keys is zero, since softmax does not see it, and what is computed is rounding. There is
# nothing to be relative to; and Adam divides it by eps, so that even the rounding moves the bias by a little.
BLOCKS = {"encoder": ["self"], "decoder": ["self", "cross"]}
ZERO = {f"{side}.blocks.0.{kind}_attention.key.bias" for side, kinds in BLOCKS.items() for kind in kinds}

LAYERS = {"Q": "query", "K": "key", "V": "value", "O": "output", "1": "expand", "2": "contract"}
NAMES = {"E": "table", "gain": "gain", "bias": "bias"}
NAMES |= {f"W_{i}": f"{layer}.weight" for i, layer in LAYERS.items()}
NAMES |= {f"b_{i}": f"{layer}.bias" for i, layer in LAYERS.items()}


def load(text=SOURCE):
    """Run the text of by_hand.py, possibly changed, as a module."""
    module = ModuleType("by_hand")
    exec(compile(text, str(SCRIPT), "exec"), vars(module))
    return module


by_hand = load()


def on_the_tape(part, name):
    """Return what the package calls a weight of by_hand.py."""
    owner = "encoder.embedding" if part == "embedding" else re.sub(r"^(\w+)\.(\w+_)", r"\1.blocks.0.\2", part)
    return f"{owner}.{NAMES[name]}"


def flat(weights):
    """Return the arrays of by_hand.py under their names in the package."""
    return {on_the_tape(part, name): x for part, named in weights.items() for name, x in named.items()}


class Setting:
    """A batch and weights, none of them at 0 or 1, in by_hand.py and on the tape."""

    def __init__(self, width, hidden, vocabulary, source, target):
        random = np.random.default_rng(5)
        self.source, self.target = source, target
        self.weights = by_hand.initial_weights(vocabulary, width, hidden, random)
        for part in self.weights.values():
            for name in part:
                part[name] += random.normal(0, 0.3, part[name].shape)
        config = TransformerConfig(
            vocabulary,
            vocabulary,
            width=width,
            feed_forward_width=hidden,
            heads=by_hand.HEADS,
            encoder_layers=1,
            decoder_layers=1,
            dropout=0.0,
        )
        self.model = Transformer(config, random, dtype=np.float64)
        self.model.parameters.load(flat(self.weights))

    def by_tape(self):
        """Return the loss and the gradient of every weight."""
        read, predict = self.target[:, :-1], self.target[:, 1:]
        self.model.parameters.zero_grad()
        logits = self.model(self.source, read)
        loss = cross_entropy(logits, targets=predict, padding=PAD, label_smoothing=by_hand.SMOOTHING)
        loss.backward()
        return float(loss.data), {name: p.grad.copy() for name, p in self.model.parameters.named.items()}

    def by_hand(self, module=by_hand):
        """Return the loss and the gradient of every weight, in the shape that by_hand.py has them."""
        loss, kept = module.forward(self.weights, self.source, self.target)
        return float(loss), module.backward(self.weights, self.source, self.target, kept)


def two_sentences():
    return Setting(8, 16, len(by_hand.VOCABULARY), by_hand.ids(by_hand.SOURCE), by_hand.ids(by_hand.TARGET))


def random_batch():
    """Four sentences of random tokens, with many repetitions and much padding."""
    random = np.random.default_rng(6)
    source, target = random.integers(4, 11, (4, 7)), random.integers(4, 11, (4, 6))
    for row, (source_length, target_length) in enumerate([(7, 2), (3, 6), (1, 4), (5, 3)]):
        source[row, source_length:] = PAD
        target[row, target_length:] = PAD
    return Setting(12, 20, 11, source, target)


@pytest.fixture(params=[two_sentences, random_batch], ids=lambda make: make.__name__)
def setting(request):
    return request.param()


def worst_difference(ours, theirs):
    """Return the largest |ours - theirs| / |theirs|, with the name; for ZERO, |ours - theirs|."""
    assert set(ours) == set(theirs)
    assert all(ours[name].shape == theirs[name].shape for name in ours)
    return max(
        (np.linalg.norm(ours[name] - theirs[name]) / (1 if name in ZERO else np.linalg.norm(theirs[name])), name)
        for name in ours
    )


def test_the_loss_and_every_gradient_are_those_of_the_tape(setting, record_property):
    (loss, gradients), (tape_loss, tape_gradients) = setting.by_hand(), setting.by_tape()
    worst, name = worst_difference(flat(gradients), tape_gradients)
    record_property("worst_relative_difference", worst)
    print(
        f"\nworst relative difference of a gradient: {worst:.1e}, {name}; of the loss: {abs(loss / tape_loss - 1):.1e}"
    )
    assert loss == pytest.approx(tape_loss, rel=CLOSE)
    assert worst < CLOSE


def test_no_gradient_is_zero_but_that_of_a_bias_on_the_keys(setting):
    """Or the comparison would prove nothing."""
    _, gradients = setting.by_hand()
    sizes = {name: np.linalg.norm(g) for name, g in flat(gradients).items()}
    assert {name for name, size in sizes.items() if size < 1e-3} == ZERO
    assert max(sizes[name] for name in ZERO) < 1e-14


def test_every_weight_after_the_step_is_that_of_the_optimizer(setting, record_property):
    _, gradients = setting.by_hand()
    moments = [by_hand.zeros_like(setting.weights) for _ in "mv"]
    by_hand.adam(setting.weights, gradients, *moments, t=1, rate=RATE)
    setting.by_tape()
    Adam(setting.model.parameters).update(RATE)

    ours, theirs = flat(setting.weights), {name: p.data for name, p in setting.model.parameters.named.items()}
    for name in ZERO:
        np.testing.assert_allclose(ours.pop(name), theirs.pop(name), rtol=0, atol=RATE * 1e-6)
    worst, name = worst_difference(ours, theirs)
    record_property("worst_relative_difference", worst)
    print(f"\nworst relative difference of a weight after the step: {worst:.1e}, {name}")
    assert worst < CLOSE


def test_adam_goes_on_as_the_optimizer_does():
    """The moments and their corrections only show at the second step."""
    setting, random = two_sentences(), np.random.default_rng(7)
    optimizer, moments = Adam(setting.model.parameters), [by_hand.zeros_like(setting.weights) for _ in "mv"]
    for t in (1, 2, 3):
        gradients = {
            part: {name: random.normal(size=x.shape) for name, x in named.items()}
            for part, named in setting.weights.items()
        }
        for name, g in flat(gradients).items():
            setting.model.parameters.named[name].grad[...] = g
        by_hand.adam(setting.weights, gradients, *moments, t=t, rate=RATE)
        optimizer.update(RATE)
    theirs = {name: p.data for name, p in setting.model.parameters.named.items()}
    assert worst_difference(flat(setting.weights), theirs)[0] < CLOSE


# One term left out or spoiled, in each line of the way back and in what of the way forward no shape would reveal.
BREAKAGES = [
    ("dX = dY @ W.T  #", "dX = dY @ abs(W.T)  #"),
    ("rows_dY.sum(0)", "rows_dY[0]"),
    ("(dX_hat - along_mean - along_spread)", "(dX_hat - along_spread)"),
    ("(dX_hat - along_mean - along_spread)", "(dX_hat - along_mean)"),
    ("along_spread) / s", "along_spread)"),
    ('dX_hat = dY * w["gain"]', "dX_hat = dY"),
    ("(dY * X_hat).sum((0, 1))", "dY.sum((0, 1))"),
    ("dbias = dY.sum((0, 1))", "dbias = dY[:, 0].sum(0)"),
    ("dS = A * (dA - (dA * A).sum(-1, keepdims=True))", "dS = A * dA"),
    ("dS @ K / np.sqrt(Q.shape[-1])", "dS @ K"),
    ("dS.swapaxes(-1, -2) @ Q / np.sqrt(Q.shape[-1])", "dS.swapaxes(-1, -2) @ Q"),
    ("dM_K + dM_V, ", "dM_K, "),
    ("dM_K + dM_V, ", "dM_V, "),
    ("dV = A.swapaxes(-1, -2) @ dheads", "dV = dheads.sum(2, keepdims=True) + 0 * V"),
    ("dU = dR * (U > 0)", "dU = dR"),
    ("dlogits = share * (np.exp(log_P) - wanted)", "dlogits = share * np.exp(log_P)"),
    ("dlogits = share * (np.exp(log_P) - wanted)", "dlogits = share.mean() * (np.exp(log_P) - wanted)"),
    ("dZ2 = dZ3 + dZ", "dZ2 = dZ"),
    ("dZ2 = dZ3 + dZ", "dZ2 = dZ3"),
    ("dZ1 = dZ2 + dZ", "dZ1 = dZ2"),
    ("dZ0 = dZ1 + dZ", "dZ0 = dZ"),
    ("dX1 = dX2 + dX", "dX1 = dX2"),
    ("dX0 = dX1 + dX", "dX0 = dX"),
    ("dN = dN_Q + dN_KV", "dN = dN_Q"),
    ("dN = dN_Q + dN_KV", "dN = dN_KV"),
    ("np.add.at(dE, source, np.sqrt(D) * dX0)", "pass"),
    ("np.add.at(dE, source, np.sqrt(D) * dX0)", "dE[source] += np.sqrt(D) * dX0"),
    ("np.add.at(dE, target[:, :-1], np.sqrt(D) * dZ0)", "np.add.at(dE, target[:, :-1], dZ0)"),
    ("np.where(visible, S, -np.inf)", "np.where(True, S, -np.inf)"),
    ("+ SMOOTHING / V", ""),
    ("/ (predict != PAD).sum()", "/ predict.size"),
    ("+ positions(read.shape[1], D)", ""),
    ("np.stack([np.sin(angle), np.cos(angle)], -1)", "np.stack([np.cos(angle), np.sin(angle)], -1)"),
]


@pytest.mark.parametrize(("term", "instead"), BREAKAGES)
def test_a_term_left_out_is_found(term, instead):
    assert term in SOURCE
    setting = random_batch()
    loss, gradients = setting.by_hand(load(SOURCE.replace(term, instead)))
    tape_loss, tape_gradients = setting.by_tape()
    assert abs(loss / tape_loss - 1) > CLOSE or worst_difference(flat(gradients), tape_gradients)[0] > CLOSE


def test_it_imports_nothing_but_numpy():
    imported = set()
    for node in ast.walk(ast.parse(SOURCE)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported == {"__future__", "numpy", "typing"}


def test_the_script_names_every_gradient_and_the_loss_falls():
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    for part, named in by_hand.initial_weights(5, 4, 8, np.random.default_rng(0)).items():
        (line,) = re.findall(rf"^  {re.escape(part)}  +(.*)$", run.stdout, re.MULTILINE)
        assert re.findall(r"d(\w+) \d+\.\d{3}", line) == list(named)
    before, after = re.findall(r"\d\.\d{4}", run.stdout.splitlines()[-1])
    assert float(after) < float(before)
