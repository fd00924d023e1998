"""Training on an NVIDIA GPU, beside PyTorch eager: `python -m benchmarks.gpu` measures it and fills in docs/gpu.md.

Five models, in float32 and in TF32: target tokens per second, kernels of one step, and the share that the matrix
products of a step, at the speed of one large product, have in its time. Each measurement has a process of its own. It
needs a GPU and CuPy, and takes up to ten minutes; without PyTorch its columns are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.floor import products
from benchmarks.gpu_training import SIZES
from benchmarks.processes import MeasurementError, machine, measure, table, table_row
from tinytransformer.backend import PRECISIONS, DeviceError, require_device

PAGE = Path(__file__).parent.parent / "docs" / "gpu.md"
HEAD = ("model", "precision", "tokens/s", "PyTorch", "ratio", "kernels a step", "PyTorch", "share of products")

SECONDS = 60  # that a measurement may take

Measure = Callable[[str, str, str], dict[str, Any] | None]


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(prog="benchmarks.gpu", description=__doc__, formatter_class=raw).parse_args()
    try:
        require_device("cuda")
    except DeviceError as error:
        sys.exit(f"benchmarks.gpu: error: {error}")
    with_pytorch = importlib.util.find_spec("torch") is not None
    if not with_pytorch:
        print("note: left out PyTorch, which is not installed; run: pip install -e '.[parity]'", file=sys.stderr)
    lines = [f"{card()}; {machine('cupy', 'torch')}", "", *table(HEAD, []).split("\n")]
    print(*lines, sep="\n", flush=True)
    for row in rows(measured, with_pytorch=with_pytorch):
        lines.append(table_row(row))
        print(lines[-1], flush=True)
    fill_in(PAGE, "benchmark", "\n".join(lines))


def measured(contender: str, size: str, precision: str) -> dict[str, Any] | None:
    """Return one measurement; None, and a note on standard error, if it failed."""
    print(f"{contender}, {size}, {precision}", file=sys.stderr)
    try:
        return measure("benchmarks.gpu_training", contender, size, precision, seconds=SECONDS)
    except MeasurementError as error:
        print(f"note: left out {contender}, {size}, {precision}: {error}", file=sys.stderr)
        return None


def rows(measured: Measure, *, with_pytorch: bool) -> Iterator[Sequence[str]]:
    """Yield the rows of the table, each as soon as it is measured."""
    for size in SIZES:
        for precision in PRECISIONS:
            ours = measured("tinytransformer", size, precision)
            theirs = measured("PyTorch", size, precision) if with_pytorch else None
            yield size, precision, *_cells(size, ours, theirs)


def _cells(size: str, ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> list[str]:
    """Return what was measured as text, a dash where something failed."""
    speeds = [result and result["speed"] for result in (ours, theirs)]
    ratio = speeds[0] / speeds[1] if speeds[0] and speeds[1] else None
    operations = sum(product.operations() for product in products(SIZES[size], SIZES[size].batch))
    share = ours and operations / ours["rate"] / (SIZES[size].batch_tokens / ours["speed"])
    kernels = [result and result["launches"] for result in (ours, theirs)]
    numbers = [*speeds, ratio, *kernels, share]
    formats = ("{:,.0f}", "{:,.0f}", "{:.2f}", "{:,}", "{:,}", "{:.2f}")
    return ["-" if n is None else form.format(n) for form, n in zip(formats, numbers, strict=True)]


def card() -> str:
    """Return the name of the card and the version of its driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        name, driver = (
            subprocess.run(query, capture_output=True, text=True, check=True).stdout.split("\n")[0].split(", ")
        )
    except (OSError, subprocess.CalledProcessError, ValueError):
        return "an unknown card"
    return f"{name}, driver {driver}"


def fill_in(page: Path, name: str, text: str) -> None:
    """Put `text` into a page, between the comments that name its place."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before = page.read_text("utf-8")
    pattern = re.escape(begin) + ".*?" + re.escape(end)
    after, count = re.subn(pattern, lambda _: f"{begin}\n\n{text}\n\n{end}", before, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{page} has {count} places for {name}, expected one")
    page.write_text(after, "utf-8")


if __name__ == "__main__":
    main()
