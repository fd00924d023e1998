"""All that decode with the same weights find the same translations; and the command that compares them."""

import importlib.util
import json
import sys

import numpy as np
import pytest
from scripts import write_run

from benchmarks import decode as command
from benchmarks import translating
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.translation import Translator

LINES = ["Der Hund.", "", "We want to pick the tired sister up.", "I sing.", "The old man sees the dog, and you laugh."]


@pytest.fixture
def run(tmp_path, make_model, tokenizer):
    """The directory of a run whose translations make no sense, but differ from line to line."""
    model = make_model(
        len(tokenizer), seed=1, scale=1.0, tied_embeddings=True, width=16, encoder_layers=2, dtype=np.float32
    )
    for name, parameter in model.parameters.named.items():
        parameter.data *= 1.0 if name.endswith("table") else 4.0
    write_run(tmp_path / "run", model, tokenizer)
    (tmp_path / "text").write_text("\n".join(LINES) + "\n")
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def _memory_as_it_is(monkeypatch):
    monkeypatch.setattr(translating, "keep_freed_memory", lambda: None)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("contender", ["ours-without-cache", "pytorch", "pytorch-shortlists"])
def test_the_translations_are_the_same(run, contender, beam):
    if contender.startswith("pytorch"):
        pytest.importorskip("torch")
    with_shortlist = contender == "pytorch-shortlists"
    ours, theirs = (
        translating.measure_translation(name, Translator.load(run, shortlist=with_shortlist), LINES, beam)
        for name in ("ours", contender)
    )
    assert ours["translations"][1] == ""
    assert len({text[:5] for text in ours["translations"]}) >= (3 if with_shortlist else len(LINES) - 1)
    assert theirs["translations"] == ours["translations"]
    assert theirs["seconds"] > 0


def test_what_is_forbidden_to_ours_is_to_pytorch(run):
    pytest.importorskip("torch")
    translators = Translator.load(run), Translator.load(run)
    favourite = translators[0].tokenizer.encode(translators[0].translate(LINES)[0])[-1]
    for translator in translators:
        translator.forbidden.append(favourite)
    ours, theirs = (translating.prepare(*pair, 1)(LINES) for pair in zip(("ours", "pytorch"), translators, strict=True))
    assert theirs == ours != Translator.load(run).translate(LINES)


def test_the_converted_weights_translate_alike(run):
    """Greedily, and each line alone: CTranslate2 has one limit for all lines, and another score for a beam."""
    pytest.importorskip("ctranslate2")
    ours, theirs = (translating.prepare(name, Translator.load(run), 1) for name in ("ours", "ctranslate2"))
    for line in LINES:
        assert theirs([line]) == ours([line])


def test_without_the_cache_all_positions_are_computed_anew(run, monkeypatch):
    translator = Translator.load(run)
    lengths, decode = [], type(translator.model).decode
    monkeypatch.setattr(
        translating.Transformer,
        "decode",
        lambda self, target, *rest, **options: (
            lengths.append((target.shape[1], options.get("cache"))) or decode(self, target, *rest, **options)
        ),
    )
    translating.prepare("ours-without-cache", translator, 1)(LINES[:1])
    assert lengths[:3] == [(1, None), (2, None), (3, None)]
    lengths.clear()
    translating.prepare("ours", Translator.load(run), 1)(LINES[:1])
    assert [length for length, _ in lengths[:3]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm": "post", "tied_embeddings": True}, "norm pre, not post"),
        ({"tied_embeddings": False}, "tied_embeddings True, not False"),
        ({"positions": "learned", "tied_embeddings": True}, "positions sinusoidal, not learned"),
        ({"activation": "gelu", "tied_embeddings": True}, "activation relu, not gelu"),
    ],
)
def test_a_model_that_the_others_have_not_is_refused(make_model, changes, words):
    from benchmarks.exporting import require_exportable

    with pytest.raises(CheckpointError, match=words):
        require_exportable(make_model(12, **changes).config)


@pytest.fixture
def measured(monkeypatch):
    """Replace measuring: ours takes 2 s, the others 5, and CTranslate2 translates one line in two differently."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name in ("torch", "ctranslate2") else None)
    monkeypatch.setattr(command, "machine", lambda *libraries: "a machine")

    def fake(module, contender, *where):
        text = ["gut", "anders" if contender == "ctranslate2" else "schön"]
        return {"seconds": 2.0 if contender == "ours" else 5.0, "translations": text}

    monkeypatch.setattr(command, "measure", fake)


def run_command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmarks.decode", *map(str, arguments)])
    command.main()


def test_the_command_prints_a_row_for_each_contender_and_search(run, measured, monkeypatch, capsys):
    run_command(monkeypatch, run.parent / "text", "--model", run, "--turns", "2")
    output, _ = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in output.split("\n") if line.startswith("|")]
    assert rows[0] == list(command.HEAD)
    assert [row[0] for row in rows[2:]] == ["greedy"] * 6 + ["beam 5"] * 6
    assert rows[2] == ["greedy", "tinytransformer", "2", "1.00 (1.00 - 1.00)", "100.0 %"]
    assert rows[3][1:] == ["tinytransformer, shortlists", "1", "2.50 (2.50 - 2.50)", "100.0 %"]
    assert rows[5] == ["greedy", "PyTorch loop with a cache", "1", "2.50 (2.50 - 2.50)", "100.0 %"]
    assert rows[13][1:] == ["CTranslate2, float32", "1", "2.50 (2.50 - 2.50)", "50.0 %"]


def test_without_ctranslate2_the_others_are_compared(run, measured, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "torch" else None)
    run_command(monkeypatch, run.parent / "text", "--model", run, "--turns", "1")
    output, errors = capsys.readouterr()
    assert "PyTorch" in output
    assert "CTranslate2" not in output
    assert "note: left out CTranslate2, which is not installed (pip install ctranslate2)\n" in errors


def test_what_is_wrong_with_the_run_is_said_once(run, measured, monkeypatch):
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, run.parent / "text", "--model", run.parent / "elsewhere")
    assert str(caught.value.code).startswith("benchmarks.decode: error: ")
    assert "elsewhere" in str(caught.value.code)


def test_a_beam_of_one_is_greedy_and_measured_once(run, measured, monkeypatch, capsys):
    run_command(monkeypatch, run.parent / "text", "--model", run, "--turns", "1", "--beam", "1")
    rows = [line for line in capsys.readouterr().out.split("\n") if line.startswith("| greedy")]
    assert len(rows) == 6


def test_a_run_without_shortlists_is_compared_without(run, measured, monkeypatch, capsys):
    (run / "shortlist.safetensors").unlink()
    run_command(monkeypatch, run.parent / "text", "--model", run, "--turns", "1", "--beam", "1")
    output, errors = capsys.readouterr()
    assert "shortlists" not in output
    assert f"note: left out shortlists; {run} has none (train.py --resume makes it)\n" in errors


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_a_text_without_a_sentence_is_refused(run, measured, monkeypatch, text):
    empty = run.parent / "empty"
    empty.write_text(text)
    with pytest.raises(SystemExit) as caught:
        run_command(monkeypatch, empty, "--model", run)
    assert caught.value.code == f"benchmarks.decode: error: {empty} holds no sentence"


def test_a_contender_prints_one_line_of_json(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["translating", "ours", str(run.parent / "text"), "--model", str(run)])
    translating.main()
    result = json.loads(capsys.readouterr().out)
    assert len(result["translations"]) == len(LINES)
