"""translate.py between other programs: any text, any number of lines, and readers that are slow, full or gone."""

import io
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from scripts import ROOT, load_script, write_run

from tinytransformer.tokenizer import LONGEST_PIECE

WARNING = "translate.py: warning: line {} is not UTF-8; bytes were replaced"
LONG = "The old man sees the dog. " * 40_000
TEXTS = {
    "byte order mark": (b"\xef\xbb\xbfDog.\n\xef\xbb\xbfDog.\n", 2, []),
    "byte order mark alone": (b"\xef\xbb\xbf", 1, []),
    "UTF-16": ("\ufeffDog.\nDog.\n".encode("utf-16-le"), 3, [1]),
    "carriage returns": (b"Dog.\r\n\r\nDog.\rDog.\r\n", 3, []),
    "NUL": (b"\0\nDog\0.\n\0\0\0", 3, []),
    "all bytes": (bytes(range(256)) + b"\n" + bytes(range(128)), 4, [2]),
    "cut in a character": ("Größ".encode()[:-1] + b"\nDog.\n", 2, [1]),
    "surrogates in UTF-8": (b"\xed\xa0\x80\nDog.\n", 2, [1]),
    "other line breaks": ("a\x85b\u2028c\u2029d\x0be\x0cf\x1cg\x1dh\x1ei\n\x85\n\u2028\n".encode(), 3, []),
    "right to left": ("\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c\n\u0627\u0644\u0633\n".encode(), 2, []),
    "combining": (("e" + "\u0301" * 300 + "\n\u0301\n").encode(), 2, []),
    "emoji": ("\U0001f468\u200d\U0001f469\u200d\U0001f467\n\U0001f1eb\U0001f1f7\u2764\ufe0f\n".encode(), 2, []),
    "private and unassigned": ("\ue000\n\u2581\n\U0010ffff\n\ufffe\n".encode(), 4, []),
    "blanks": (b" \n\t\n\x0b\x0c\n\n", 4, []),
    "no newline at the end": (b"Dog.\nDog.", 2, []),
    "nothing": (b"", 0, []),
    "a line of a megabyte": (f"Dog.\n{LONG}\nDog.\n".encode(), 3, []),
    "cut in a character, far behind": (b"a" + "\u00fc".encode() * 600_000 + b"\nDog.\n", 2, []),
    "a megabyte without a space": (b"a" * 1_000_000 + b"\nDog.\n", 2, []),
    "a megabyte of spaces": (b" " * 1_000_000 + b"\nDog.\n", 2, []),
    "empty lines": (b"\n" * 100_000, 100_000, []),
}


@pytest.fixture(scope="module")
def model(folder, make_model, tokenizer):
    """A run in the folder piped, of a model that soon comes to an end."""
    write_run(folder / "piped", make_model(len(tokenizer), dtype=np.float32), tokenizer)


@pytest.fixture
def translate(folder, model):
    """Return a function that starts translate.py in its folder."""
    started = []

    def start(*arguments, **pipes):
        command = [sys.executable, str(ROOT / "translate.py"), "--model", "piped", "--beam", "1", *arguments]
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=folder, env=environment, **pipes)
        started.append((process, threading.Timer(120, process.kill)))  # so that no test waits for ever
        started[-1][1].start()
        return process

    yield start
    for process, timer in started:
        timer.cancel()
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


@pytest.mark.parametrize(("text", "lines", "replaced"), TEXTS.values(), ids=TEXTS)
def test_as_many_lines_come_out_as_go_in(translate, text, lines, replaced):
    """Whatever they hold; each that had to be repaired is named, and each that is too long."""
    output, errors = translate("--max-length", "5", **PIPES).communicate(text)
    assert output.count(b"\n") == lines
    assert not output.rpartition(b"\n")[2]
    output.decode()
    warnings = errors.decode().splitlines()
    assert [line for line in warnings if "UTF-8" in line] == [WARNING.format(number) for number in replaced]
    long = [number for number, line in enumerate(text.split(b"\n"), start=1) if len(line) >= 1_000_000]
    told = [line for line in warnings if line not in {WARNING.format(number) for number in replaced}]
    assert told == [
        f"translate.py: warning: line {number} has 1024 subwords or more, and the model takes fewer; it is cut"
        for number in long
    ]


def test_a_reader_that_has_enough_ends_it_quietly(translate):
    """As with `| head -1`: nothing is said, and the status is that of a filter that SIGPIPE has ended."""
    process = translate("--line-buffered", "--max-length", "5", **PIPES)
    process.stdin.write(b"Dog.\n" * 1000)
    process.stdin.flush()
    assert process.stdout.readline().endswith(b"\n")
    process.stdout.close()
    process.stdin.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_a_slow_reader_gets_every_line(translate):
    text = "".join(f"Dog number {i}.\n" for i in range(3000)).encode()
    output, _ = translate(**PIPES).communicate(text)
    assert len(output) > 100_000  # more than a pipe holds
    process = translate(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(text)
    process.stdin.close()
    time.sleep(1)
    parts = []
    while part := os.read(process.stdout.fileno(), 10_000):
        parts.append(part)
        time.sleep(0.01)
    assert b"".join(parts) == output
    assert process.wait() == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_a_full_disk_is_told_in_one_line(translate):
    with open("/dev/full", "wb") as full:
        process = translate(stdin=subprocess.PIPE, stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(b"Dog.\n" * 10)
    assert errors == b"translate.py: error: standard output: No space left on device\n"
    assert process.returncode == 1


CLOSED = {
    "<&-": (b"", b"translate.py: error: standard input is closed\n", 1),
    ">&-": (b"", b"translate.py: error: standard output is closed\n", 1),
    "2>&-": (b"\n", b"", 0),
}


@pytest.mark.skipif(os.name != "posix", reason="a shell closes what is standard")
@pytest.mark.parametrize("closed", CLOSED)
def test_what_is_closed_is_told_and_no_warning_becomes_a_translation(folder, model, closed):
    command = f'"{sys.executable}" "{ROOT}/translate.py" --model piped --beam 1 --max-length 1 {closed}'
    done = subprocess.run(["sh", "-c", command], cwd=folder, input=b"\xff\n", capture_output=True)
    output, errors, status = CLOSED[closed]
    assert (done.stdout.count(b"\n"), done.stderr, done.returncode) == (len(output), errors, status)


def test_no_line_waits_for_the_next_if_asked(translate):
    """An answer comes to each line while the input stays open."""
    process = translate("--line-buffered", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for line in (b"Dog.\n", b"\n", b"Is she ill?\n"):
        process.stdin.write(line)
        process.stdin.flush()
        assert process.stdout.readline().endswith(b"\n")
    process.stdin.close()
    assert process.wait() == 0


@pytest.mark.skipif(os.name != "posix", reason="there are no terminals to be had")
def test_no_line_waits_for_the_next_at_a_terminal(translate):
    ours, theirs = os.openpty()
    process = translate(stdin=theirs, stdout=subprocess.PIPE)
    for line in (b"Dog.\n", b"\n", b"Is she ill?\n"):
        os.write(ours, line)
        assert process.stdout.readline().endswith(b"\n")
    os.close(theirs)
    os.write(ours, b"\x04")  # Ctrl-D
    assert process.wait() == 0
    os.close(ours)


class Input(io.RawIOBase):
    """Lines without end, until so many have been read; it notes how many were read when a translation was asked for."""

    def __init__(self, lines):
        self.lines = iter(lines)
        self.read_so_far = 0

    def readline(self, size=-1):
        line = next(self.lines, b"")
        assert size == LONGEST_PIECE * 1024  # bytes of as many subwords as are translated
        self.read_so_far += len(line)
        return line


@pytest.mark.parametrize(
    ("options", "line", "most"),
    [
        ((), b"Dog.\n", 1024 * 5),
        ((), b"Dog. " * 2000 + b"\n", (1 << 20) + 10_001),
        (("--line-buffered",), b"Dog.\n", 5),
    ],
    ids=["short lines", "long lines", "line by line"],
)
def test_no_more_is_read_than_is_translated_at_once(folder, model, monkeypatch, capsys, options, line, most):
    """So that memory does not grow with the number of lines."""
    script, stdin, behind, done = load_script("translate.py"), Input([line] * 3000), [], 0

    def spy(translator, lines, first, options):
        nonlocal done
        behind.append(stdin.read_so_far - done)
        done += len(line) * len(lines)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(script, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(script, "print_translations", spy)
    monkeypatch.setattr(sys, "argv", ["translate.py", "--model", "piped", *options])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin, isatty=lambda: False))
    script.main()
    assert done == len(line) * 3000
    assert max(behind) == most or (max(behind) <= most and len(line) > 5)


def test_of_a_long_line_no_more_is_held_than_its_beginning():
    """And no part of it counts as a line, however its end lies to the pieces it is read in."""
    module, asked = load_script("translate.py"), []

    class Stream(io.BytesIO):
        def readline(self, size):
            asked.append(size)
            return super().readline(size)

    for length in range(30):
        stream = SimpleNamespace(buffer=Stream(b"a" * length + b"\nshort\n\n" + b"b" * length))
        first, second, third, *last = module.bytes_of_standard_input(stream, 8)
        assert first == (b"a" * 7 if length > 7 else b"a" * length + b"\n")
        assert (second, third) == (b"short\n", b"\n")
        assert last == ([b"b" * min(length, 7)] if length else [])
    assert set(asked) == {8}


@pytest.mark.parametrize("character", ["a", "\u00fc", "\u20ac", "\U0001f467"])
def test_half_a_character_is_none(character):
    cut = load_script("translate.py").without_half_a_character
    whole = character.encode()
    for end in range(1, len(whole) + 1):
        assert cut(b"Dog." + whole[:end]) == b"Dog."
    assert cut(b"\x80" * 9) == b"\x80" * 8  # no UTF-8 at all
