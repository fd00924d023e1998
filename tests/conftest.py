"""What test modules share: text, a tokenizer, a model that has learned nothing, the scripts, and real corpora."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import kernels  # noqa: F401  before NumPy

# isort: split
import numpy as np
import pytest
from kernel_stand_in import COMPILER, StandInWithKernels, drop_as_a_gpu
from scripts import ROOT, load_script, write_run

from tinytransformer import backend
from tinytransformer.checkpoint import save_state
from tinytransformer.data import Corpus, read_lines
from tinytransformer.optim import Adam
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.transformer import Transformer, TransformerConfig

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # in the background, where what is started ignores Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)

TOY = ROOT / "data" / "toy"
SMALL = {"width": 8, "feed_forward_width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 2}


@pytest.fixture(scope="session")
def toy_text():
    """The first 300 sentence pairs of the toy corpus: sources, targets."""
    return read_lines(TOY / "train.en")[:300], read_lines(TOY / "train.de")[:300]


@pytest.fixture(scope="session")
def tokenizer(toy_text):
    """A vocabulary of 400 pieces over the toy text."""
    return Tokenizer.train([*toy_text[0], *toy_text[1]], 400)


@pytest.fixture(scope="session")
def make_model():
    """Return a function that makes a small model; its random weights are large, so that it has clear preferences."""

    def make(vocabulary, *, seed=0, dtype=np.float64, scale=2.0, device="cpu", **changes):
        config = TransformerConfig(vocabulary, vocabulary, **{"tied_embeddings": False, **SMALL, **changes})
        model = Transformer(config, np.random.default_rng(seed), dtype=dtype, device=device)
        model.parameters.data *= scale
        return model

    return make


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in for CuPy, so that device "cuda" can be asked for; the CPU then drops what the kernels drop."""
    if COMPILER is None:
        pytest.skip("needs g++, which compiles the kernels for this machine's processor")
    stand_in = StandInWithKernels()
    monkeypatch.setattr(backend, "cupy", stand_in)
    drop_as_a_gpu(monkeypatch)
    return stand_in


@pytest.fixture(scope="session")
def corpus():
    """Fifty sentences of tokens from 4 to 11 that say the same on both sides."""
    random = np.random.default_rng(0)
    lines = [random.integers(4, 12, size).tolist() for size in random.integers(2, 6, 50)]
    return Corpus([(line, line) for line in lines], 0, 0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, toy_text):
    """A folder with a small corpus, and files in which something is wrong."""
    folder = tmp_path_factory.mktemp("scripts")
    for language, lines in zip(("en", "de"), toy_text, strict=True):
        for split, part in (("train", lines[:250]), ("valid", lines[250:265]), ("test", lines[265:285])):
            (folder / f"{split}.{language}").write_bytes("".join(f"{line}\n" for line in part).encode())
    (folder / "short.de").write_bytes(b"Der Hund.\nDie Katze.\n")
    (folder / "latin.de").write_bytes("Der Hund.\nDie Tür.\n".encode("latin-1"))
    (folder / "empty.en").touch()
    (folder / "empty.de").touch()
    return folder


@pytest.fixture(scope="session")
def call(folder):
    """Return a function that runs a script in `folder`: exit status, lines of standard output, standard error."""

    def run(script, *arguments, stdin=b""):
        command = [sys.executable, str(ROOT / script), *arguments]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "200"}
        done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, timeout=300, env=environment)
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        return done.returncode, done.stdout.decode().split("\n")[:-1], done.stderr.decode()

    return run


@pytest.fixture(scope="session")
def train_script():
    """train.py as a module, so that a test can look at its parts, or put others in their place."""
    return load_script("train.py")


@pytest.fixture(scope="session")
def corpora():
    """The folder of real corpora that TINYTRANSFORMER_CORPORA names."""
    if "TINYTRANSFORMER_CORPORA" not in os.environ:
        pytest.skip("TINYTRANSFORMER_CORPORA names no folder of real corpora")
    return Path(os.environ["TINYTRANSFORMER_CORPORA"])


@pytest.fixture(scope="session")
def multi30k(corpora):
    """The training text of Multi30k, German and English, and a vocabulary of 8,000 pieces over both."""
    texts = [read_lines(corpora / "multi30k" / f"train.{language}") for language in ("en", "de")]
    return *texts, Tokenizer.train([*texts[0], *texts[1]], 8000)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, make_model, tokenizer):
    """A run with its state: its directory, the contents of its files, and what they hold."""
    directory = tmp_path_factory.mktemp("hostile") / "run"
    model = make_model(len(tokenizer), dtype=np.float32, scale=1.0)
    write_run(directory, model, tokenizer)
    optimizer = Adam(model.parameters)
    optimizer.m[...], optimizer.v[...] = 0.5, np.linspace(0, 1, optimizer.v.size)
    counters = {"step": 7, "loss_sum": 0.3, "token_sum": 1234, "best": -np.inf, "since": 3}
    save_state(directory, optimizer, counters)
    contents = {path.name: path.read_bytes() for path in directory.iterdir()}
    return SimpleNamespace(directory=directory, model=model, optimizer=optimizer, counters=counters, contents=contents)


@pytest.fixture
def hostile_run(whole_run):
    """The same, whole again after each test."""
    yield whole_run
    for name, content in whole_run.contents.items():
        (whole_run.directory / name).write_bytes(content)
