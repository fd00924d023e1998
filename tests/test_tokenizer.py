"""Subwords: nothing is lost on the way, the vocabulary is the one asked for, and errors say what can be had."""

import hashlib
import io
import re
from types import SimpleNamespace

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytransformer import tokenizer as tokenizer_module
from tinytransformer.data import read_lines
from tinytransformer.tokenizer import Tokenizer, VocabularyError
from tinytransformer.transformer import BEGIN, END, PAD, UNKNOWN

NASTY = {
    "nothing": "",
    "a space": " ",
    "spaces around": "  two  before,   and after   ",
    "tabs": "\ta\t\tb\t",
    "mark of sentencepiece": "a\u2581b \u2581\u2581 c\u2581",
    "escape": "\ue000 \ue0000 \ue0001\ue000\u2581 \ue000\ue000",
    "controls": "\x00a\x00\x00 \x01\x7f\r\x0b\x0c\x1c\x85\u2028\u2029\ufeff",
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7\u2764\ufe0f",
    "Chinese": "老人看见了狗。\u3000他很高兴。",
    "right to left": "שלום \u202eabc\u202c السلام عليكم",
    "combining": "e\u0301 é o\u0302\u0323 \u0301",
    "names of pieces": "<s> </s> <pad> <unk> <0x0A> <0x00> ⁇",
    "spaces of French": "Va\u202f! Où\u00a0?",
    "toy": "The old man sees the dog.",
}
any_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))
nasty_part = st.sampled_from(["\u2581", "\ue000", " ", "  ", "0", "1", "\x00", "\t", "a", "Mann"])
nasty_line = st.lists(nasty_part).map("".join)


@pytest.mark.parametrize("line", NASTY.values(), ids=NASTY)
def test_no_line_is_changed(tokenizer, line):
    assert tokenizer.decode(tokenizer.encode(line)) == line


@settings(max_examples=300, deadline=None)
@given(line=any_line | nasty_line)
def test_no_line_at_all_is_changed(tokenizer, line):
    ids = tokenizer.encode(line)
    assert tokenizer.decode(ids) == line
    assert not {PAD, UNKNOWN, BEGIN, END} & set(ids)
    assert all(0 <= i < len(tokenizer) for i in ids)


def test_words_of_the_text_become_few_pieces(tokenizer):
    """A vocabulary was learned: frequent words are pieces, where bytes would be one id per letter."""
    line = "The old man sees the dog."
    assert len(tokenizer.encode(line)) <= len(line) / 2


def test_special_ids_are_passed_over(tokenizer):
    ids = tokenizer.encode("Der Mann")
    assert tokenizer.decode([BEGIN, *ids, END, PAD, PAD]) == "Der Mann"
    assert tokenizer.decode([]) == ""


def test_the_same_text_gives_the_same_bytes(toy_text, tokenizer, tmp_path):
    again = Tokenizer.train(iter([*toy_text[0], *toy_text[1]]), 400)
    assert again.model == tokenizer.model
    assert Tokenizer.train(toy_text[0], 400).model != tokenizer.model
    (tmp_path / "tokenizer.model").write_bytes(again.model)
    assert Tokenizer.load(tmp_path / "tokenizer.model").encode("Der Mann") == tokenizer.encode("Der Mann")


@pytest.mark.parametrize("size", [350, 600])
def test_the_size_is_the_size_asked_for(toy_text, size):
    assert len(Tokenizer.train(toy_text[1], size)) == size


@pytest.mark.parametrize(("size", "words"), [(50_000, "too large .* at most"), (100, "too small .* at least")])
def test_a_size_that_cannot_be_had_is_refused_with_one_that_can(toy_text, size, words):
    """What the message offers can really be had, and one piece beyond it cannot."""
    with pytest.raises(VocabularyError, match=rf"^a vocabulary of {size} is {words} \d+$") as caught:
        Tokenizer.train(toy_text[0], size)
    offered = int(re.search(r"\d+$", str(caught.value))[0])
    assert len(Tokenizer.train(toy_text[0], offered)) == offered
    with pytest.raises(VocabularyError):
        Tokenizer.train(toy_text[0], offered + (1 if size > offered else -1))


def test_a_default_size_shrinks_to_what_the_text_allows(toy_text):
    with pytest.raises(VocabularyError) as caught:
        Tokenizer.train(toy_text[0], 50_000)
    assert len(Tokenizer.train(toy_text[0], 50_000, exact=False)) == int(str(caught.value).split()[-1])
    assert len(Tokenizer.train(toy_text[0], 400, exact=False)) == 400


@pytest.mark.parametrize("lines", [[], ["", ""]])
def test_nothing_can_be_learned_from_nothing(lines):
    with pytest.raises(VocabularyError, match="no vocabulary of 300 can be learned"):
        Tokenizer.train(lines, 300)


def model_of(lines, **options):
    """Learn a model as sentencepiece does it by itself, but for the options."""
    model = io.BytesIO()
    common = {"vocab_size": 100, "model_type": "bpe", "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, **common, **options)
    return model.getvalue()


DAMAGES = {
    "empty": lambda model: b"",
    "text": lambda model: b"no model",
    "half": lambda model: model[: len(model) // 2],
    "a few bytes": lambda model: model[:10],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_model_is_refused(tokenizer, damage, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(damage(tokenizer.model))
    with pytest.raises(VocabularyError, match=f"^{re.escape(str(path))}: the tokenizer model "):
        Tokenizer.load(path)


def test_a_model_with_other_special_ids_is_refused(toy_text, tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model_of(toy_text[0], normalization_rule_name="identity"))
    with pytest.raises(VocabularyError, match=r"special ids \(-1, 0, 1, 2\), expected \(0, 1, 2, 3\)") as caught:
        Tokenizer.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.model", "."], ids=["missing", "directory"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    with pytest.raises(VocabularyError, match=rf"^{re.escape(str(tmp_path / name))}: (No such file|Is a directory)"):
        Tokenizer.load(tmp_path / name)


@pytest.mark.parametrize("extra", ["", "Mann\rFrau"], ids=["clean text", "text with carriage returns"])
def test_what_would_break_a_line_is_forbidden(toy_text, extra):
    """All special ids but END, and every piece that holds a line feed or a carriage return."""
    tokenizer = Tokenizer.train([*toy_text[1], *[extra] * 50], 400)
    breaking = {i for i in range(len(tokenizer)) if {"\n", "\r"} & set(tokenizer.decode([i]))}
    assert len(breaking) >= 2
    assert {PAD, UNKNOWN, BEGIN} | breaking <= set(tokenizer.forbidden())
    assert END not in tokenizer.forbidden()
    assert len(set(tokenizer.forbidden())) == 3 + len(breaking)


def test_no_line_of_real_corpora_is_changed(corpora, multi30k):
    _, german, tokenizer = multi30k
    for line in [*german, *read_lines(corpora / "anki-fra-eng" / "fra.txt")]:
        assert tokenizer.decode(tokenizer.encode(line)) == line


def test_a_vocabulary_too_large_to_be_read_again_is_refused(toy_text, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "LARGEST", 1000)
    with pytest.raises(VocabularyError, match="a vocabulary of 400 would make a file of more than 1,000 bytes"):
        Tokenizer.train(toy_text[0], 400)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("SentencePieceTrainer", lambda model: Tokenizer.train(["a"], 400)),
        ("SentencePieceProcessor", Tokenizer),
    ],
)
def test_want_of_memory_is_no_fault_of_the_vocabulary(tokenizer, monkeypatch, name, use):
    def exhausted(*_, **__):
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr(sentencepiece, name, SimpleNamespace(train=exhausted) if "Trainer" in name else exhausted)
    with pytest.raises(RuntimeError, match="bad_alloc"):
        use(tokenizer.model)


def test_a_long_piece_is_found_behind_any_other_field():
    """Numbers, eight bytes and four, which are passed over by their own lengths; and what is of no kind is refused."""
    before = b"\xc0\x0c\xac\x02" + b"\xc1\x0c" + bytes(8) + b"\xc5\x0c" + bytes(4)  # field 200 of kinds 0, 1 and 5
    with pytest.raises(VocabularyError, match="has a piece of 2,000 bytes"):
        Tokenizer(before + b"\x0a\xd0\x0f" + bytes(2000))
    with pytest.raises(VocabularyError, match="damaged"):
        Tokenizer(before + b"\xc3\x0c")  # kind 3


def test_the_digest_is_that_of_the_file(tokenizer):
    assert tokenizer.digest() == hashlib.sha256(tokenizer.model).hexdigest()


NO_LINE = "no vocabulary of 300 can be learned from this text: it holds no line that could be read as a sentence"


@pytest.mark.parametrize(
    ("lines", "size", "message"),
    [(["Mann"], 1, "a vocabulary of 1 is too small for the tokens that every vocabulary has"), ([""], 300, NO_LINE)],
)
def test_why_there_is_no_vocabulary_is_said(lines, size, message):
    with pytest.raises(VocabularyError, match=f"^{message}$"):
        Tokenizer.train(lines, size)
