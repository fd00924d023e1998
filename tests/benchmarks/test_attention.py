"""Attention is measured with and without blocks, and what was measured becomes the table that is asked for."""

import sys

import pytest

from benchmarks import attending, attention
from benchmarks.clock import Clock
from tinytransformer import layers
from tinytransformer.ops import blockwise_attention


@pytest.fixture
def used(monkeypatch):
    """The shapes of the queries that were attended to block by block."""
    shapes = []
    monkeypatch.setattr(layers, "LONG", layers.LONG)  # put back after the test
    monkeypatch.setattr(attending, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(
        layers, "blockwise_attention", lambda q, *x, **o: shapes.append(q.shape) or blockwise_attention(q, *x, **o)
    )
    return shapes


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("contender", "times"), [("plain", 0), ("blockwise", 3)])
def test_a_contender_attends_to_one_sequence_as_its_name_says(used, contender, times, causal):
    clock = Clock(warm_up=1, least=2, seconds=0)
    found = attending.measure_attention(contender, 6, causal=causal, clock=clock)
    assert used[:times] == [(1, 8, 6, 64)] * times
    assert bool(used) == bool(times)
    assert found["seconds"] == clock.median()
    assert found["peak_memory"] > 1e6


def test_pytorch_attends_too():
    pytest.importorskip("torch")
    found = attending.measure_attention("pytorch", 6, causal=True, clock=Clock(warm_up=1, least=2, seconds=0))
    assert found["seconds"] > 0


def test_the_table_has_a_row_for_each_mask_length_and_contender(monkeypatch, capsys):
    """Times are compared with those block by block."""

    def measure(module, kind, length, *flags):
        assert module == "benchmarks.attending"
        assert flags in ((), ("--causal",))
        return {"seconds": {"blockwise": 2.0, "plain": 5.0, "pytorch": 1.0}[kind], "peak_memory": 3e6 * int(length)}

    monkeypatch.setattr(attention, "measure", measure)
    monkeypatch.setattr(attention.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["attention", "--lengths", "10", "20", "--turns", "2"])
    attention.main()
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.splitlines() if line.startswith("|")]
    assert rows[0] == list(attention.HEAD)
    assert [row[:3] for row in rows[2:]] == [
        [mask, tokens, name]
        for mask in ("none", "causal")
        for tokens in ("10", "20")
        for name in ("block by block", "plain")
    ]
    assert rows[3][3:] == ["500000.0", "2.50 (2.50 - 2.50)", "30"]
    assert "left out PyTorch" in err
