"""Which kernels OpenBLAS multiplies matrices with: train.py imports this before NumPy, which brings OpenBLAS along.

OpenBLAS takes its kernels for AVX-512 on every processor that has AVX-512. AMD's Zen 4 has it, but carries out such an
instruction in two halves, and there the kernels for AVX2 are faster: by a twentieth, but for the very small products of
attention. That makes them the better choice in training, and not in decoding (measured with OpenBLAS 0.3.31;
docs/performance.md). OpenBLAS can be told only in the environment, and only before it is loaded. So this is done by
importing, and by scripts alone: the environment belongs to the whole process.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path


def faster_kernels(cpuinfo: str) -> str | None:
    """Return OpenBLAS's name of kernels that are faster than those it would take; None if it takes the fastest.

    cpuinfo: what Linux says of the processor, the text of /proc/cpuinfo.
    """
    pairs = (line.split(":", 1) for line in cpuinfo.splitlines() if ":" in line)
    told = {name.strip(): value.strip() for name, value in pairs}
    zen_3_or_4 = told.get("vendor_id") == "AuthenticAMD" and told.get("cpu family") == "25"
    return "Haswell" if zen_3_or_4 and "avx512f" in told.get("flags", "").split() else None  # Zen 3 has no AVX-512


if sys.platform == "linux" and "numpy" not in sys.modules:
    with suppress(OSError):
        if kernels := faster_kernels(Path("/proc/cpuinfo").read_text(encoding="utf-8")):
            os.environ.setdefault("OPENBLAS_CORETYPE", kernels)  # what the user has put there stays
