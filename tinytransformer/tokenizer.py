"""Subwords: text to token ids and back, by a vocabulary learned from the training text.

Byte-pair encoding (Sennrich, Haddow and Birch 2016, arXiv:1508.07909) as sentencepiece has it: the most frequent
pairs of pieces are merged until the vocabulary is full. What the vocabulary does not hold is spelled in UTF-8 bytes,
each a piece of its own, so every text can be written and none is changed on the way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from tinytransformer.transformer import BEGIN, END, PAD, UNKNOWN

# sentencepiece writes a space as U+2581 and so would read a real U+2581 as a space. In its place goes an escape: a
# private-use character, which also escapes itself.
_SPACE_MARK, _ESCAPE = "\u2581", "\ue000"


class VocabularyError(ValueError):
    """A vocabulary that cannot be made from this text, or a file that is not one."""


class Tokenizer:
    """A vocabulary shared by source and target.

    model: the bytes of a sentencepiece model.
    Raises: VocabularyError if they are not one, or one with other ids for padding, begin and end.
    """

    def __init__(self, model: bytes):
        self.model = model
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise VocabularyError("the tokenizer model is damaged, or no sentencepiece model") from None
        found = (self._pieces.pad_id(), self._pieces.unk_id(), self._pieces.bos_id(), self._pieces.eos_id())
        if found != (PAD, UNKNOWN, BEGIN, END):
            raise VocabularyError(f"the tokenizer model has special ids {found}, expected {(PAD, UNKNOWN, BEGIN, END)}")

    @classmethod
    def train(cls, lines: Iterable[str], size: int, *, exact: bool = True) -> Tokenizer:
        """Learn a vocabulary of `size` pieces from `lines`; the same lines give the same bytes.

        exact: whether a text that does not yield `size` pieces is an error; otherwise the vocabulary is as large as
            the text allows.
        Raises: VocabularyError that says which sizes the text allows.
        """
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=(_escape(line) for line in lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=size,
                hard_vocab_limit=exact,
                pad_id=PAD,
                unk_id=UNKNOWN,
                bos_id=BEGIN,
                eos_id=END,
                byte_fallback=True,
                character_coverage=0.9995,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                max_sentence_length=1 << 16,
                num_threads=1,  # with more, the bytes of the model depend on their number
                minloglevel=2,
            )
        except (RuntimeError, ValueError) as error:  # ValueError: a size that no 32-bit number holds
            raise VocabularyError(_explain(size, str(error))) from None
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a model from a file. Raises: VocabularyError that names the file."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise VocabularyError(f"{path}: {error.strerror}") from None
        except VocabularyError as error:
            raise VocabularyError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return self._pieces.vocab_size()

    def encode(self, line: str) -> list[int]:
        """Return the ids of the pieces of `line`, without BEGIN and END."""
        return self._pieces.encode(_escape(line))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; ids of padding, begin and end are passed over."""
        return _unescape(self._pieces.decode([i for i in ids if i not in (PAD, BEGIN, END)]))

    def forbidden(self) -> list[int]:
        """Return the ids that no translation may hold: the special ones, and every piece that would break the line."""
        pieces = enumerate(self._pieces.id_to_piece(list(range(len(self)))))
        breaks = [i for i, piece in pieces if piece in ("<0x0A>", "<0x0D>") or "\n" in piece or "\r" in piece]
        return [PAD, UNKNOWN, BEGIN, *breaks]


def _escape(text: str) -> str:
    return text.replace(_ESCAPE, _ESCAPE + "0").replace(_SPACE_MARK, _ESCAPE + "1")


def _unescape(text: str) -> str:
    return re.sub(_ESCAPE + "([01])", lambda match: (_ESCAPE, _SPACE_MARK)[int(match[1])], text)


def _explain(size: int, error: str) -> str:
    """Turn what sentencepiece says into a line that says what can be had."""
    if most := re.search(r"value <= (\d+)", error):
        return f"a vocabulary of {size} is too large for this text, which allows at most {most[1]}"
    if least := re.search(r"required_chars\. \d+ vs (\d+)", error):
        return f"a vocabulary of {size} is too small for this text, which needs at least {least[1]}"
    return f"no vocabulary of {size} can be learned from this text: {error}"
