"""Measurements in processes of their own, in turns; and what is printed of them."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import processes
from benchmarks.processes import MeasurementError, in_turns, machine, measure, peak_memory, ratios, require_torch, table


def test_a_measurement_has_a_process_and_an_environment_of_its_own(tmp_path, monkeypatch):
    """Its last line is its result; what it says before is passed over."""
    (tmp_path / "measured.py").write_text(
        "import json, os, sys\nprint('warming up')\nprint(json.dumps([os.getpid(), sys.argv[1:], os.environ['WARM']]))"
    )
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    identity, arguments, warm = measure("measured", "ours", "tiny", environment={"WARM": "yes"})
    assert identity != processes.os.getpid()
    assert (arguments, warm) == (["ours", "tiny"], "yes")


@pytest.mark.parametrize(
    ("program", "message"), [("import sys; sys.exit('no compiler')", "no compiler"), ("exit(3)", "exit status 3")]
)
def test_a_measurement_that_fails_says_why_in_one_line(tmp_path, monkeypatch, program, message):
    (tmp_path / "failing.py").write_text(program)
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    with pytest.raises(MeasurementError) as caught:
        measure("failing")
    assert str(caught.value) == message


def test_a_measurement_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    (tmp_path / "waiting.py").write_text("import time; time.sleep(600)")
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    with pytest.raises(MeasurementError, match=r"^it took longer than 0\.5 s$"):
        measure("waiting", seconds=0.5)


def recorder(calls, name, failing=False):
    def run():
        calls.append(name)
        if failing and calls.count(name) == 2:
            raise MeasurementError("it is broken")
        return {"seconds": len(calls)}

    return run


def test_contenders_take_turns():
    calls = []
    results = in_turns({name: recorder(calls, name) for name in ("a", "b")}, 3)
    assert calls == ["a", "b"] * 3
    assert results == {"a": [{"seconds": i} for i in (1, 3, 5)], "b": [{"seconds": i} for i in (2, 4, 6)]}


def test_a_contender_that_fails_is_left_out_with_a_note(capsys):
    calls = []
    contenders = {name: recorder(calls, name, failing=name == "b") for name in ("a", "b", "c")}
    results = in_turns(contenders, 3)
    assert calls == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert list(results) == ["a", "c"]
    assert "note: left out b: it is broken\n" in capsys.readouterr().err


def test_without_what_the_others_are_compared_with_there_is_no_comparison():
    with pytest.raises(MeasurementError, match="it is broken"):
        in_turns({"a": recorder([], "a", failing=True)}, 2)


def test_ratios_are_taken_within_a_turn():
    """In the second turn the machine was ten times slower; the ratio does not know."""
    assert ratios([2.0, 21.0, 3.0], [1.0, 10.0, 1.0]) == "2.10 (2.00 - 3.00)"


def test_peak_memory_is_in_bytes_and_only_grows():
    before = peak_memory()
    assert 10e6 < before < 100e9
    array = np.ones(before // 4)  # twice of what there was, in use
    assert peak_memory() > before + array.nbytes / 4


def test_peak_memory_is_that_of_the_process_alone():
    """Whatever the one that starts it holds."""
    held = np.ones(50_000_000)  # 400 MB
    code = "from benchmarks.processes import peak_memory; print(peak_memory())"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=processes.ROOT, check=True).stdout
    assert int(output) < held.nbytes


def test_a_table_is_markdown():
    assert table(["a", "b"], [["1", "2"], ["3", ""]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"


def test_the_machine_is_named_with_the_versions_of_what_is_there():
    line = machine("no-such-library")
    assert f"numpy {np.__version__}" in line
    assert f"{processes.os.cpu_count()} cores, " in line
    assert "no-such-library" not in line


def test_the_version_is_that_of_the_module_whatever_its_distribution_is_called(tmp_path, monkeypatch):
    """The module cupy comes with the distribution cupy-cuda13x."""
    (tmp_path / "a_module_of_no_distribution.py").write_text("__version__ = '14.2.0'")
    monkeypatch.syspath_prepend(tmp_path)
    assert machine("a_module_of_no_distribution").endswith(", a_module_of_no_distribution 14.2.0")


def test_without_pytorch_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        require_torch("benchmarks.train")
    expected = "benchmarks.train: error: PyTorch is not installed; run: pip install -e '.[parity]'"
    assert caught.value.code == expected
