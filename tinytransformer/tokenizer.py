"""Subwords: text to token ids and back, by a vocabulary learned from the training text.

Byte-pair encoding (Sennrich, Haddow and Birch 2016, arXiv:1508.07909) as sentencepiece has it: the most frequent
pairs of pieces are merged until the vocabulary is full. What the vocabulary does not hold is spelled in UTF-8 bytes,
each a piece of its own, so every text can be written and none is changed on the way.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece

from tinytransformer.backend import is_out_of_memory
from tinytransformer.reading import LARGEST, read_bytes
from tinytransformer.transformer import BEGIN, END, PAD, UNKNOWN

LONGEST_PIECE = 1000  # bytes, with its score and kind; `Tokenizer.train` makes none above 16 characters

# sentencepiece writes a space as U+2581 and so would read a real U+2581 as a space. In its place goes an escape: a
# private-use character, which also escapes itself.
_SPACE_MARK, _ESCAPE = "\u2581", "\ue000"


class VocabularyError(ValueError):
    """A vocabulary that cannot be made from this text, or a file that is not one."""


DAMAGED = "the tokenizer model is damaged, or no sentencepiece model"


class Tokenizer:
    """A vocabulary shared by source and target.

    model: the bytes of a sentencepiece model.
    Raises: VocabularyError if they are not one, or one that `train` would not have made: with other ids for padding,
        begin and end, rules that rewrite the text, or endless pieces.
    """

    def __init__(self, model: bytes):
        self.model = model
        _require_plain(model)
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
            # One by one: for a list of them it would start threads, which fail or abort where memory is short.
            self._texts: list[str] = [self._pieces.decode([i]) for i in range(len(self))]
        except (RuntimeError, UnicodeDecodeError) as error:
            if is_out_of_memory(error):
                raise
            raise VocabularyError(DAMAGED) from None
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
            if is_out_of_memory(error):
                raise
            raise VocabularyError(_explain(size, str(error))) from None
        if model.tell() > LARGEST:
            raise VocabularyError(f"a vocabulary of {size} would make a file of more than {LARGEST:,} bytes")
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a model from a file. Raises: VocabularyError that names the file."""
        try:
            return cls(read_bytes(path))
        except OSError as error:
            raise VocabularyError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise VocabularyError(f"{path}: {error}") from None

    def __len__(self) -> int:
        return self._pieces.vocab_size()

    def encode(self, line: str) -> list[int]:
        """Return the ids of the pieces of `line`, without BEGIN and END."""
        return self._pieces.encode(_escape(line))

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of `ids`; ids of padding, begin and end are passed over."""
        return _unescape(self._pieces.decode([i for i in ids if i not in (PAD, BEGIN, END)]))

    def digest(self) -> str:
        """Return the SHA-256 of the model, in hexadecimal."""
        return hashlib.sha256(self.model).hexdigest()

    def forbidden(self) -> list[int]:
        """Return the ids that no translation may hold: the special ones, and every piece that would break the line."""
        breaks = [i for i, text in enumerate(self._texts) if "\n" in text or "\r" in text]
        return [PAD, UNKNOWN, BEGIN, *breaks]


def _require_plain(model: bytes) -> None:
    """Raise VocabularyError for what `Tokenizer.train` makes none of: endless pieces, rules for the text, examples.

    Versions of sentencepiece crash on a piece of 100,000 bytes, or read beyond the end of a forged table of rules.
    Source: the fields of sentencepiece_model.proto.
    """
    if not model:  # which sentencepiece takes for the wish to load one later
        raise VocabularyError(DAMAGED)
    pieces, rules, examples, rules_back, table = 1, 3, 4, 5, 2
    for number, content in _fields(model):
        if number == pieces and len(content) > LONGEST_PIECE:
            raise VocabularyError(f"the tokenizer model has a piece of {len(content):,} bytes")
        if number == examples or (
            number in (rules, rules_back) and any(part == table and rule for part, rule in _fields(content))
        ):
            raise VocabularyError("the tokenizer model has rules that rewrite the text, or examples of them")


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a protocol-buffer message; of a number, no content.

    Raises: VocabularyError for what is none. Source: https://protobuf.dev/programming-guides/encoding.
    """
    stream = io.BytesIO(message)

    def varint() -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = ord(stream.read(1) or b"\xff")  # beyond the end a number does not end
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise VocabularyError(DAMAGED)

    while stream.tell() < len(message):
        number, kind = divmod(varint() % 2**32, 8)
        if kind == 0:
            varint()
            yield number, b""
        elif kind in (1, 2, 5):
            yield number, stream.read(min({1: 8, 5: 4}.get(kind) or varint(), len(message)))
        else:
            raise VocabularyError(DAMAGED)


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
    if "insert_id" in error:
        return f"a vocabulary of {size} is too small for the tokens that every vocabulary has"
    if "sentences_.empty" in error:
        error = "it holds no line that could be read as a sentence"
    return f"no vocabulary of {size} can be learned from this text: {error}"
