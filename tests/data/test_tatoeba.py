"""Reading and splitting sentence pairs, by hand and on the real corpora that the program would download."""

import random

import download
import pytest
import transfer
from download import read_pairs, split_pairs


def some_pairs(count=3000):
    """Pairs that share sentences on both sides."""
    rng = random.Random(3)
    return [(f"e{rng.randrange(count // 2)}", f"f{rng.randrange(count // 2)}") for _ in range(count)]


def hold_apart(splits):
    """Hold the splits to their promise: what is evaluated on stands in no other split, on neither side, and once."""
    for split in ("valid", "test"):
        for side in (0, 1):
            held_out = [pair[side] for pair in splits[split]]
            assert len(set(held_out)) == len(held_out)
            for other in {*splits} - {split}:
                assert not {pair[side] for pair in splits[other]} & set(held_out)
    train = splits["train"]
    assert len(set(train)) == len(train)


def test_pairs_are_read_without_attribution_and_no_break_spaces():
    text = (
        "\ufeffGo.\tVa\u202f!\tCC-BY 2.0\r\nIs it?\tEst-ce\u00a0?\r\n"
        "\n \u00a0\n\tRien.\nNothing.\t\u202f\na\u2028b\tc\u200bd"
    )
    expected = [("Go.", "Va !"), ("Is it?", "Est-ce ?"), ("a\u2028b", "c\u200bd")]
    assert read_pairs(text.encode(), "fra.txt") == expected


def test_no_sentence_is_in_two_splits():
    pairs = some_pairs()
    splits = split_pairs(pairs)
    hold_apart(splits)
    assert {pair for split in splits.values() for pair in split} <= set(pairs)
    tenth = len({english for english, _ in pairs}) // 10
    assert [len(splits[split]) for split in ("test", "valid")] == [tenth, tenth]


def test_only_what_would_leak_is_left_out():
    pairs = some_pairs()
    splits = split_pairs(pairs)
    used = [{pair[side] for split in ("test", "valid") for pair in splits[split]} for side in (0, 1)]
    free = {(english, other) for english, other in pairs if english not in used[0] and other not in used[1]}
    assert set(splits["train"]) == free


def test_the_split_depends_on_nothing_but_the_sentences():
    pairs = some_pairs()
    splits = split_pairs(pairs)
    random.Random(1).shuffle(pairs)
    assert split_pairs(pairs + pairs[:50]) == splits


def test_the_split_is_the_same_on_every_machine():
    splits = split_pairs([(f"e{i}", f"f{i}{j}") for i in range(20) for j in range(2)])
    assert splits["test"] == [("e12", "f120"), ("e9", "f91")]
    assert splits["valid"] == [("e11", "f111"), ("e5", "f50")]


def test_a_split_has_a_thousand_pairs_where_there_are_enough(monkeypatch):
    assert download.HELD_OUT == 1_000
    monkeypatch.setattr(download, "HELD_OUT", 30)
    assert [len(split_pairs(some_pairs())[split]) for split in ("test", "valid")] == [30, 30]


# ---------------------------------------------------------------- the real ones


@pytest.mark.parametrize("name", download.MULTI30K)
def test_the_sums_are_those_of_multi30k(corpora, name):
    assert transfer.sha256((corpora / "multi30k" / name).read_bytes()) == download.MULTI30K[name]


def test_the_real_sentences_are_split_without_overlap(corpora):
    content = (corpora / "anki-fra-eng" / "fra.txt").read_bytes()
    assert transfer.sha256(content) == download.TATOEBA["fra-eng"]
    splits = split_pairs(read_pairs(content, "fra.txt"))
    hold_apart(splits)
    assert {split: len(pairs) for split, pairs in splits.items()} == {"test": 1_000, "valid": 1_000, "train": 163_910}
    assert not {"\u00a0", "\u202f"} & {c for pairs in splits.values() for pair in pairs for side in pair for c in side}
