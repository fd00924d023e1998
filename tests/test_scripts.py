"""train.py and translate.py as a user runs them: what they write, what they print, and what they refuse."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinytransformer.backend import cupy
from tinytransformer.checkpoint import load_model
from tinytransformer.data import encode_corpus, plan_batches, read_lines, read_parallel

ROOT = Path(__file__).parent.parent
FILES = ("config.json", "metrics.jsonl", "model.safetensors", "state.safetensors", "tokenizer.model")
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
    """Four files, of which the metrics have a line for each validation, and a model that can be loaded."""
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
    words = (
        "250 sentence pairs, 4 steps, into run",
        "step 2 ",
        "step 4 ",
        "valid bleu",
        "4/4",
        "learning rate",
        "tokens/s",
    )
    assert [part for part in words if part not in errors] == []


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


OPTIONS = {
    "train.py": (
        "--source --target --valid-source --valid-target --test-source --test-target --vocab-size --max-length --out "
        "--resume --overwrite --average --patience "
        "--preset --norm --positions --activation --untied --dropout --attention-dropout --steps --epochs "
        "--batch-tokens --accumulate --learning-rate --warmup --schedule --label-smoothing --weight-decay --clip "
        "--valid-every --beam --replicas --seed --device"
    ),
    "translate.py": "--model --beam --device SENTENCE",
}


@pytest.mark.parametrize("script", OPTIONS)
def test_help_names_every_option(call, script):
    status, output, errors = call(script, "--help")
    assert (status, errors) == (0, "")
    described = output[output.index("") :]  # after the usage
    for option in OPTIONS[script].split():
        assert any(option in line.replace(",", " ").split() for line in described), option


SENTENCES = ["The old man sees the dog.", "", "Is she ill?"]


def test_sentences_and_lines_are_translated_alike(call, trained):
    """One line for each, on the command line or from standard input, in order; an empty one for an empty one."""
    arguments = call("translate.py", "--model", "run", *SENTENCES)
    assert (arguments[0], len(arguments[1]), arguments[1][1], arguments[2]) == (0, 3, "", "")
    assert any(arguments[1])
    for text in ("\n".join(SENTENCES) + "\n", "\r\n".join(SENTENCES)):
        assert call("translate.py", "--model", "run", stdin=text.encode()) == arguments


def test_a_byte_order_mark_is_no_part_of_the_first_line(call, trained):
    """As in training files."""
    text = "\n".join(SENTENCES).encode()
    plain, marked = (call("translate.py", "--model", "run", stdin=mark + text) for mark in (b"", b"\xef\xbb\xbf"))
    assert plain == marked


@pytest.mark.parametrize("text", ["", "a\n\n\n", "a\u2028b\x85c\x0bd\x0ce\n", "a\rb\rc\n", "a" * 300 + "\nb"])
def test_as_many_lines_come_out_as_went_in(call, trained, text):
    """Lines end at newlines alone, as in training."""
    status, output, errors = call("translate.py", "--model", "run", "--beam", "1", stdin=text.encode())
    assert (status, errors) == (0, "")
    assert len(output) == len(text.removesuffix("\n").split("\n")) * bool(text)


def test_input_that_is_not_utf8_is_named_and_no_line_is_lost(call, trained):
    """Beyond the lines that are read at once, too: their numbers go on."""
    lines = [b"Dog."] * 1100
    lines[1] = lines[1050] = b"T\xfcr."
    status, output, errors = call("translate.py", "--model", "run", "--beam", "1", stdin=b"\n".join(lines))
    assert (status, len(output)) == (0, 1100)
    warning = "translate.py: warning: line {} is not UTF-8; bytes were replaced"
    assert errors.splitlines() == [warning.format(2), warning.format(1051)]
    assert output[1] == output[1050] != output[0] == output[1099]


def test_a_sentence_that_is_not_utf8_is_mentioned_in_one_line(call, trained):
    _, _, errors = call("translate.py", "--model", "run", "--beam", "1", os.fsdecode(b"T\xfcr."))
    assert errors.count("\n") == 1


def test_more_lines_than_are_read_at_once(call, trained):
    lines = ["Dog.", "", "Is she ill?"] * 400
    status, output, _ = call("translate.py", "--model", "run", "--beam", "1", stdin="\n".join(lines).encode())
    assert status == 0
    assert output == output[:3] * 400


def test_a_reader_that_leaves_is_no_error(folder, trained):
    """As with `python translate.py < file | head`."""
    command = [sys.executable, str(ROOT / "translate.py"), "--model", "run", "--beam", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:
        process.stdout.close()
        process.stdin.write(b"Dog.\n" * 3000)
        process.stdin.close()
        assert process.stderr.read() == b""


def test_a_run_is_not_overwritten_unasked(call, folder, trained):
    before = contents(folder / "run")
    status, output, errors = call("train.py", *TEXT, *QUICK, "--out", "run", "--seed", "2")
    assert (status, output) == (1, [])
    assert errors == "train.py: error: run already holds a run; --resume it, --overwrite it, or choose another --out\n"
    unequal = ("--source", "train.en", "--target", "short.de")
    assert call("train.py", *unequal, "--out", "run", "--overwrite")[0] == 1  # so nothing is replaced
    assert contents(folder / "run") == before


def test_a_run_is_overwritten_when_asked(call, folder, trained):
    """A training that fails before it has weights leaves none of the run before it, beside another vocabulary."""
    target = folder / "replaced"
    target.mkdir()
    for name in FILES:
        (target / name).write_bytes((folder / "run" / name).read_bytes())
    options = (*TEXT, *QUICK, "--seed", "2", "--out", "replaced", "--overwrite")
    assert call("train.py", *options)[0] == 0
    assert contents(target).keys() == contents(folder / "run").keys()
    assert (target / "model.safetensors").read_bytes() != (folder / "run" / "model.safetensors").read_bytes()
    assert len(read_lines(target / "metrics.jsonl")) == 2

    diverging = ("--learning-rate", "1e30", "--warmup", "1", "--valid-every", "4")
    status, output, errors = call("train.py", *options, *diverging)
    assert (status, output) == (1, [])
    assert errors.rstrip().split("\n")[-1].startswith("train.py: error: step 2: the loss is nan")
    assert not (target / "model.safetensors").exists()


FAILURES = {
    "unequal files": (
        ("--source", "train.en", "--target", "short.de"),
        "train.en has 250 lines but short.de has 2; line n of one must be the translation of line n of the other",
    ),
    "unequal test files": (
        (*TEXT, "--test-source", "test.en", "--test-target", "short.de"),
        "test.en has 20 lines but short.de has 2; line n of one must be the translation of line n of the other",
    ),
    "missing file": (("--source", "nowhere.en", "--target", "train.de"), "nowhere.en: No such file or directory"),
    "directory": (("--source", ".", "--target", "train.de"), ".: Is a directory"),
    "not UTF-8": (("--source", "short.de", "--target", "latin.de"), "latin.de: line 2 is not UTF-8 (byte 0xfc)"),
    "empty": (("--source", "empty.en", "--target", "empty.de"), "empty.en and empty.de hold no sentence pair"),
    "large vocabulary": (
        (*TEXT, "--vocab-size", "90000"),
        "a vocabulary of 90000 is too large for this text, which allows at most ",
    ),
    "small vocabulary": (
        (*TEXT, "--vocab-size", "100"),
        "a vocabulary of 100 is too small for this text, which needs at least ",
    ),
    "all too long": ((*TEXT, "--max-length", "1"), "no training pair is shorter than --max-length 1"),
    "out is a file": ((*TEXT, *QUICK, "--out", "train.en"), "train.en: File exists"),
}


@pytest.mark.parametrize(("arguments", "words"), FAILURES.values(), ids=FAILURES)
def test_training_fails_in_one_line(call, folder, arguments, words):
    """Exit status 1, nothing on standard output, nothing written."""
    before = contents(folder)
    status, output, errors = call("train.py", "--out", "failed", *arguments)
    assert (status, output) == (1, [])
    assert errors.startswith(f"train.py: error: {words}")
    assert errors[len(f"train.py: error: {words}") :].rstrip("\n").isdecimal() == words.endswith(" ")
    assert errors.count("\n") == 1
    assert contents(folder) == before
    assert not (folder / "failed").exists()


MISUSES = [
    (("--preset", "nonsense"), "argument --preset: invalid choice: 'nonsense' (choose from "),
    (("--source", "train.en"), "--source and --target go together"),
    (("--valid-source", "valid.en", "--valid-target", "valid.de"), "--valid-source needs --source and --target"),
    ((*TEXT, "--test-target", "test.de"), "--test-source and --test-target go together"),
    (("--dropout", "1.5"), "argument --dropout: '1.5' is not a number from 0 up to, but not including, 1"),
    (("--steps", "0"), "argument --steps: '0' is not a whole number above zero"),
    (("--vocab-size", "many"), "argument --vocab-size: 'many' is not a whole number above zero"),
    (("--learning-rate", "nan"), "argument --learning-rate: 'nan' is not a number above zero"),
    (("--steps", "5", "--epochs", "1"), "argument --epochs: not allowed with argument --steps"),
    (("--seed", "-1"), "argument --seed: "),
    (("--nonsense",), "unrecognized arguments: --nonsense"),
]


@pytest.mark.parametrize(("arguments", "words"), MISUSES)
def test_misuse_of_train_is_refused(call, folder, arguments, words):
    """Exit status 2, the usage, and one line."""
    before = contents(folder)
    status, output, errors = call("train.py", *arguments)
    assert (status, output) == (2, [])
    assert errors.startswith("usage: train.py ")
    assert errors.rstrip().split("\n")[-1].startswith(f"train.py: error: {words}")
    assert contents(folder) == before


NO_MODEL = "holds no trained model; run first: python train.py"
TRANSLATE_FAILURES = [
    (("Dog.",), b"", 1, f"translate.py: error: runs/toy {NO_MODEL}"),
    (("--model", "nowhere"), b"Dog.\n", 1, f"translate.py: error: nowhere {NO_MODEL}"),
    (("--model", "."), b"Dog.\n", 1, f"translate.py: error: . {NO_MODEL}"),
    (("--model", "run", "--beam", "0", "Dog."), b"", 2, "translate.py: error: argument --beam: "),
    (("--device", "tpu", "Dog."), b"", 2, "translate.py: error: argument --device: invalid choice: 'tpu'"),
]


@pytest.mark.parametrize(("arguments", "stdin", "status", "words"), TRANSLATE_FAILURES)
def test_translate_fails_in_one_line(call, trained, arguments, stdin, status, words):
    found, _, errors = call("translate.py", *arguments, stdin=stdin)
    assert found == status
    lines = errors.rstrip("\n").split("\n")
    assert lines[-1].startswith(words)
    assert status == 2 or len(lines) == 1


@pytest.mark.skipif(cupy is not None, reason="CuPy is installed")
@pytest.mark.parametrize("script", OPTIONS)
def test_without_cupy_a_gpu_is_refused_in_one_line(call, folder, trained, script):
    arguments = (*TEXT, *QUICK, "--out", "gpu") if script == "train.py" else ("--model", "run", "Dog.")
    status, output, errors = call(script, *arguments, "--device", "cuda")
    assert (status, output) == (1, [])
    assert errors.startswith(f"{script}: error: device 'cuda' needs CuPy, which is not installed; run: pip install ")
    assert errors.count("\n") == 1
    assert not (folder / "gpu").exists()


def test_a_damaged_run_is_refused_in_one_line(call, folder, trained):
    damaged = folder / "damaged"
    damaged.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (damaged / name).write_bytes((folder / "run" / name).read_bytes())
    status, output, errors = call("translate.py", "--model", "damaged", "Dog.")
    assert (status, output) == (1, [])
    assert errors.startswith(f"translate.py: error: {Path('damaged', 'model.safetensors')}: No such file or directory")
    assert errors.count("\n") == 1
