"""Kernels are chosen for Zen 4 alone, before NumPy is there, and never against the user."""

import os
import subprocess
import sys

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
    ("name", "vendor", "family", "flags", "kernels"),
    [
        ("Zen 3", "AuthenticAMD", 25, "avx2", None),
        ("Zen 4", "AuthenticAMD", 25, "avx2 avx512f avx512bw", "Haswell"),
        ("Zen 5", "AuthenticAMD", 26, "avx2 avx512f avx512bw", None),
        ("Skylake", "GenuineIntel", 6, "avx2 avx512f", None),
    ],
)
def test_kernels_are_named_where_openblas_does_not_take_the_fastest(name, vendor, family, flags, kernels):
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


def test_train_asks_before_numpy_is_loaded():
    names = "'tinytransformer.openblas', 'numpy'"
    assert run(f"import sys, train; print([name for name in sys.modules if name in ({names})])") == f"[{names}]"


READ = "import tinytransformer.openblas, os; print(os.environ.get('OPENBLAS_CORETYPE'))"
PRETEND = "import pathlib; pathlib.Path.read_text = lambda *arguments, **options: {text!r}; "
ZEN_4 = PRETEND.format(text=CPUINFO.format(vendor="AuthenticAMD", family=25, flags="avx512f"))
linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is asked for")


@linux
def test_openblas_is_told():
    assert run(ZEN_4 + READ) == "Haswell"


def test_what_the_user_asked_for_stays():
    assert run(ZEN_4 + READ, OPENBLAS_CORETYPE="SkylakeX") == "SkylakeX"


def test_nothing_is_changed_once_numpy_is_there():
    """It would reach only what this process starts, which then rounded otherwise than it does."""
    assert run("import numpy; " + ZEN_4 + READ) == "None"
