"""How good a model is: loss and perplexity by token, BLEU and chrF of its translations."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF

from tinytransformer.data import Pair, batches
from tinytransformer.ops import cross_entropy
from tinytransformer.tape import no_grad
from tinytransformer.transformer import PAD, Transformer
from tinytransformer.translation import GREEDY, Search, Translator

HAN = "[\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]"
# Of other scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer and Japanese ones.
OTHERS = "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\uff66-\uff9d]"
WORD = rf"(?:(?!{HAN}|{OTHERS})[^\W\d_])+"


@dataclass(frozen=True)
class Loss:
    """Mean negative ln-probability of a target token, END included; without label smoothing."""

    per_token: float

    @property
    def perplexity(self) -> float:
        """e^loss: among how many equally likely tokens the model is undecided."""
        return math.exp(self.per_token) if self.per_token < 700 else math.inf


def evaluate_loss(model: Transformer, pairs: Sequence[Pair], batch_tokens: int = 4096) -> Loss:
    """Return the loss of `model` on `pairs`, without dropout."""
    total, tokens = 0.0, 0
    with no_grad():
        for batch in batches(pairs, batch_tokens):
            target = model.place_target(batch.target)
            logits = model(model.place_source(batch.source), target[:, :-1])
            total += float(cross_entropy(logits, targets=target[:, 1:], padding=PAD, count=1).data)
            tokens += batch.tokens
    return Loss(total / tokens)


@dataclass(frozen=True)
class Score:
    """Corpus-level BLEU and chrF, from 0 to 100, with the signatures that say how they were counted."""

    bleu: float
    bleu_signature: str
    chrf: float
    chrf_signature: str


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Score translations against one reference each, cased, with sacrebleu's defaults but for `bleu_tokenizer`.

    Raises: ValueError if the numbers of lines differ or there is none.
    """
    if len(hypotheses) != len(references) or not hypotheses:
        raise ValueError(f"{len(hypotheses)} translations cannot be scored against {len(references)} references")
    # force: without a warning about text that is tokenised
    bleu, chrf = BLEU(tokenize=bleu_tokenizer(references), force=True), CHRF()
    bleu_score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    chrf_score = chrf.corpus_score(list(hypotheses), [list(references)]).score
    return Score(bleu_score, str(bleu.get_signature()), chrf_score, str(chrf.get_signature()))


def bleu_tokenizer(references: Sequence[str]) -> str:
    """Return sacrebleu's name of how to cut text like this into the words that BLEU counts.

    "13a", its default, cuts at spaces and punctuation. In scripts without spaces a sentence would be one word, and BLEU
    0. Where their characters are more than all other words, "zh" takes every Chinese character for a word, and "char"
    every one of others.
    """
    text = "\n".join(references)
    han, others, words = (len(re.findall(kind, text)) for kind in (HAN, OTHERS, WORD))
    if han + others <= words:
        return "13a"
    return "zh" if han > 9 * others else "char"  # Japanese has both


def has_four_words(references: Sequence[str]) -> bool:
    """Return whether any reference has four words. If none has, BLEU says nothing, since it counts four in a row too.

    A perfect translation then has 0, and one that goes on and on has more.
    """
    cut = BLEU(tokenize=bleu_tokenizer(references)).tokenizer
    return any(len(cut(line).split()) >= 4 for line in references)


def evaluate_translation(
    translator: Translator,
    sources: Sequence[str],
    references: Sequence[str],
    search: Search = GREEDY,
) -> tuple[Score, list[str]]:
    """Translate `sources`; return the score against `references`, and the translations."""
    hypotheses = translator.translate(sources, search)
    return score(hypotheses, references), hypotheses
