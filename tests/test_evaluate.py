"""evaluate.py: the figures of the evaluation module, on a line each, and nothing scored that does not match."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import end_of, load_script, write_run

from tinytransformer.data import encode_corpus
from tinytransformer.evaluation import evaluate_loss, score
from tinytransformer.translation import Search, Translator


@pytest.fixture(scope="module")
def translator(folder, make_model, tokenizer):
    """The Translator of a run in the folder scored, whose translations make no sense."""
    write_run(folder / "scored", make_model(len(tokenizer), dtype=np.float32), tokenizer)
    return Translator.load(folder / "scored")


@pytest.fixture(scope="module")
def module():
    """evaluate.py as a module."""
    return load_script("evaluate.py")


@pytest.fixture
def script(module, folder, monkeypatch, capsys):
    """Return a function that runs evaluate.py in this process: exit status, lines of output, standard error."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(module, "keep_freed_memory", lambda: None)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        return end_of(module, capsys)

    return run


def write_files(folder, sources, references):
    for name, lines in (("a.en", sources), ("a.de", references)):
        (folder / name).write_bytes("".join(f"{line}\n" for line in lines).encode())
    return folder / "a.en", folder / "a.de"


@pytest.mark.parametrize(("options", "search"), [((), Search(4)), (("--beam", 2, "--alpha", 3), Search(2, 3.0))])
def test_the_figures_are_those_of_the_evaluation(script, translator, toy_text, tmp_path, options, search):
    """A third of the references is what the model says, a third says it in capitals, and one line is empty."""
    sources = [*toy_text[0][:12], ""]
    translations = translator.translate(sources, search)
    assert len(set(translations)) > 8
    references = [t.swapcase() if i % 3 == 1 else t for i, t in enumerate(translations)]
    references[2:12:3] = toy_text[1][2:12:3]
    status, output, errors = script(*write_files(tmp_path, sources, references), "--model", "scored", *options)
    note = "note: left out 1 test pairs with an empty side; BLEU, chrF and exact count them, the loss does not\n"
    assert (status, errors) == (0, note)

    pairs = encode_corpus(translator.tokenizer, sources, references, sys.maxsize).pairs
    loss = evaluate_loss(translator.model, pairs)
    cased = score(translations, references)
    lower = score([t.lower() for t in translations], [r.lower() for r in references])
    exact = sum(t == r for t, r in zip(translations, references, strict=True))
    assert output == [
        f"loss {loss.per_token:.4f} per subword, perplexity {loss.perplexity:.3f}, 12 sentences",
        f"BLEU {cased.bleu:.2f}  {cased.bleu_signature}",
        f"BLEU {lower.bleu:.2f}  after lower-casing both",
        f"chrF {cased.chrf:.2f}  {cased.chrf_signature}",
        f"exact {100 * exact / 13:.2f} %  {exact} of 13 sentences",
    ]
    assert len(pairs) == 12
    assert 1 < cased.bleu < lower.bleu < 99
    assert 1 < exact < 12
    assert "case:mixed|" in output[1]
    assert "nc:6" in output[3]


def test_beam_and_alpha_reach_the_search(script, module, translator, monkeypatch, tmp_path):
    asked, evaluate = [], module.evaluate_translation
    monkeypatch.setattr(module, "evaluate_translation", lambda *args: asked.append(args[3]) or evaluate(*args))
    files = write_files(tmp_path, ["Dog."], ["Hund."])
    for options in ((), ("--beam", 1), ("--beam", 3, "--alpha", 0)):
        assert script(*files, "--model", "scored", *options)[0] == 0
    assert asked == [Search(4, 0.6), Search(1, 0.6), Search(3, 0.0)]


def test_the_shortlist_of_the_run_reaches_the_search(script, translator, toy_text, tmp_path):
    sources = toy_text[0][:5]
    found = Translator.load(Path("scored"), shortlist=True).translate(sources, Search(2))
    assert found != translator.translate(sources, Search(2))
    _, output, _ = script(*write_files(tmp_path, sources, found), "--model", "scored", "--beam", 2, "--shortlist")
    assert output[-1] == "exact 100.00 %  5 of 5 sentences"


def test_unequal_files_are_refused_before_anything_is_loaded(script, module, monkeypatch):
    monkeypatch.setattr(module.Translator, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    status, output, _ = script("train.en", "short.de", "--model", "scored")
    assert output == []
    assert status == (
        "evaluate.py: error: train.en has 250 lines but short.de has 2; "
        "line n of one must be the translation of line n of the other"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("train.en", "short.de"), 1, "evaluate.py: error: train.en has 250 lines but short.de has 2; "),
        (("nowhere.en", "test.de"), 1, "evaluate.py: error: nowhere.en: No such file or directory"),
        (("test.en", "test.de", "--model", "nowhere"), 1, "evaluate.py: error: nowhere holds no trained model; "),
        (("test.en",), 2, "evaluate.py: error: the following arguments are required: TARGET"),
        (("test.en", "test.de", "--beam", "0"), 2, "evaluate.py: error: argument --beam: '0' is not a whole number"),
    ],
)
def test_it_fails_in_one_line(call, translator, arguments, status, words):
    found, output, errors = call("evaluate.py", *arguments)
    assert (found, output) == (status, [])
    lines = errors.rstrip("\n").split("\n")
    assert lines[-1].startswith(words)
    assert status == 2 or len(lines) == 1
