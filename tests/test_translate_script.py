"""translate.py as a user runs it: lines in, lines out, and what is said where something is wrong."""

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scripts import ROOT, end_of, load_script, write_run

from tinytransformer.decoding import Sampling
from tinytransformer.tokenizer import Tokenizer
from tinytransformer.translation import Search, Translator


@pytest.fixture(scope="module")
def trained(folder, make_model, tokenizer):
    """A run in the folder model; returns its Translator."""
    write_run(folder / "model", make_model(len(tokenizer), dtype=np.float32), tokenizer)
    return Translator.load(folder / "model")


@pytest.fixture(scope="module")
def module():
    """translate.py as a module."""
    return load_script("translate.py")


@pytest.fixture
def script(module, folder, trained, monkeypatch, capsys):
    """Return a function that runs translate.py in this process: exit status, lines of output, standard error."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(module, "keep_freed_memory", lambda: None)

    def run(*arguments, stdin=b"", model="model"):
        monkeypatch.setattr(sys, "argv", ["translate.py", "--model", model, *arguments])
        monkeypatch.setattr(
            sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin), isatty=lambda: False, close=lambda: None)
        )
        return end_of(module, capsys)

    return run


SENTENCES = ["The old man sees the dog.", "", "Is she ill?"]


def test_sentences_and_lines_are_translated_alike(call, trained):
    """One line for each, on the command line or from standard input, in order; an empty one for an empty one."""
    arguments = call("translate.py", "--model", "model", *SENTENCES)
    assert (arguments[0], len(arguments[1]), arguments[1][1], arguments[2]) == (0, 3, "", "")
    assert any(arguments[1])
    for text in ("\n".join(SENTENCES) + "\n", "\r\n".join(SENTENCES)):
        assert call("translate.py", "--model", "model", stdin=text.encode()) == arguments


def test_a_byte_order_mark_is_no_part_of_the_first_line(call, trained):
    """As in training files."""
    text = "\n".join(SENTENCES).encode()
    plain, marked = (call("translate.py", "--model", "model", stdin=mark + text) for mark in (b"", b"\xef\xbb\xbf"))
    assert plain == marked


@pytest.mark.parametrize("text", ["", "a\n\n\n", "a\u2028b\x85c\x0bd\x0ce\n", "a\rb\rc\n", "a" * 300 + "\nb"])
def test_as_many_lines_come_out_as_went_in(call, trained, text):
    """Lines end at newlines alone, as in training."""
    status, output, errors = call("translate.py", "--model", "model", "--beam", "1", stdin=text.encode())
    assert (status, errors) == (0, "")
    assert len(output) == len(text.removesuffix("\n").split("\n")) * bool(text)


def test_input_that_is_not_utf8_is_named_and_no_line_is_lost(call, trained):
    """Beyond the lines that are read at once, too: their numbers go on."""
    lines = [b"Dog."] * 1100
    lines[1] = lines[1050] = b"T\xfcr."
    status, output, errors = call("translate.py", "--model", "model", "--beam", "1", stdin=b"\n".join(lines))
    assert (status, len(output)) == (0, 1100)
    warning = "translate.py: warning: line {} is not UTF-8; bytes were replaced"
    assert errors.splitlines() == [warning.format(2), warning.format(1051)]
    assert output[1] == output[1050] != output[0] == output[1099]


def test_a_sentence_that_is_not_utf8_is_mentioned_in_one_line(call, trained):
    _, _, errors = call("translate.py", "--model", "model", "--beam", "1", os.fsdecode(b"T\xfcr."))
    assert errors.count("\n") == 1


def test_more_lines_than_are_read_at_once(call, trained):
    lines = ["Dog.", "", "Is she ill?"] * 400
    status, output, _ = call("translate.py", "--model", "model", "--beam", "1", stdin="\n".join(lines).encode())
    assert status == 0
    assert output == output[:3] * 400


def test_a_reader_that_leaves_is_no_error(folder, trained):
    """As with `python translate.py < file | head`."""
    command = [sys.executable, str(ROOT / "translate.py"), "--model", "model", "--beam", "1"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:
        process.stdout.close()
        process.stdin.write(b"Dog.\n" * 3000)
        process.stdin.close()
        assert process.stderr.read() == b""


NO_MODEL = "holds no trained model; run first: python train.py"
TRANSLATE_FAILURES = [
    (("Dog.",), b"", 1, f"translate.py: error: runs/toy {NO_MODEL}"),
    (("--model", "nowhere"), b"Dog.\n", 1, f"translate.py: error: nowhere {NO_MODEL}"),
    (("--model", "."), b"Dog.\n", 1, f"translate.py: error: . {NO_MODEL}"),
    (("--model", "model", "--beam", "0", "Dog."), b"", 2, "translate.py: error: argument --beam: "),
    (("--device", "tpu", "Dog."), b"", 2, "translate.py: error: argument --device: invalid choice: 'tpu'"),
]


@pytest.mark.parametrize(("arguments", "stdin", "status", "words"), TRANSLATE_FAILURES)
def test_translate_fails_in_one_line(call, trained, arguments, stdin, status, words):
    found, _, errors = call("translate.py", *arguments, stdin=stdin)
    assert found == status
    lines = errors.rstrip("\n").split("\n")
    assert lines[-1].startswith(words)
    assert status == 2 or len(lines) == 1


def test_a_damaged_run_is_refused_in_one_line(call, folder, trained):
    damaged = folder / "damaged"
    damaged.mkdir()
    for name in ("config.json", "tokenizer.model"):
        (damaged / name).write_bytes((folder / "model" / name).read_bytes())
    status, output, errors = call("translate.py", "--model", "damaged", "Dog.")
    assert (status, output) == (1, [])
    assert errors.startswith(f"translate.py: error: {Path('damaged', 'model.safetensors')} does not exist; ")
    assert errors.count("\n") == 1


# --- The best few


def test_the_best_few_are_printed_with_their_scores(script, trained):
    """Best first, no more than asked for; what follows an empty line is an empty line."""
    found = trained.hypotheses([SENTENCES[0], SENTENCES[2]], Search(beam=5, count=5))
    for count in (1, 3, 5):
        status, output, errors = script("--beam", "5", "--n-best", str(count), *SENTENCES)
        assert (status, errors) == (0, "")
        expected = [[f"{t.score:.4f}\t{t.text}" for t in translations[:count]] for translations in found]
        assert output == [*expected[0], "", *expected[1]]
        for part in expected:
            scores = [float(line.split("\t")[0]) for line in part]
            assert len(scores) == count
            assert scores == sorted(scores, reverse=True)


def test_the_best_of_the_best_few_is_what_is_printed_without(script):
    _, plain, _ = script("--beam", "4", *SENTENCES)
    _, best, _ = script("--beam", "4", "--n-best", "1", *SENTENCES)
    assert [line.partition("\t")[2] for line in best] == plain


REFUSED = [
    (("--beam", "2", "--n-best", "3"), "--n-best is at most --beam"),
    (("--n-best", "5"), "--n-best is at most --beam"),
    *[
        (("--sample", *option), "--beam, --alpha, --n-best and --shortlist say how to search, which --sample does not")
        for option in (("--n-best", "2"), ("--beam", "2"), ("--alpha", "1"), ("--shortlist",))
    ],
    (("--n-best", "0"), "argument --n-best: '0' is not a whole number above zero"),
    (("--sample", "--top-p", "1.5"), "argument --top-p: '1.5' is not a number above 0 and at most 1"),
    (("--sample", "--top-p", "0"), "argument --top-p: '0' is not a number above 0 and at most 1"),
    (("--sample", "--top-k", "0"), "argument --top-k: '0' is not a whole number above zero"),
    (("--sample", "--temperature", "0"), "argument --temperature: '0' is not a finite number above zero"),
    (("--sample", "--seed", "-1"), "argument --seed: "),
    (("--alpha", "-1"), "argument --alpha: '-1' is not a number from 0 to 10"),
    (("--max-length", "0"), "argument --max-length: '0' is not a whole number above zero"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_cannot_be_asked_for_is_refused(script, arguments, words):
    status, output, errors = script(*arguments, "Dog.")
    assert (status, output) == (2, [])
    assert errors.startswith("usage: translate.py ")
    assert errors.rstrip().split("\n")[-1].startswith(f"translate.py: error: {words}")


# --- Length


@pytest.mark.parametrize("options", [("--beam", "1"), ("--beam", "3"), ("--sample",)], ids=" ".join)
def test_a_translation_has_at_most_the_length_asked_for(script, trained, monkeypatch, options):
    """In subwords, END included, be it less or more than the data would allow."""
    decode, lengths = Tokenizer.decode, []
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids: lengths.append(len(ids)) or decode(self, ids))
    assert trained.limit(len(trained.tokenizer.encode(SENTENCES[0]))) < 30
    for length in (1, 2, 5, 100):
        lengths.clear()
        status, output, errors = script(*options, "--max-length", str(length), *[SENTENCES[0]] * 20)
        assert (status, len(output), errors) == (0, 20, "")
        assert length - 1 <= max(lengths) <= length or 30 < max(lengths) <= length


def test_alpha_reaches_the_search(script, trained):
    for alpha in (0.0, 3.0):
        expected = trained.translate(SENTENCES, Search(beam=4, alpha=alpha))
        assert script("--alpha", str(alpha), *SENTENCES)[1] == expected


@pytest.mark.parametrize("options", [("--beam", "1"), ("--beam", "3"), ("--beam", "3", "--n-best", "2")])
def test_the_shortlist_of_the_run_reaches_the_search(script, trained, options):
    """It allows no other tokens, so this model says something else."""
    search = Search(int(options[1]), count=int(options[-1]) if len(options) > 2 else 1)
    found = Translator.load(Path("model"), shortlist=True).hypotheses([SENTENCES[0]], search)[0]
    status, output, errors = script(*options, "--shortlist", SENTENCES[0])
    assert (status, errors) == (0, "")
    assert output == [t.text if len(options) == 2 else f"{t.score:.4f}\t{t.text}" for t in found]
    assert output != script(*options, SENTENCES[0])[1]


def test_a_line_longer_than_the_positions_is_named_and_begun(script, folder, make_model, tokenizer):
    """One line out for each line in, and one warning for each that is too long, by its number."""
    if not (folder / "learned").exists():
        model = make_model(len(tokenizer), dtype=np.float32, positions="learned", max_length=8)
        write_run(folder / "learned", model, tokenizer)
    fits = tokenizer.decode(tokenizer.encode("Is she ill?")[:7])
    assert len(tokenizer.encode(fits)) <= 7
    long = "The old man sees the dog in front of the station."
    assert len(tokenizer.encode(long)) >= 8
    lines = [fits, "", long, fits, long]
    warning = "translate.py: warning: line {} has 8 subwords or more, and the model takes fewer; it is cut"
    for arguments, stdin in ((lines, b""), ((), "\n".join(lines).encode())):
        status, output, errors = script(*arguments, stdin=stdin, model="learned")
        assert (status, len(output)) == (0, 5)
        assert errors.splitlines() == [warning.format(3), warning.format(5)]
        assert output[0] == output[3] != ""
        assert output[2] == output[4] != ""
        assert output[1] == ""


# --- Sampling


def test_the_same_seed_draws_the_same(script):
    text = "\n".join(SENTENCES * 4).encode()
    one, again, other = (script("--sample", "--seed", seed, stdin=text) for seed in ("1", "1", "2"))
    assert one == again
    assert one[0] == other[0] == 0
    assert one[1] != other[1]
    assert [line == "" for line in one[1]] == [False, True, False] * 4
    assert script("--sample", stdin=text) == one  # the seed is 1 if none is given


def test_a_line_draws_by_its_number_however_many_are_read_at_once(script, module, monkeypatch):
    """Equal lines in other places differ; where the reading is divided makes no difference."""
    text = b"Dog.\n" * 14
    _, whole, _ = script("--sample", stdin=text)
    assert len(whole) == 14
    assert len(set(whole)) > 10
    for count in (1, 3, 5):
        monkeypatch.setattr(module, "LINES_AT_ONCE", count)
        assert script("--sample", stdin=text)[1] == whole
    assert script("--sample", *["Dog."] * 14)[1] == whole
    assert script("--sample", stdin=b"\n" * 5 + b"Dog.\n" * 9)[1] == [""] * 5 + whole[5:]


def test_numbers_go_on_beyond_the_lines_that_are_read_at_once(script, module):
    count = module.LINES_AT_ONCE
    assert count == 1024
    _, output, _ = script("--sample", "--max-length", "3", stdin=b"Dog.\n" * (count + 10))
    assert len(output) == count + 10
    assert output[:10] != output[count:]


def test_the_options_of_sampling_reach_it(script, trained):
    """top-k 1 and a temperature near 0 leave nothing to draw: what is left is greedy search."""
    text = "\n".join(SENTENCES).encode()
    greedy, free = script("--beam", "1", stdin=text), script("--sample", stdin=text)
    assert greedy[1] != free[1]
    for option in (("--top-k", "1"), ("--temperature", "0.0001"), ("--top-p", "0.0001")):
        assert script("--sample", *option, stdin=text) == greedy
    wanted = Search(sampling=Sampling(seed=7, temperature=1.5, top_k=9, top_p=0.7), first_line=1)
    options = ("--seed", "7", "--temperature", "1.5", "--top-k", "9", "--top-p", "0.7")
    assert script("--sample", *options, stdin=text)[1] == trained.translate(SENTENCES, wanted)


@pytest.mark.parametrize("option", [("--temperature", "2"), ("--top-k", "3"), ("--top-p", "0.5"), ("--seed", "2")])
def test_how_to_sample_is_not_asked_for_without_sampling(script, option):
    status, lines, errors = script(*option, "The dog.")
    assert (status, lines) == (2, [])
    assert errors.endswith("error: --temperature, --top-k, --top-p and --seed say how to --sample\n")


def test_standard_input_that_cannot_be_read_is_named(folder, trained, tmp_path):
    """As where nohup has opened it for writing alone."""
    command = [sys.executable, str(ROOT / "translate.py"), "--model", "model"]
    with open(tmp_path / "written", "wb") as file:
        done = subprocess.run(command, cwd=folder, stdin=file, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"translate.py: error: standard input: Bad file descriptor\n"
