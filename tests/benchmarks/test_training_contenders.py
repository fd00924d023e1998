"""The same model and the same step, by the product's own loop and in PyTorch; and the command that compares them."""

import json
import math
import sys

import numpy as np
import pytest

from benchmarks import train as command
from benchmarks import training
from benchmarks.processes import MeasurementError
from benchmarks.sizes import CLIP, LABEL_SMOOTHING
from tinytransformer.data import batches
from tinytransformer.ops import cross_entropy
from tinytransformer.transformer import PAD, Transformer

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor")  # of no concern in training


@pytest.fixture(autouse=True)
def _memory_as_it_is(monkeypatch):
    """The tests share one process, whose memory is not to be changed."""
    monkeypatch.setattr(training, "keep_freed_memory", lambda: None)


@pytest.mark.parametrize("contender", ["ours", "floor", "floor-in-cache", "pytorch", "pytorch-same-dropout"])
def test_every_contender_is_measured(size, new_clock, contender):
    if contender.startswith("pytorch"):
        pytest.importorskip("torch")
    result = training.measure_training(contender, size, new_clock)
    assert result.pop("seconds") > 0
    if contender.startswith("floor"):
        assert list(result) == ["operations_per_second"]
    else:
        assert list(result) == ["peak_memory", "libraries"]
        assert result["peak_memory"] >= result["libraries"] > 10e6


def test_ours_is_the_loop_of_the_product(size, new_clock, monkeypatch):
    """With as many replicas as the size asks for, label smoothing and clipping, on full batches."""
    called = []
    train = training.train

    def spy(model, corpus, options, **callbacks):
        called.append(options)
        before = model.parameters.data.copy()
        train(model, corpus, options, **callbacks)
        assert not np.array_equal(model.parameters.data, before)

    monkeypatch.setattr(training, "train", spy)
    clock = new_clock()
    training.ours(size, clock)
    assert len(clock.ends) == 3
    options = called[0]
    assert (options.replicas, options.batch_tokens) == (2, size.batch_tokens)
    assert (options.label_smoothing, options.clip) == (LABEL_SMOOTHING, CLIP)


class TestPyTorch:
    """What stands in benchmarks/pytorch_training.py."""

    @pytest.fixture
    def make(self, size):
        """Return a function that makes the PyTorch model with the weights of ours; and ours."""
        torch = pytest.importorskip("torch")
        from test_parity_model import DECODER_BLOCK, ENCODER_BLOCK, block_weights

        from benchmarks.pytorch_training import Model

        ours = Transformer(size.config(), np.random.default_rng(3))
        leaves = {name: torch.from_numpy(parameter.data) for name, parameter in ours.named_parameters()}
        weights = {"table": leaves["encoder.embedding.table"]}
        for stack, names in (("encoder", ENCODER_BLOCK), ("decoder", DECODER_BLOCK)):
            for i in range(size.layers):
                weights |= block_weights(leaves, names, f"{stack}.blocks.{i}.", f"transformer.{stack}.layers.{i}.")
            weights[f"transformer.{stack}.norm.weight"] = leaves[f"{stack}.norm.gain"]
            weights[f"transformer.{stack}.norm.bias"] = leaves[f"{stack}.norm.bias"]

        def run(same_dropout):
            theirs = Model(size, same_dropout=same_dropout)
            missing = theirs.load_state_dict(weights, strict=False)
            assert (missing.missing_keys, missing.unexpected_keys) == (["positions", "future"], [])
            return theirs

        return run, ours

    @pytest.fixture
    def batch(self, size):
        """One batch, with padding on both sides."""
        found = next(batches(size.corpus(1).pairs, size.batch_tokens))
        found.source[0, -2:] = PAD
        found.target[1, -2:] = PAD
        return found

    def test_without_dropout_the_loss_is_ours(self, make, batch):
        torch = pytest.importorskip("torch")
        run, ours = make
        logits = ours(batch.source, batch.target[:, :-1])
        loss = cross_entropy(logits, targets=batch.target[:, 1:], padding=PAD, label_smoothing=LABEL_SMOOTHING)
        theirs = run(False).eval()(torch.from_numpy(batch.source), torch.from_numpy(batch.target))
        assert theirs.item() == pytest.approx(float(loss.data), rel=1e-5)

    @pytest.mark.parametrize("same_dropout", [True, False])
    def test_the_same_dropout_leaves_alone_what_ours_does(self, make, batch, same_dropout):
        """With dropout off in the places that both have, what is left is none, or that of PyTorch alone."""
        torch = pytest.importorskip("torch")
        model = make[0](same_dropout)
        model.dropout.p = 0.0
        for name, module in model.named_modules():
            if name.split(".")[-1] in ("dropout1", "dropout2", "dropout3"):
                assert module.p == 0.1
                module.p = 0.0
        ids = torch.from_numpy(batch.source), torch.from_numpy(batch.target)
        training_loss, loss = model.train()(*ids).item(), model.eval()(*ids).item()
        assert (training_loss == pytest.approx(loss, rel=1e-6)) == same_dropout

    def test_it_trains_with_fused_adam_and_clipping(self, size, new_clock, monkeypatch):
        torch = pytest.importorskip("torch")
        from benchmarks import pytorch_training

        adam, clip, seen = torch.optim.Adam, torch.nn.utils.clip_grad_norm_, []
        monkeypatch.setattr(torch.optim, "Adam", lambda *args, **kwargs: seen.append(kwargs) or adam(*args, **kwargs))
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda p, limit: seen.append(limit) or clip(p, limit))
        clock = new_clock()
        pytorch_training.train(size, clock)
        assert seen == [{"fused": True}, CLIP, CLIP, CLIP]
        assert len(clock.ends) == 3


def test_a_contender_prints_one_line_of_json_or_why_not(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training", "pytorch-compiled", "toy"])
    monkeypatch.setattr(training, "measure_training", lambda contender, size: {"seconds": 0.5})
    training.main()
    assert json.loads(capsys.readouterr().out) == {"seconds": 0.5}

    def fail(contender, size):
        raise RuntimeError("no working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1 for more")

    monkeypatch.setattr(training, "measure_training", fail)
    with pytest.raises(SystemExit) as caught:
        training.main()
    assert caught.value.code == "no working C++ compiler found"


@pytest.fixture
def measured(monkeypatch, size):
    """Replace measuring: ours takes 2 s, PyTorch 5 s, the floor 1 s, and compiling fails. Return the calls."""
    calls = []

    def fake(module, contender, name, environment=None):
        calls.append((module, contender, name, environment))
        if contender == "pytorch-compiled":
            raise MeasurementError("InvalidCxxCompiler: no working C++ compiler found")
        seconds = {"ours": 2.0, "floor": 1.0, "floor-in-cache": 0.5}.get(contender, 5.0)
        if contender.startswith("floor"):
            return {"seconds": seconds, "operations_per_second": 170e9}
        return {"seconds": seconds, "peak_memory": 3e8, "libraries": 1e8}

    monkeypatch.setattr(command, "measure", fake)
    monkeypatch.setattr(command, "require_torch", lambda script: None)
    return calls


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks.train", *arguments])
    command.main()


def test_the_command_prints_a_row_for_each_contender(measured, monkeypatch, capsys):
    run_command(monkeypatch, "--sizes", "toy", "tiny", "--turns", "2", "--compile")
    output, errors = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.split("\n") if line.startswith("|")]
    assert rows[0] == list(command.HEAD)
    assert [row[0] for row in rows[2:]] == ["toy"] * 6 + ["tiny"] * 6
    assert rows[2] == ["toy", "tinytransformer, 2 replicas", "2000.0", "1.00 (1.00 - 1.00)", "300", "100"]
    assert rows[3] == ["toy", "matrix products alone (170 GFLOP/s)", "1000.0", "0.50 (0.50 - 0.50)", "", ""]
    assert rows[4] == ["toy", "the same, from the cache (170 GFLOP/s)", "500.0", "0.25 (0.25 - 0.25)", "", ""]
    assert rows[5] == ["toy", "PyTorch as it comes", "5000.0", "2.50 (2.50 - 2.50)", "300", "100"]
    assert rows[8][1] == "tinytransformer, 2 replicas"
    assert "left out PyTorch, torch.compile: InvalidCxxCompiler" in errors


def test_only_the_warm_contenders_have_a_warm_allocator(measured, monkeypatch, capsys):
    run_command(monkeypatch, "--sizes", "toy", "--turns", "1")
    assert [call[1:] for call in measured] == [
        ("ours", "toy", None),
        ("floor", "toy", None),
        ("floor-in-cache", "toy", None),
        ("pytorch", "toy", None),
        ("pytorch", "toy", command.WARM),
        ("pytorch-same-dropout", "toy", command.WARM),
    ]
    assert all(math.log2(int(value)).is_integer() for value in command.WARM.values())


def test_an_unknown_size_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, "--sizes", "huge")
    assert caught.value.code == 2
    assert "huge" in capsys.readouterr().err.splitlines()[-1]


def test_if_ours_fails_the_command_says_why(measured, monkeypatch):
    monkeypatch.setattr(command, "measure", lambda *a, **k: (_ for _ in ()).throw(MeasurementError("out of memory")))
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, "--sizes", "toy")
    assert caught.value.code == "benchmarks.train: error: out of memory"
