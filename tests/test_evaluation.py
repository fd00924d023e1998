"""Scores: sacrebleu's own numbers, and a loss that can be computed by hand."""

import math

import numpy as np
import pytest
import sacrebleu

from tinytransformer import tensor
from tinytransformer.evaluation import (
    Loss,
    bleu_tokenizer,
    evaluate_loss,
    evaluate_translation,
    has_four_words,
    score,
)
from tinytransformer.tape import recording
from tinytransformer.transformer import BEGIN, END
from tinytransformer.translation import Search

REFERENCES = ["Der alte Mann sieht den Hund.", "Sie ist nicht krank, sagt er.", "Wir gehen heute in die große Stadt."]
HYPOTHESES = ["Der alte Mann sieht die Katze.", "sie ist nicht krank, sagt er.", "Wir gehen in die Stadt."]


def test_scores_are_those_of_sacrebleu():
    """Cased, tokenised with 13a, and signed so that others can repeat them."""
    result = score(HYPOTHESES, REFERENCES)
    assert result.bleu == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert result.chrf == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert 10 < result.bleu < 90
    assert result.bleu != score([h.lower() for h in HYPOTHESES], REFERENCES).bleu
    for part in ("nrefs:1", "case:mixed", "tok:13a", "smooth:exp", f"version:{sacrebleu.__version__}"):
        assert part in result.bleu_signature
    assert "nc:6" in result.chrf_signature


def test_tokenised_text_is_scored_without_a_word(caplog):
    """A run has no use for sacrebleu's advice at every validation."""
    assert score(["Der alte Hund schläft ."] * 200, ["Der alte Hund schläft ."] * 200).bleu == pytest.approx(100)
    assert caplog.text == ""


LANGUAGES = {  # how BLEU cuts a sentence into words
    "German": ("Der alte Mann sieht den Hund.", "13a"),
    "Arabic": ("الرجل العجوز يرى الكلب.", "13a"),
    "Korean": ("노인이 큰 개를 봅니다.", "13a"),
    "digits": ("1 2 3 4", "13a"),
    "Chinese": ("那个老人看见了一只狗。", "zh"),
    "Chinese with names": ("约翰·史密斯 (John Smith) 去了北京大学学习数学。", "zh"),
    "Chinese with long names": ("使用 TensorFlow 训练 Transformer 模型。", "zh"),
    "English with a name": ("The old man 老王 sees the dog.", "13a"),
    "Japanese": ("その老人は犬を見ています。", "char"),
    "Thai": ("ชายชราเห็นสุนัข", "char"),
    "Thai with a name": ("ใช้ Python", "char"),
    "Tibetan": ("ངས་ཁྱི་མཐོང་།", "char"),
    "Lao": ("ຜູ້ຊາຍເຖົ້າເຫັນໝາ", "char"),
    "Burmese": ("အဘိုးအိုသည်ခွေးကိုမြင်သည်။", "char"),
    "Khmer": ("បុរសចំណាស់ឃើញឆ្កែ។", "char"),
}


@pytest.mark.parametrize(("sentence", "tokenizer"), LANGUAGES.values(), ids=LANGUAGES)
def test_a_perfect_translation_scores_100_in_any_language(sentence, tokenizer):
    result = score([sentence], [sentence])
    assert result.bleu == pytest.approx(100)
    assert result.chrf == pytest.approx(100)
    assert f"tok:{tokenizer}|" in result.bleu_signature
    assert bleu_tokenizer([sentence]) == tokenizer
    assert 0 <= score(["x"], [sentence]).bleu < 1  # the references decide, not what was made of them


def test_chinese_is_scored_as_others_score_it():
    references = ["那个老人看见了一只狗。", "他说她没有生病。"]
    hypotheses = ["那个老人看见一只猫。", "他说她没有病。"]
    assert score(hypotheses, references).bleu == sacrebleu.corpus_bleu(hypotheses, [references], tokenize="zh").score


@pytest.mark.parametrize(
    ("references", "whether"),
    [(["Hund", "der Hund"], False), (["Hund", "da ist ein Hund"], True), (["狗在那里"], True)],
)
def test_bleu_counts_four_words_in_a_row(references, whether):
    assert has_four_words(references) == whether
    assert score(references, references).bleu == pytest.approx(100 if whether else 0)


def test_each_translation_has_its_own_reference():
    assert score(REFERENCES[1:] + REFERENCES[:1], REFERENCES).bleu < 50


@pytest.mark.parametrize(("hypotheses", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_lines_that_do_not_match_are_not_scored(hypotheses, references):
    words = f"{len(hypotheses)} translations cannot be scored against {len(references)} references"
    with pytest.raises(ValueError, match=words):
        score(hypotheses, references)


@pytest.fixture(scope="module")
def pairs():
    random = np.random.default_rng(0)
    return [tuple(random.integers(4, 12, size).tolist() for size in random.integers(1, 9, 2)) for _ in range(25)]


@pytest.mark.parametrize("batch_tokens", [1, 20, 64, 4096])
def test_the_loss_is_the_mean_over_all_tokens(make_model, pairs, monkeypatch, batch_tokens):
    """-ln p of every target token and END, from one unpadded sentence at a time; nothing is dropped or smoothed."""
    model = make_model(12, dropout=0.5, attention_dropout=0.5)
    losses = []
    for source, target in pairs:
        logits = model(np.array([[*source, END]]), np.array([[BEGIN, *target]])).data[0]
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [-log_p[t, token] for t, token in enumerate([*target, END])]
    monkeypatch.setattr(tensor, "Node", None)  # nothing is recorded
    loss = evaluate_loss(model, pairs, batch_tokens)
    assert loss.per_token == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    assert loss.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-12)
    assert not model.parameters.grad.any()
    assert recording.get()


@pytest.mark.parametrize(("loss", "perplexity"), [(0.0, 1.0), (math.log(8), 8.0), (1e4, math.inf)])
def test_perplexity_is_e_to_the_loss(loss, perplexity):
    assert Loss(loss).perplexity == pytest.approx(perplexity)


def test_translations_are_scored_in_order():
    class Upper:
        def translate(self, lines, search):
            told.append(search)
            return [line.upper() for line in lines]

    told, search = [], Search(beam=3, alpha=1.5)
    result, translations = evaluate_translation(Upper(), HYPOTHESES, REFERENCES, search)
    assert translations == [line.upper() for line in HYPOTHESES]
    assert result == score(translations, REFERENCES)
    assert told == [search]
