"""The benchmark on a GPU, as far as it goes without one: what it reckons, what it writes, what it says."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from numpy.random import default_rng
from test_gpu import is_whole

from benchmarks import gpu
from benchmarks.floor import products
from benchmarks.gpu_training import SIZES
from benchmarks.processes import MeasurementError
from tinytransformer.backend import DeviceError
from tinytransformer.transformer import Transformer


def test_a_row_for_every_model_and_precision():
    """Twice PyTorch's speed with half of its kernels; what failed is a dash."""

    def measured(contender, size, precision):
        if (contender, size) == ("PyTorch", "base"):
            return None
        rate = 4.0 * sum(
            p.operations() for p in products(SIZES[size], SIZES[size].batch)
        )  # so the products of a step take a quarter of a second
        ours = {"speed": SIZES[size].batch_tokens * 2.0, "launches": 1000, "rate": rate}
        return ours if contender == "tinytransformer" else {"speed": SIZES[size].batch_tokens * 1.0, "launches": 2000}

    rows = list(gpu.rows(measured, with_pytorch=True))
    assert [row[:2] for row in rows] == [(size, precision) for size in SIZES for precision in ("float32", "tf32")]
    assert all(len(row) == len(gpu.HEAD) for row in rows)
    assert rows[4] == ("small", "float32", "4,096", "2,048", "2.00", "1,000", "2,000", "0.50")
    assert rows[6] == ("base", "float32", "2,048", "-", "-", "1,000", "-", "0.50")


@pytest.fixture
def benchmark(monkeypatch, tmp_path):
    """Return a function that runs the benchmark over measurements that are made up; its page is a copy."""
    page = tmp_path / "gpu.md"
    page.write_bytes(gpu.PAGE.read_bytes())
    monkeypatch.setattr(gpu, "PAGE", page)
    monkeypatch.setattr(gpu, "require_device", lambda device: None)
    monkeypatch.setattr(gpu, "card", lambda: "a card")
    monkeypatch.setattr(gpu, "machine", lambda *libraries: "a machine")
    monkeypatch.setattr(sys, "argv", ["gpu.py"])

    def run(measure, *, torch):
        monkeypatch.setattr(gpu, "measure", measure)
        monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: torch or None)
        gpu.main()
        return page.read_text("utf-8")

    return run


def test_without_pytorch_its_columns_are_left_out(benchmark, capsys):
    asked = []

    def measure(module, contender, size, precision, seconds):
        asked.append((contender, seconds))
        return {"speed": 1000.0, "launches": None, "rate": 1e12}

    page, shown = benchmark(measure, torch=False), capsys.readouterr()
    assert asked == [("tinytransformer", 60)] * 2 * len(SIZES)
    assert shown.err.startswith("note: left out PyTorch, which is not installed; run: pip install -e '.[parity]'\n")
    rows = [line.split(" | ") for line in shown.out.split("\n") if line.startswith("| base")]
    assert [row[2:7] for row in rows] == [["1,000", "-", "-", "-", "-"]] * 2
    assert all(float(row[7].rstrip(" |")) > 0 for row in rows)
    assert shown.out.strip() in page


def test_a_row_is_printed_as_soon_as_it_is_measured_and_a_failure_is_a_dash(benchmark, capsys):
    printed = []

    def measure(module, contender, size, precision, seconds):
        printed.append(capsys.readouterr().out)
        if size == "tiny":
            raise MeasurementError("it took longer than 60 s")
        return {"speed": 1000.0, "launches": 7, "rate": 1e12}

    page = benchmark(measure, torch=True)
    assert printed[0].startswith("a card; a machine\n\n| model ")
    assert printed[2].startswith("| toy | float32 | 1,000 | 1,000 | 1.00 | 7 | 7 | ")
    assert printed[1] == printed[3] == ""  # PyTorch's half of a row
    assert "| tiny | tf32 | - | - | - | - | - | - |" in page


def parameters(config, encoder_layers, decoder_layers):
    model = Transformer(replace(config, encoder_layers=encoder_layers, decoder_layers=decoder_layers), default_rng(0))
    return model.parameters.data.size


def test_the_largest_model_has_sixty_million_parameters():
    """Counted on a model of one layer each and a small vocabulary, and reckoned from there."""
    size = SIZES["60M"]
    config = replace(size.config(), source_vocabulary=10, target_vocabulary=10)
    one, more, most = (parameters(config, *layers) for layers in ((1, 1), (2, 1), (1, 2)))
    total = one + (size.layers - 1) * (more - one + most - one) + (size.vocabulary - 10) * size.width
    assert total == pytest.approx(60e6, rel=0.01)


def test_a_table_goes_to_its_place(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n<!-- begin y -->\nold\n<!-- end y -->\n", "utf-8")
    for _ in range(2):
        gpu.fill_in(page, "y", r"new \1")
    assert page.read_text("utf-8").endswith("old\n<!-- end x -->\nb\n<!-- begin y -->\n\nnew \\1\n\n<!-- end y -->\n")
    with pytest.raises(ValueError, match="0 places for z"):
        gpu.fill_in(page, "z", "new")


@pytest.mark.parametrize("name", ["tests", "benchmark"])
def test_the_page_has_a_place_for_each_table(name, tmp_path):
    page = tmp_path / "gpu.md"
    page.write_bytes(gpu.PAGE.read_bytes())
    gpu.fill_in(page, name, "the table")
    assert "the table" in page.read_text("utf-8")


def session(failed=0, args=("tests",), markexpr="gpu", **narrowed):
    options = {"keyword": "", "deselect": None, "ignore": None, "ignore_glob": None, "lf": False, **narrowed}
    config = SimpleNamespace(
        args=list(args), option=SimpleNamespace(markexpr=markexpr), getini=lambda name: ["tests"], getoption=options.get
    )
    return SimpleNamespace(testsfailed=failed, config=config)


PARTIAL = {
    "a failure": {"failed": 1},
    "one test": {"args": ["tests/test_gpu.py::test_tf32_is_coarser_and_float32_is_not"]},
    "one file": {"args": ["tests/test_gpu.py"]},
    "some by name": {"keyword": "tf32"},
    "all but some": {"deselect": ["tests/test_gpu.py::test_tf32_is_coarser_and_float32_is_not"]},
    "what failed last": {"lf": True},
    "all tests": {"markexpr": ""},
}


@pytest.mark.parametrize("changes", PARTIAL.values(), ids=PARTIAL)
def test_only_a_whole_run_of_the_gpu_tests_is_fit_for_the_page(changes):
    assert is_whole(session())
    assert not is_whole(session(**changes))


def test_without_a_gpu_it_says_why(monkeypatch):
    def refuse(device):
        raise DeviceError(f"device {device!r} needs this")

    monkeypatch.setattr(gpu, "require_device", refuse)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit) as caught:
        gpu.main()
    assert caught.value.code == "benchmarks.gpu: error: device 'cuda' needs this"
