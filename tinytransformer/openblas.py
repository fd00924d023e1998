"""Which kernels OpenBLAS multiplies matrices with: train.py and its benchmarks import this before NumPy.

OpenBLAS takes its kernels for AVX-512 on every processor that has AVX-512. AMD's Zen 4 has it, but carries out such an
instruction in two halves, and there the kernels for AVX2 are faster, except for very small products, such as those of
attention over short sentences. A step of training takes 5 to 8 % less with them from a width of 256 on, the same with
one of 128, and 4 % more with one of 64; decoding takes 3 to 5 % more, so translate.py leaves OpenBLAS its choice
(measured with OpenBLAS 0.3.31; docs/gains.md). OpenBLAS can be told only in the environment, and only before it
is loaded. So this is done by importing, and by scripts alone: the environment belongs to the whole process.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def faster_kernels(cpuinfo: str) -> str | None:
    """Return OpenBLAS's name of kernels that are faster than those it would take, or None to leave it the choice.

    cpuinfo: what Linux says of the processor, the text of /proc/cpuinfo.
    """
    pairs = (line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in pairs}
    zen_3_or_4 = told.get("vendor_id") == "AuthenticAMD" and told.get("cpu family") == "25"
    zen_4 = zen_3_or_4 and "avx512f" in told.get("flags", "").split()  # Zen 3 has no AVX-512
    return "Haswell" if zen_4 else None  # Intel's first processor with AVX2 has given these kernels their name


if "numpy" not in sys.modules:
    with suppress(OSError):  # another system than Linux says nothing there, and keeps its choice
        if kernels := faster_kernels(Path("/proc/cpuinfo").read_text(encoding="utf-8")):
            os.environ.setdefault("OPENBLAS_CORETYPE", kernels)  # what the user has put there stays
