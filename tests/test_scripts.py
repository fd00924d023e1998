"""train.py as a user runs it: what it writes and what it prints; and what all scripts share."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from tqdm import tqdm

from tinytransformer.backend import cupy
from tinytransformer.checkpoint import load_model
from tinytransformer.data import encode_corpus, padding_share, plan_batches, read_lines, read_parallel
from tinytransformer.progress import Progress, Standing
from tinytransformer.shortlist import Shortlist, learn
from tinytransformer.training import SHORTLIST, TrainingOptions, generator_for

ARRAYS = ("model.safetensors", "shortlist.safetensors", "state.safetensors")
FILES = ("config.json", "metrics.jsonl", "tokenizer.model", *ARRAYS)
TEXT = ("--source", "train.en", "--target", "train.de")
TESTED = ("--test-source", "test.en", "--test-target", "test.de")
HELD_OUT = ("--valid-source", "valid.en", "--valid-target", "valid.de", *TESTED)
QUICK = ("--steps", "4", "--valid-every", "2", "--batch-tokens", "400", "--vocab-size", "400", "--beam", "2")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(call):
    """A short training into the folder run: exit status, standard output, standard error."""
    return call("train.py", *TEXT, *HELD_OUT, *QUICK, "--out", "run")


def test_training_writes_a_run(folder, trained):
    """Its files, of which the metrics have a line for each validation, and a model that can be loaded."""
    assert trained[0] == 0
    assert sorted(path.name for path in (folder / "run").iterdir()) == sorted(FILES)
    metrics = [json.loads(line) for line in read_lines(folder / "run" / "metrics.jsonl")]
    assert [row["step"] for row in metrics] == [2, 4]
    assert all(row.keys() >= {"training_loss", "valid_loss", "valid_perplexity", "valid_bleu"} for row in metrics)
    model, tokenizer, config = load_model(folder / "run")
    assert len(tokenizer) == model.config.source_vocabulary == 400
    assert config.training["steps"] == 4


def test_training_reports_on_standard_output_and_its_progress_on_standard_error(folder, trained):
    _, output, errors = trained
    assert [line.startswith("BLEU ") for line in output] == [True] + [False] * (len(output) - 1)
    assert "on test, 20 sentences, beam 2 (nrefs:1|case:mixed|" in output[0]
    for label, file in (("source", "test.en"), ("reference", "test.de")):
        shown = [line.removeprefix(label).strip() for line in output if line.startswith(f"{label} ")]
        assert len(shown) == 5
        assert set(shown) <= set(read_lines(folder / file))
    assert len([line for line in output if line.startswith("model ")]) == 5
    pairs = encode_corpus(load_model(folder / "run")[1], *read_parallel(folder / "train.en", folder / "train.de"), 256)
    plan = plan_batches(pairs.pairs, 400)
    padding = f"{100 * padding_share(pairs.pairs, plan):.1f} % padding"
    words = (
        f"400 subwords, 250 sentence pairs in {len(plan)} batches with {padding}, 4 steps, into run\n",
        "step 2 ",
        "step 4 ",
        "valid bleu",
        "4/4",
        " left, loss ",
        "tokens/s",
    )
    assert [part for part in words if part not in errors] == []


def test_the_shortlist_is_that_of_the_training_text(folder, trained):
    tokenizer = load_model(folder / "run")[1]
    corpus = encode_corpus(tokenizer, *read_parallel(folder / "train.en", folder / "train.de"), 256)
    expected = learn(corpus.pairs, 400, generator_for(1, SHORTLIST))
    found = Shortlist.load(folder / "run", tokenizer)
    assert found.translations.tobytes() == expected.translations.tobytes()
    assert found.frequent.tobytes() == expected.frequent.tobytes()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("earlier", None, "shortlist.safetensors does not exist; train.py writes it, also with --resume"),
        ("half", b"\x10", "shortlist.safetensors: Error"),
        ("changed", b"", "or it belongs to another vocabulary; train.py --resume makes it again"),
    ],
)
def test_a_run_without_its_shortlist_gets_it_when_it_is_resumed(call, folder, trained, name, content, words):
    target = folder / name
    target.mkdir()
    for file in FILES:
        (target / file).write_bytes((folder / "run" / file).read_bytes())
    path, whole = target / "shortlist.safetensors", (target / "shortlist.safetensors").read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content or whole[:-1] + bytes([whole[-1] ^ 1]))
    status, output, errors = call("translate.py", "--model", name, "--shortlist", "Dog.")
    assert (status, output, errors.count("\n")) == (1, [], 1)
    assert words in errors
    assert call("train.py", "--resume", "--out", name)[0] == 0
    for file in set(FILES) - {"metrics.jsonl"}:
        assert (target / file).read_bytes() == (folder / "run" / file).read_bytes()
    assert call("translate.py", "--model", name, "--shortlist", "Dog.")[0] == 0


def test_the_meter_counts_no_time_that_it_is_paused(train_script, monkeypatch):
    seconds = iter([10, 14, 34, 36])  # it begins, is paused, goes on, and is read
    monkeypatch.setattr(train_script, "perf_counter", lambda: next(seconds))
    with tqdm(total=2, file=io.StringIO()) as bar:
        meter = train_script.Meter(bar)
        with meter.paused():
            pass
        meter(Progress(step=1, epoch=1, loss=2.0, learning_rate=0.001, tokens=1200))
        assert bar.postfix == "loss 2.000, rate 1.0e-03, 200 tokens/s, epoch 1"


@pytest.mark.parametrize(("target", "notes"), [("Hund.", 1), ("Da ist ein Hund.", 0)])
def test_a_validation_text_of_which_bleu_says_nothing_is_noted(call, folder, target, notes):
    (folder / "short.en").write_text("Dog.\n" * 2)
    (folder / "short.de").write_text(f"{target}\n" * 2)
    held_out = ("--valid-source", "short.en", "--valid-target", "short.de")
    status, _, errors = call("train.py", *TEXT, *held_out, *QUICK, "--out", f"short{notes}")
    assert status == 0
    assert errors.count("note: no sentence of the validation text has four words, so BLEU says nothing") == notes


def test_the_time_left_does_not_jump_after_a_validation(train_script, monkeypatch):
    clock = 0
    monkeypatch.setattr("tqdm.std.time", lambda: clock)
    with train_script.progress_bar(TrainingOptions(steps=100, batch_tokens=1), Standing()) as bar:
        for step in range(1, 51):
            clock += 1 if step < 50 else 51
            bar.update()
        assert "50/100" in str(bar)
        assert "01:40 left" in str(bar)  # two seconds for each step


def test_the_same_command_gives_the_same_bytes(call, folder, trained):
    """Weights, vocabulary and output; only the tokens per second may differ."""
    status, output, _ = call("train.py", *TEXT, *HELD_OUT, *QUICK, "--out", "again")
    assert (status, output) == trained[:2]
    for name in set(FILES) - {"metrics.jsonl"}:
        assert (folder / "again" / name).read_bytes() == (folder / "run" / name).read_bytes()


def test_a_default_vocabulary_shrinks_with_a_note(call, folder):
    """Without validation and test text there is no BLEU; epochs are passes over the text."""
    options = ("--preset", "tiny", "--epochs", "2", "--batch-tokens", "2500", "--out", "epochs")
    status, output, errors = call("train.py", *TEXT, *options)
    assert (status, output) == (0, [])
    _, tokenizer, config = load_model(folder / "epochs")
    assert f"note: the text is small; it yields {len(tokenizer)} subwords, not the 8000 of preset tiny\n" in errors
    corpus = encode_corpus(tokenizer, *read_parallel(folder / "train.en", folder / "train.de"), 256)
    assert config.training["epochs"] == 2.0
    assert f" {2 * len(plan_batches(corpus.pairs, 2500))} steps, into epochs\n" in errors
    assert "epoch 2" in errors


def test_pairs_that_are_left_out_are_counted(call, folder):
    """Those with an empty side, those that are too long, and no others, whatever the rest holds."""
    odd = ["\0 a\0b", "\u2581 \ue000", "e\u0301\u0301 \U0001f468\u200d\U0001f469", "\u05e9\u05dc", "a\x85b\u2028c"]
    lines = read_lines(folder / "train.en")[:100] + odd + ["", "\x85", "x", "long " * 300, "y" * 100_000]
    others = read_lines(folder / "train.de")[:100] + odd + ["x", "y", "", "z", "z"]
    (folder / "odd.en").write_bytes("\ufeff".encode() + "\r\n".join(lines).encode())
    (folder / "odd.de").write_bytes("\n".join(others).encode() + b"\n")
    for language in ("en", "de"):
        (folder / f"few.{language}").write_text("Dog.\n\n" if language == "en" else "Da ist ein Hund.\n" * 2)
    held_out = ("--valid-source", "few.en", "--valid-target", "few.de")
    status, _, errors = call("train.py", "--source", "odd.en", "--target", "odd.de", *held_out, *QUICK, "--out", "odd")
    assert status == 0
    notes = [line for line in errors.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: left out 3 training pairs with an empty side",
        "note: left out 2 training pairs of 256 subwords and more",
        "note: left out 1 validation pairs with an empty side; BLEU counts them, the loss does not",
    ]
    assert ", 105 sentence pairs in " in errors


OPTIONS = {
    "train.py": (
        "--source --target --valid-source --valid-target --test-source --test-target --vocab-size --max-length --out "
        "--resume --debug --profile --overwrite --average --patience --summary "
        "--preset --norm --positions --activation --untied --dropout --attention-dropout --steps --epochs "
        "--batch-tokens --accumulate --learning-rate --warmup --schedule --label-smoothing --weight-decay --clip "
        "--valid-every --beam --replicas --seed --device --precision"
    ),
    "translate.py": (
        "--model --beam --alpha --n-best --max-length --line-buffered --sample --temperature --top-k --top-p --seed "
        "--shortlist --device SENTENCE"
    ),
    "evaluate.py": "--model --beam --alpha --shortlist --device SOURCE TARGET",
}


@pytest.mark.parametrize("script", OPTIONS)
def test_help_names_every_option(call, script):
    status, output, errors = call(script, "--help")
    assert (status, errors) == (0, "")
    described = output[output.index("") :]  # after the usage
    for option in OPTIONS[script].split():
        assert any(option in line.replace(",", " ").split() for line in described), option


def test_a_run_is_not_overwritten_unasked(call, folder, trained):
    before = contents(folder / "run")
    status, output, errors = call("train.py", *TEXT, *QUICK, "--out", "run", "--seed", "2")
    assert (status, output) == (1, [])
    assert errors == "train.py: error: run already holds a run; --resume it, --overwrite it, or choose another --out\n"
    unequal = ("--source", "train.en", "--target", "short.de")
    assert call("train.py", *unequal, "--out", "run", "--overwrite")[0] == 1  # so nothing is replaced
    assert contents(folder / "run") == before


@pytest.mark.parametrize("name", [*FILES, "step-4.safetensors", "step-00000012.safetensors"])
def test_a_single_file_of_a_run_is_not_overwritten_unasked(train_script, folder, monkeypatch, tmp_path, name):
    """Any file that a run would write; refused before anything is read, and nothing is touched."""
    (tmp_path / name).write_bytes(b"precious")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    before = contents(tmp_path)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *TEXT, *QUICK, "--out", str(tmp_path)])
    monkeypatch.setattr(train_script, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(train_script, "run", lambda options: pytest.fail("the training began"))
    choices = "--resume it, --overwrite it" if name == "config.json" else "--overwrite it"
    with pytest.raises(SystemExit, match=f"^train.py: error: {tmp_path} already holds a run; {choices}, or choose"):
        train_script.main()
    assert contents(tmp_path) == before


STRANGERS = ("other.safetensors", "step-.safetensors", "notes.txt")


@pytest.mark.parametrize("name", STRANGERS)
def test_a_directory_without_a_run_may_be_used(train_script, folder, monkeypatch, tmp_path, name):
    began = []
    (tmp_path / name).touch()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["train.py", *TEXT, *QUICK, "--out", str(tmp_path)])
    monkeypatch.setattr(train_script, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(train_script, "run", lambda options, held: began.append(options))
    train_script.main()
    assert [options.out for options in began] == [tmp_path]


def test_a_run_is_overwritten_when_asked(call, folder, trained):
    """All of the old run goes, and nothing else. A training that fails leaves no old weights by a new vocabulary."""
    target = folder / "replaced"
    target.mkdir()
    for name in FILES:
        (target / name).write_bytes((folder / "run" / name).read_bytes())
    for name in ("step-00000004.safetensors", *STRANGERS):
        (target / name).write_bytes(name.encode())
    options = (*TEXT, *QUICK, "--seed", "2", "--out", "replaced", "--overwrite")
    assert call("train.py", *options)[0] == 0
    assert sorted(path.name for path in target.iterdir()) == sorted([*FILES, *STRANGERS])
    assert all((target / name).read_bytes() == name.encode() for name in STRANGERS)
    assert (target / "model.safetensors").read_bytes() != (folder / "run" / "model.safetensors").read_bytes()
    assert len(read_lines(target / "metrics.jsonl")) == 2

    diverging = ("--learning-rate", "1e30", "--warmup", "1", "--valid-every", "4")
    status, output, errors = call("train.py", *options, *diverging)
    assert (status, output) == (1, [])
    assert errors.rstrip().split("\n")[-1].startswith("train.py: error: step 2: the loss is nan")
    assert not (target / "model.safetensors").exists()


@pytest.mark.skipif(cupy is not None, reason="CuPy is installed")
@pytest.mark.parametrize("script", OPTIONS)
def test_without_cupy_a_gpu_is_refused_in_one_line(call, folder, trained, script):
    arguments = {
        "train.py": (*TEXT, *QUICK, "--out", "gpu"),
        "translate.py": ("--model", "run", "Dog."),
        "evaluate.py": ("--model", "run", "test.en", "test.de"),
    }
    status, output, errors = call(script, *arguments[script], "--device", "cuda")
    assert (status, output) == (1, [])
    assert errors.startswith(f"{script}: error: device 'cuda' needs CuPy, which is not installed; run: pip install ")
    assert errors.count("\n") == 1
    assert not (folder / "gpu").exists()


def test_a_summary_trains_nothing(call, folder):
    """The parts of the model and their total; the directory is not made, and need not be one that could be."""
    status, output, _ = call("train.py", *TEXT, *QUICK, "--out", "train.en/unmade", "--summary")
    assert status == 0
    assert output[-1].split()[0] == "total"
    assert any(line.startswith("decoder.blocks.0.cross_attention.query.weight ") for line in output)
    assert (folder / "train.en").is_file()


def test_the_toy_corpus_is_known_by_any_path(train_script, tmp_path, monkeypatch, capsys):
    """A run that goes on has the path from its record, where links have been followed."""
    (tmp_path / "link").symlink_to(train_script.TOY)
    score = SimpleNamespace(bleu=12.0, bleu_signature="any")
    monkeypatch.setattr(train_script, "evaluate_translation", lambda _, sources, *rest: (score, sources))
    for folder, names in ((train_script.TOY, 2), (tmp_path / "link", 2), (tmp_path, 1)):
        train_script.report_results(SimpleNamespace(source=folder / "train.en", beam=1), None, (["a"], ["b"]))
        assert capsys.readouterr().out.count("BLEU") == names
