"""From files to batches: lines as they stand, errors that name the place, and no pair lost or doubled."""

import re
from pathlib import Path

import numpy as np
import pytest

from tinytransformer.data import (
    Corpus,
    DataError,
    batches,
    encode_corpus,
    fingerprint,
    make_batch,
    pad,
    padding_share,
    plan_batches,
    read_lines,
    read_parallel,
)
from tinytransformer.transformer import BEGIN, END, PAD

OTHER_BREAKS = "a\x85b\u2028c\u2029d\x0be\x0cf\x1cg\x1dh\x1ei"
CONTENTS = {
    "final newline": (b"a\nb\n", ["a", "b"]),
    "no final newline": (b"a\nb", ["a", "b"]),
    "empty lines": (b"\na\n\n\n", ["", "a", "", ""]),
    "nothing": (b"", []),
    "one newline": (b"\n", [""]),
    "windows": (b"a\r\nb\r\n\r\nc\r", ["a", "b", "", "c"]),
    "one carriage return each": (b"a\r\r\nb\rc\n", ["a\r", "b\rc"]),
    "byte order mark": (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
    "other line breaks": (f"{OTHER_BREAKS}\n".encode(), [OTHER_BREAKS]),
    "spaces stay": (b"  a \t\n", ["  a \t"]),
}


@pytest.mark.parametrize(("content", "lines"), CONTENTS.values(), ids=CONTENTS)
def test_lines_end_at_newlines_alone(tmp_path, content, lines):
    (tmp_path / "text").write_bytes(content)
    assert read_lines(tmp_path / "text") == lines


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff", r"line 1 is not UTF-8 \(byte 0xff\)"),
        (b"a\nb\nGr\xfc\xdfe\nd\xff\n", r"line 3 is not UTF-8 \(byte 0xfc\)"),
        ("ok\u2028ok\r\n".encode() + b"\xe4\n", r"line 2 is not UTF-8 \(byte 0xe4\)"),
        (b"a\nb\xe2\x82", r"line 2 is not UTF-8 \(byte 0xe2\)"),
    ],
)
def test_a_line_that_is_not_utf8_is_named(tmp_path, content, words):
    path = tmp_path / "text"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}: {words}$"):
        read_lines(path)


@pytest.mark.parametrize(("name", "words"), [("missing", "No such file or directory"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, words):
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / name))}: {words}$"):
        read_lines(tmp_path / name)


def write_pair(folder, source, target):
    (folder / "a.en").write_bytes(source)
    (folder / "a.de").write_bytes(target)
    return folder / "a.en", folder / "a.de"


def test_parallel_files_are_read_side_by_side(tmp_path):
    paths = write_pair(tmp_path, b"one\r\n\ntwo", b"eins\n\nzwei\n")
    assert read_parallel(*paths) == (["one", "", "two"], ["eins", "", "zwei"])


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (b"a\nb\nc\n", b"a\nb\n", r"a\.en has 3 lines but .*a\.de has 2; "),
        (b"", b"a\n", r"a\.en has 0 lines but .*a\.de has 1; "),
        (b"a\xe2\x80\xa8b\n", b"a\nb\n", r"a\.en has 1 lines but .*a\.de has 2; "),
        (b"", b"", r"a\.en and .*a\.de hold no sentence pair"),
        (b"\n\n \n", b"\n\n \n", r"a\.en and .*a\.de hold no sentence pair"),
        (b"a\n\n", b"\nb\n", r"a\.en and .*a\.de hold no sentence pair"),
        (b"a\n", b"\xff\n", r"a\.de: line 1 is not UTF-8"),
    ],
)
def test_files_that_are_not_parallel_are_named(tmp_path, source, target, words):
    with pytest.raises(DataError, match=words):
        read_parallel(*write_pair(tmp_path, source, target))


class OneIdPerLetter:
    def encode(self, line):
        return [ord(letter) for letter in line]


def test_empty_and_long_pairs_are_left_out_and_counted():
    """With END a sentence may have `max_length` tokens, and not one more, on either side."""
    sources = ["abc", "abcd", "a", "", "a", " ", "ab", "abcd", "abcde"]
    targets = ["xyz", "x", "wxyz", "x", "\t", "", "z", "", "xyzzy"]
    corpus = encode_corpus(OneIdPerLetter(), sources, targets, 4)
    assert corpus.pairs == [([97, 98, 99], [120, 121, 122]), ([97, 98], [122])]
    assert (corpus.empty, corpus.long) == (4, 3)
    with pytest.raises(ValueError, match="zip"):
        encode_corpus(OneIdPerLetter(), ["a", "b"], ["a"], 4)


def test_the_length_ratio_covers_all_but_the_outliers():
    pairs = [([7] * 4, [7] * 6)] * 5000
    assert Corpus(pairs, 0, 0).length_ratio() == 1.5
    assert Corpus([*pairs, ([7], [7] * 90)], 0, 0).length_ratio() == 1.5
    assert Corpus([([7] * 2, [7] * 3), ([7], [7] * 3)], 0, 0).length_ratio() == pytest.approx(3, abs=0.01)


def test_a_batch_is_laid_out_with_begin_end_and_padding():
    batch = make_batch([([5, 6, 7], [8]), ([9], [4, 5])])
    np.testing.assert_array_equal(batch.source, [[5, 6, 7, END], [9, END, PAD, PAD]])
    np.testing.assert_array_equal(batch.target, [[BEGIN, 8, END, PAD], [BEGIN, 4, 5, END]])
    assert batch.tokens == 2 + 3
    np.testing.assert_array_equal(pad([[1], [2, 3]]), [[1, PAD], [2, 3]])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_shares_divide_a_batch(count):
    """Every sentence is in one share, and the token counts of the shares add up."""
    batch = make_batch([([i] * i, [i] * (i + 1)) for i in range(4, 11)])
    shares = [batch.share(i, count) for i in range(count)]
    assert [share is None for share in shares] == [i >= 7 for i in range(count)]
    shares = [share for share in shares if share is not None]
    for side in ("source", "target"):
        rows = [row for share in shares for row in getattr(share, side).tolist()]
        assert sorted(rows) == sorted(getattr(batch, side).tolist())
    assert sum(share.tokens for share in shares) == batch.tokens
    assert all(share.tokens == (share.target[:, 1:] != PAD).sum() > 0 for share in shares)


def realistic_pairs(count):
    """Lengths as in captions: about 14 tokens, some much longer, and the target goes with the source."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(2.6, 0.4, count), 1, 120).astype(int)
    targets = np.maximum(1, np.rint(lengths * random.normal(1.1, 0.15, count))).astype(int)
    return [([5] * s, [6] * t) for s, t in zip(lengths.tolist(), targets.tolist(), strict=True)]


@pytest.mark.parametrize("batch_tokens", [30, 100, 1000, 4096, 10**9])
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_every_pair_is_in_one_batch_and_no_batch_is_too_large(batch_tokens, seed):
    pairs = realistic_pairs(1000)
    plan = plan_batches(pairs, batch_tokens, None if seed is None else np.random.default_rng(seed))
    assert sorted(i for batch in plan for i in batch) == list(range(len(pairs)))
    for indices in plan:
        batch = make_batch([pairs[i] for i in indices])
        size = max(batch.source.size, batch.target[:, 1:].size)
        assert size <= batch_tokens or len(indices) == 1
        assert batch.tokens == sum(len(pairs[i][1]) + 1 for i in indices)


def test_batches_are_as_full_as_the_limit_allows():
    """Ten sentences of nine tokens and END: five in a batch of 50 padded tokens, four in one of 49."""
    for short, long in (("source", "target"), ("target", "source")):
        pairs = [tuple({short: [5], long: [6] * 9}[side] for side in ("source", "target"))] * 10
        assert [len(batch) for batch in plan_batches(pairs, 50)] == [5, 5]
        assert [len(batch) for batch in plan_batches(pairs, 49)] == [4, 4, 2]
        assert [len(batch) for batch in plan_batches(pairs, 9)] == [1] * 10


def test_the_plan_comes_from_the_generator_alone():
    pairs = realistic_pairs(500)
    plans = [plan_batches(pairs, 300, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    assert {frozenset(batch) for batch in plans[0]} != {frozenset(batch) for batch in plans[2]}
    lengths = [max(len(pairs[i][1]) for i in batch) for batch in plans[0]]
    assert lengths != sorted(lengths)  # the batches come in any order


def test_without_a_generator_batches_go_from_short_to_long():
    pairs = realistic_pairs(500)
    plan = plan_batches(pairs, 300)
    assert plan == plan_batches(pairs, 300)
    lengths = [max(map(len, pairs[i])) for batch in plan for i in batch]
    assert lengths == sorted(lengths)


def test_batches_are_those_of_the_plan():
    pairs = realistic_pairs(200)
    for batch, indices in zip(batches(pairs, 300), plan_batches(pairs, 300), strict=True):
        expected = make_batch([pairs[i] for i in indices])
        np.testing.assert_array_equal(batch.source, expected.source)
        np.testing.assert_array_equal(batch.target, expected.target)
        assert batch.tokens == expected.tokens


def test_of_nothing_nothing_is_planned():
    assert plan_batches([], 100) == []
    assert plan_batches([], 100, np.random.default_rng(0)) == []
    assert list(batches([], 100)) == []


def test_the_share_of_padding_counted_by_hand():
    """Source 3 + 1 and 1 + 1 of 8 places, target 1 + 1 and 2 + 1 of 6; then a pair alone, which has no padding."""
    pairs = [([5, 6, 7], [8]), ([9], [4, 5]), ([4] * 7, [5] * 2)]
    assert padding_share(pairs, [[0, 1]]) == pytest.approx(3 / 14)
    assert padding_share(pairs, [[1, 0], [2]]) == pytest.approx(3 / 25)
    assert padding_share(pairs, [[0], [1], [2]]) == 0


def counted(pairs, plan):
    """The share of PAD in the arrays themselves."""
    planned = [make_batch([pairs[i] for i in indices]) for indices in plan]
    size = sum(batch.source.size + batch.target[:, 1:].size for batch in planned)
    return 1 - sum((batch.source != PAD).sum() + batch.tokens for batch in planned) / size


@pytest.mark.parametrize("seed", [None, 0])
def test_little_is_padding(seed):
    pairs = realistic_pairs(20_000)
    plan = plan_batches(pairs, 4096, None if seed is None else np.random.default_rng(seed))
    assert 0 < padding_share(pairs, plan) <= 0.1
    assert padding_share(pairs, plan) == pytest.approx(counted(pairs, plan), rel=1e-9)


def test_little_of_a_real_corpus_is_padding(multi30k):
    english, german, tokenizer = multi30k
    corpus = encode_corpus(tokenizer, english, german, 256)
    assert len(corpus.pairs) == len(english) - corpus.empty - corpus.long > 28_000
    assert padding_share(corpus.pairs, plan_batches(corpus.pairs, 4096, np.random.default_rng(0))) <= 0.1


def test_a_fingerprint_changes_with_every_line_its_place_and_its_text():
    """And with nothing else: 16 hexadecimal digits, the same for the same lines."""
    texts = ["abcd", "efgh", "i", "j"]  # every letter a line
    first = fingerprint(*texts)
    assert re.fullmatch("[0-9a-f]{16}", first)
    assert fingerprint(*map(list, texts)) == first
    divided = (texts[:2], texts[::-1], ["abcdefghij"], ["abcde", "fgh", "i", "j"])
    others = {tuple(map(tuple, other)) for other in divided}
    for i, text in enumerate(texts):
        for j, line in enumerate(text):
            for lines in (["x"], [f"{line} "], [line.upper()], [f"{line}\u00e9"], [], [line, line], [line, "", line]):
                changed = [*text[:j], *lines, *text[j + 1 :]]
                others.add(tuple(map(tuple, [*texts[:i], changed, *texts[i + 1 :]])))
            swapped = [*text[: max(j - 1, 0)], *text[j : j + 1], *text[max(j - 1, 0) : j], *text[j + 1 :]]
            others.add(tuple(map(tuple, [*texts[:i], swapped, *texts[i + 1 :]])))
    others.discard(tuple(map(tuple, texts)))
    assert len(others) > 60
    assert len({first, *(fingerprint(*other) for other in others)}) == len(others) + 1


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(DataError, match="no file can have this name"):
        read_lines(Path("a\0b"))
