"""Kernels are chosen for Zen 4 alone, before NumPy is there, and never against the user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import ROOT

from tinytransformer.openblas import faster_kernels

CPUINFO = """processor\t: 0
vendor_id\t: {vendor}
cpu family\t: {family}
model name\t: any : name
flags\t\t: fpu {flags} sse

processor\t: 1
vendor_id\t: {vendor}
cpu family\t: {family}
flags\t\t: fpu {flags} sse
"""


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "kernels"),
    [
        ("AuthenticAMD", 25, "avx2", None),
        ("AuthenticAMD", 25, "avx2 avx512f avx512bw", "Haswell"),
        ("AuthenticAMD", 26, "avx2 avx512f avx512bw", None),
        ("GenuineIntel", 6, "avx2 avx512f", None),
    ],
    ids=["Zen 3", "Zen 4", "Zen 5", "Skylake"],
)
def test_kernels_are_named_where_openblas_does_not_take_the_fastest(vendor, family, flags, kernels):
    assert faster_kernels(CPUINFO.format(vendor=vendor, family=family, flags=flags)) == kernels


@pytest.mark.parametrize("text", ["", "\n\n", "processor\nvendor_id AuthenticAMD\n", ":::\n: \n"])
def test_what_says_nothing_of_a_processor_names_none(text):
    assert faster_kernels(text) is None


def run(code, **environment):
    """Run code at the root in a new Python; return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, env={**inherited, **environment}, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("module", ["train", "benchmarks.training", "benchmarks.attending"])
def test_it_is_asked_before_numpy_is_loaded(module):
    if module.startswith("benchmarks."):
        pytest.importorskip("resource", reason="the benchmarks run on Linux and macOS")
    names = "'tinytransformer.openblas', 'numpy'"
    assert run(f"import sys, {module}; print([name for name in sys.modules if name in ({names})])") == f"[{names}]"


READ = "import tinytransformer.openblas, os; print(os.environ.get('OPENBLAS_CORETYPE'))"
PRETEND = "import pathlib; pathlib.Path.read_text = lambda *arguments, **options: {text!r}; "
ZEN_4 = PRETEND.format(text=CPUINFO.format(vendor="AuthenticAMD", family=25, flags="avx512f"))


def test_openblas_is_told():
    assert run(ZEN_4 + READ) == "Haswell"


def test_openblas_obeys():
    """A name that it does not know would change nothing, without a word."""
    used = "import numpy, threadpoolctl; print(*{lib.get('architecture') for lib in threadpoolctl.threadpool_info()})"
    if run(used, OPENBLAS_CORETYPE="Nehalem") != "Nehalem":
        pytest.skip("NumPy comes without an OpenBLAS that can be told")
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or "avx2" not in cpuinfo.read_text(encoding="utf-8").split():
        pytest.skip("nothing says that the processor has AVX2")
    assert run(ZEN_4 + "import tinytransformer.openblas; " + used) == "Haswell"


def test_what_the_user_asked_for_stays():
    assert run(ZEN_4 + READ, OPENBLAS_CORETYPE="SkylakeX") == "SkylakeX"


def test_nothing_is_changed_once_numpy_is_there():
    """It would reach only what this process starts, which then rounded otherwise than it does."""
    assert run("import numpy; " + ZEN_4 + READ) == "None"
