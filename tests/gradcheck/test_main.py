"""The command line: what it prints, where, and with which exit code."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tinytransformer.gradcheck.__main__ import main
from tinytransformer.gradcheck.breakages import BY_HAND, rebuilt
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.tensor import OPS


def test_all_operations_pass(capsys):
    assert main([]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == ""
    assert lines[0].split() == ["operation", "input", "cases", "worst", "relative", "error", "verdict"]
    rows = lines[1 : lines.index("")]
    assert {row.split()[0] for row in rows} == set(OPS)
    assert {row.split()[-1] for row in rows} == {"pass", "zero"}
    assert max(map(len, lines)) <= 100
    assert re.fullmatch(rf"{len(OPS)} operations, {len(rows)} gradients, worst relative error \d\.\de-1\d", lines[-1])


def test_op_narrows_the_check(capsys):
    assert main(["--op", "linear", "--op", "gelu"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:-2]]
    assert [row[:2] for row in rows] == [["linear", "x"], ["linear", "weight"], ["linear", "bias"], ["gelu", "x"]]


def test_seed_draws_other_inputs(capsys):
    outputs = []
    for seed in "0", "0", "1":
        assert main(["--op", "exp", "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_unknown_operation_is_one_line_on_stderr(capsys):
    assert main(["--op", "sofmax"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "gradcheck: no operation is named 'sofmax'; --help lists them\n"


def test_failure_is_shown_with_what_repeats_it(capsys, monkeypatch):
    broken = rebuilt(OPS["softmax"], BY_HAND["softmax"]["sum left out"])
    monkeypatch.setitem(OPS, "softmax", broken)
    assert main(["--op", "softmax", "--seed", "4"]) == 1
    out = capsys.readouterr().out
    assert re.search(r"^softmax +x +6 .* FAIL$", out, re.MULTILINE)
    assert "FAIL: softmax, case 'axis 0', input x\n" in out
    assert re.search(r"worst at index \(\d, \d, \d\): analytic -?\d\.\d+, numerical -?\d\.\d+\n", out)
    assert "python -m tinytransformer.gradcheck --op softmax --seed 4" in out
    assert out.splitlines()[-1].startswith("1 operations, 1 gradients, worst relative error ")


def test_breakages_are_counted(capsys):
    assert main(["--breakages", "--op", "relu", "--op", "matmul"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["relu", "6", "5", "1"]
    assert lines[2].split() == ["matmul", "12", "12", "0"]
    assert lines[4].startswith("exempt: relu, slope 1 at 0: ")
    assert lines[-1] == "18 breakages planted, 17 caught, 1 exempt, 0 uncaught"


def test_uncaught_breakage_exits_with_1(capsys, monkeypatch):
    one_number = [case for case in CASES["exp"] if case.label == "a number"]
    monkeypatch.setitem(CASES, "exp", one_number)  # of one number, nothing can be rolled
    assert main(["--breakages", "--op", "exp"]) == 1
    out = capsys.readouterr().out
    assert "UNCAUGHT: exp, x rolled by one\n" in out
    assert out.endswith("5 breakages planted, 4 caught, 0 exempt, 1 uncaught\n")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="Windows has no such signal")
def test_ends_quietly_when_nobody_reads_any_more():
    gone, output = os.pipe()
    os.close(gone)
    command = [sys.executable, "-m", "tinytransformer.gradcheck", "--op", "gelu"]
    done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, check=False)
    os.close(output)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_a_full_disk_is_one_line():
    command = [sys.executable, "-m", "tinytransformer.gradcheck", "--op", "gelu"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    error = b"gradcheck: error: standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, error)


@pytest.mark.parametrize(("arguments", "code"), [(["--op", "gelu"], 0), (["--op", "nothing"], 2), (["--help"], 0)])
def test_runs_as_a_module(arguments, code):
    command = [sys.executable, "-m", "tinytransformer.gradcheck", *arguments]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code
