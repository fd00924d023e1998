"""Weights and state as a stranger or a failing disk may leave them: refused in one line, or bit for bit the true ones.

Each loader is tried on damaged and on made-up files; what has been found is written out, and so is tried every time.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hostile import FUZZ, altered, damaged, header_of, refusal, with_header
from hypothesis import given
from hypothesis import strategies as st
from scripts import ROOT

from tinytransformer.checkpoint import load_model, load_state, load_weights
from tinytransformer.shortlist import NAME, Shortlist
from tinytransformer.tokenizer import Tokenizer

# --- model.safetensors

WEIGHTS = {
    "nothing": lambda content: b"",
    "header beyond the file": lambda content: b"\xff" * 6 + bytes(2) + content,
    "header of a gigabyte": lambda content: (1 << 30).to_bytes(8, "little") + content,
    "nested header": lambda content: with_header(content, "[" * 100_000),
    "one value changed": lambda content: content[:-2] + bytes([content[-2] ^ 1]) + content[-1:],
    "not a number": lambda content: content[:-4] + b"\0\0\xc0\x7f",
    "infinite, and no digest": lambda content: without_digest(content)[:-4] + b"\0\0\x80\x7f",
    "many unknown names": lambda content: with_more_names(content, [f"n{i}" for i in range(10_000)]),
    "name that draws on the screen": lambda content: with_more_names(content, ["\x1b[2J\n\u202e"]),
    "long name": lambda content: with_more_names(content, ["n" * 1_000_000]),
    "double precision": lambda content: safetensors.numpy.save(
        {name: array.astype(np.float64) for name, array in safetensors.numpy.load(content).items()}
    ),
    "whole numbers": lambda content: content.replace(b'"F32"', b'"I32"'),
}


def with_more_names(content, names):
    """Return the file with further arrays, of no elements."""
    nothing = {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names}
    return with_header(content, json.dumps({**header_of(content), **nothing}))


def without_digest(content):
    header = header_of(content)
    del header["__metadata__"]
    return with_header(content, json.dumps(header))


def assert_any_weights_are_refused_or_the_true_ones(hostile_run, content):
    path = hostile_run.directory / "model.safetensors"
    path.write_bytes(content)
    true = hostile_run.model.parameters.data.tobytes()
    message = refusal(load_weights, path, hostile_run.model)
    assert hostile_run.model.parameters.data.tobytes() == true  # whether refused or not
    assert message is None or message.startswith(f"{path}: ")
    return message


@FUZZ
@given(data=st.data())
def test_any_weights_are_refused_or_the_true_ones(hostile_run, data):
    """Wherever the damage is, in the header or in a number."""
    content = hostile_run.contents["model.safetensors"]
    size = int.from_bytes(content[:8], "little")
    assert_any_weights_are_refused_or_the_true_ones(hostile_run, data.draw(damaged(content, size) | st.binary()))


@FUZZ
@given(data=st.data())
def test_any_header_is_refused_or_the_true_one(hostile_run, data):
    """Without a digest a header may name the same numbers in another order, so only the refusal is looked at."""
    content = hostile_run.contents["model.safetensors"]
    (hostile_run.directory / "other").write_bytes(with_header(content, data.draw(altered(header_of(content)))))
    before = hostile_run.model.parameters.data.copy()
    message = refusal(load_weights, hostile_run.directory / "other", hostile_run.model)
    hostile_run.model.parameters.data[...] = before
    assert message is None or message.startswith(f"{hostile_run.directory / 'other'}: ")


@pytest.mark.parametrize("change", WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_were_found(hostile_run, change):
    content = change(hostile_run.contents["model.safetensors"])
    assert assert_any_weights_are_refused_or_the_true_ones(hostile_run, content) is not None


def test_a_header_beyond_all_measure_is_not_read(hostile_run):
    content = WEIGHTS["header of a gigabyte"](hostile_run.contents["model.safetensors"])
    message = assert_any_weights_are_refused_or_the_true_ones(hostile_run, content)
    assert message.endswith(": its header claims 1,073,741,824 bytes, expected at most 8,388,608")


@pytest.mark.parametrize(("more", "words"), [(4000, "n0 is unknown; "), (6000, ", expected at most 5,000")])
def test_a_file_of_too_many_arrays_is_not_looked_at(hostile_run, more, words):
    content = with_more_names(hostile_run.contents["model.safetensors"], [f"n{i}" for i in range(more)])
    assert words in assert_any_weights_are_refused_or_the_true_ones(hostile_run, content)


def test_weights_without_a_digest_are_read(hostile_run):
    """As other programs and older versions write them."""
    content = without_digest(hostile_run.contents["model.safetensors"])
    assert assert_any_weights_are_refused_or_the_true_ones(hostile_run, content) is None


def test_every_flipped_bit_in_a_number_is_found(hostile_run):
    content = hostile_run.contents["model.safetensors"]
    size = 8 + int.from_bytes(content[:8], "little")
    for i in range(50):
        at, flipped = size + i * (len(content) - size) // 50, bytearray(content)
        flipped[at] ^= 1 << i % 8
        assert assert_any_weights_are_refused_or_the_true_ones(hostile_run, bytes(flipped)) is not None


# --- shortlist.safetensors


@FUZZ
@given(data=st.data())
def test_any_shortlist_is_refused_or_the_true_one(hostile_run, data):
    path, content = hostile_run.directory / NAME, hostile_run.contents[NAME]
    size, tokenizer = int.from_bytes(content[:8], "little"), Tokenizer.load(hostile_run.directory / "tokenizer.model")
    true = Shortlist.load(hostile_run.directory, tokenizer)
    try:
        path.write_bytes(data.draw(damaged(content, size) | st.binary()))
        found = []
        message = refusal(lambda: found.append(Shortlist.load(hostile_run.directory, tokenizer)))
    finally:
        path.write_bytes(content)
    assert message is None or message.startswith(f"{path}: ")
    for shortlist in found:
        assert shortlist.translations.tobytes() == true.translations.tobytes()
        assert shortlist.frequent.tobytes() == true.frequent.tobytes()


# --- state.safetensors

COUNTS = {
    "step is a fraction": {"step": 7.5},
    "step is true": {"step": True},
    "step is negative": {"step": -1},
    "step is text": {"step": "7"},
    "not a number": {"loss_sum": np.nan},
    "infinite": {"loss_sum": np.inf},
    "beyond 64 bits": {"token_sum": 10**400},
    "best is not a number": {"best": np.nan},
    "best is null": {"best": None},
    "name that draws on the screen": {"\x1b[2J\n": "\x1b[2J\n"},
}


def loaded(hostile_run):
    """Load the state; return the message, if it was refused, and whether anything has changed."""
    optimizer = hostile_run.optimizer
    parts = (optimizer.parameters.data, optimizer.m, optimizer.v)
    before = [array.tobytes() for array in parts]
    message = refusal(lambda: load_state(hostile_run.directory, optimizer) == hostile_run.counters or 1 / 0)
    assert [array.tobytes() for array in parts] == before
    assert message is None or message.startswith(f"{hostile_run.directory / 'state.safetensors'}: ")
    return message


@FUZZ
@given(data=st.data())
def test_any_state_is_refused_or_the_true_one(hostile_run, data):
    """Arrays and counters both."""
    content = hostile_run.contents["state.safetensors"]
    size = int.from_bytes(content[:8], "little")
    (hostile_run.directory / "state.safetensors").write_bytes(data.draw(damaged(content, size) | st.binary()))
    loaded(hostile_run)


@FUZZ
@given(data=st.data())
def test_any_counters_are_refused_or_the_true_ones(hostile_run, data):
    counters = data.draw(altered(hostile_run.counters))
    header = header_of(hostile_run.contents["state.safetensors"])
    digest = json.loads(header["__metadata__"]["counters"])["sha256"]
    header["__metadata__"]["counters"] = json.dumps({**json.loads(counters), "sha256": digest})
    content = with_header(hostile_run.contents["state.safetensors"], json.dumps(header))
    (hostile_run.directory / "state.safetensors").write_bytes(content)
    loaded(hostile_run)


@pytest.mark.parametrize("change", COUNTS.values(), ids=COUNTS)
def test_counters_that_were_found(hostile_run, change):
    """Refused for what they are, without a digest too."""
    header = header_of(hostile_run.contents["state.safetensors"])
    header["__metadata__"]["counters"] = json.dumps({**hostile_run.counters, **change})
    content = with_header(hostile_run.contents["state.safetensors"], json.dumps(header))
    (hostile_run.directory / "state.safetensors").write_bytes(content)
    assert "the counter " in loaded(hostile_run)


# --- All together


def test_files_in_each_others_place_are_refused(hostile_run):
    names = list(hostile_run.contents)
    for name in names:
        for other in set(names) - {name}:
            (hostile_run.directory / name).write_bytes(hostile_run.contents[other])
            if name == "state.safetensors":
                assert loaded(hostile_run) is not None
            elif name == NAME:
                tokenizer = Tokenizer(hostile_run.contents["tokenizer.model"])
                assert refusal(Shortlist.load, hostile_run.directory, tokenizer) is not None
            else:
                assert refusal(load_model, hostile_run.directory).startswith(f"{hostile_run.directory / name}: ")
        (hostile_run.directory / name).write_bytes(hostile_run.contents[name])
    assert refusal(load_model, hostile_run.directory) is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory a process had")
def test_hostile_files_take_little_memory(hostile_run):
    """All of the worst ones, in a process of its own that says how much it had at most."""
    fields = json.loads(hostile_run.contents["config.json"])
    fields["model"].update(width=1 << 18, feed_forward_width=1 << 18)
    content = hostile_run.contents["model.safetensors"]
    worst = {
        "config.json": [json.dumps(fields).encode(), b"[" * 7_000_000, b"[" + b"[]," * 2_700_000],
        "tokenizer.model": [b"\n\3\n\1a" * (1 << 21), b"\x0a\xff\xff\xff\xff\x07"],
        "model.safetensors": [
            with_more_names(content, [f"{i}" for i in range(110_000)]),
            WEIGHTS["header of a gigabyte"](content),
        ],
    }
    program = """
import sys
from pathlib import Path
from tinytransformer.checkpoint import CheckpointError, load_model
from tinytransformer.tokenizer import VocabularyError
for path in sys.argv[1:]:
    try:
        load_model(Path(path))
        sys.exit(f"{path} was loaded")
    except (CheckpointError, VocabularyError):
        status = Path("/proc/self/status").read_text()  # not ru_maxrss, which begins at that of the parent process
        print(status.split("VmHWM:")[1].split()[0])
"""
    paths = []
    for name, texts in worst.items():
        for i, text in enumerate(texts):
            paths.append(hostile_run.directory.parent / f"{i}-{name}")
            paths[-1].mkdir(exist_ok=True)
            for other in hostile_run.contents:
                (paths[-1] / other).write_bytes(text if other == name else hostile_run.contents[other])
    command = [sys.executable, "-c", program, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    kilobytes = [int(line) for line in done.stdout.split()]
    assert len(kilobytes) == len(paths)
    assert max(kilobytes) < 400_000, dict(zip(paths, kilobytes, strict=True))
