"""What train.py refuses: in one line, before anything is written."""

import os

import pytest
from test_scripts import QUICK, TEXT, contents

FAILURES = {
    "unequal files": (
        ("--source", "train.en", "--target", "short.de"),
        "train.en has 250 lines but short.de has 2; line n of one must be the translation of line n of the other",
    ),
    "unequal test files": (
        (*TEXT, "--test-source", "test.en", "--test-target", "short.de"),
        "test.en has 20 lines but short.de has 2; line n of one must be the translation of line n of the other",
    ),
    "missing file": (("--source", "nowhere.en", "--target", "train.de"), "nowhere.en: No such file or directory"),
    "directory": (("--source", ".", "--target", "train.de"), ".: Is a directory"),
    "not UTF-8": (("--source", "short.de", "--target", "latin.de"), "latin.de: line 2 is not UTF-8 (byte 0xfc)"),
    "empty": (("--source", "empty.en", "--target", "empty.de"), "empty.en and empty.de hold no sentence pair"),
    "large vocabulary": (
        (*TEXT, "--vocab-size", "90000"),
        "a vocabulary of 90000 is too large for this text, which allows at most ",
    ),
    "small vocabulary": (
        (*TEXT, "--vocab-size", "100"),
        "a vocabulary of 100 is too small for this text, which needs at least ",
    ),
    "a pipe": (
        ("--source", "pipe.en", "--target", "train.de"),
        "pipe.en is no file, but a pipe or a device, which --resume could not read again",
    ),
    "all too long": ((*TEXT, "--max-length", "1"), "no training pair is shorter than --max-length 1"),
    "out is a file": ((*TEXT, *QUICK, "--out", "train.en"), "train.en is not a directory"),
    "out is below a file": ((*TEXT, *QUICK, "--out", "train.en/run/1"), "train.en is not a directory"),
}


@pytest.mark.parametrize(("arguments", "words"), FAILURES.values(), ids=FAILURES)
def test_training_fails_in_one_line(call, folder, arguments, words):
    """Exit status 1, nothing on standard output, nothing written."""
    if "pipe.en" in arguments and not (folder / "pipe.en").exists():
        os.mkfifo(folder / "pipe.en")
    before = contents(folder)
    status, output, errors = call("train.py", "--out", "failed", *arguments)
    assert (status, output) == (1, [])
    assert errors.startswith(f"train.py: error: {words}")
    assert errors[len(f"train.py: error: {words}") :].rstrip("\n").isdecimal() == words.endswith(" ")
    assert errors.count("\n") == 1
    assert contents(folder) == before
    assert not (folder / "failed").exists()


MISUSES = [
    (("--preset", "nonsense"), "argument --preset: invalid choice: 'nonsense' (choose from "),
    (("--source", "train.en"), "--source and --target go together"),
    (("--valid-source", "valid.en", "--valid-target", "valid.de"), "--valid-source needs --source and --target"),
    ((*TEXT, "--test-target", "test.de"), "--test-source and --test-target go together"),
    (("--dropout", "1.5"), "argument --dropout: '1.5' is not a number from 0 up to, but not including, 1"),
    (("--steps", "0"), "argument --steps: '0' is not a whole number above zero"),
    (("--vocab-size", "many"), "argument --vocab-size: 'many' is not a whole number above zero"),
    (("--learning-rate", "nan"), "argument --learning-rate: 'nan' is not a finite number above zero"),
    (("--steps", "5", "--epochs", "1"), "argument --epochs: not allowed with argument --steps"),
    (("--seed", "-1"), "argument --seed: "),
    (("--nonsense",), "unrecognized arguments: --nonsense"),
]


@pytest.mark.parametrize(("arguments", "words"), MISUSES)
def test_misuse_of_train_is_refused(call, folder, arguments, words):
    """Exit status 2, the usage, and one line."""
    before = contents(folder)
    status, output, errors = call("train.py", *arguments)
    assert (status, output) == (2, [])
    assert errors.startswith("usage: train.py ")
    assert errors.rstrip().split("\n")[-1].startswith(f"train.py: error: {words}")
    assert contents(folder) == before


def test_a_preset_with_too_few_subwords_is_told_apart_from_a_wish(call, folder):
    """Nobody asked for 600; so the option is named."""
    (folder / "many.txt").write_text("".join(f"{chr(0x4E00 + i)}\n" for i in range(700)), encoding="utf-8")
    status, output, errors = call("train.py", "--source", "many.txt", "--target", "many.txt", "--out", "failed")
    assert (status, output) == (1, [])
    assert errors.startswith("train.py: error: a vocabulary of 600 is too small for this text, which needs at least ")
    assert errors.endswith(": set --vocab-size\n")
