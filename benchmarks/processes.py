"""A measurement in a process of its own, so that none inherits the memory, the threads or the caches of another.

A contender is measured by `python -m MODULE ARGUMENTS`, which prints one line of JSON. All contenders are measured
once, then all once more, and so on: what slows the machine down for a while slows all of them alike, and ratios are
taken within a turn.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from tinytransformer.workers import WorkerError

ROOT = Path(__file__).parent.parent


class MeasurementError(WorkerError):
    """A measurement that failed; the message is the last line of what it wrote to standard error."""


def measure(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Run `python -m module arguments` with these environment variables on top; return the JSON that it printed.

    seconds: how long it may take, if there is a limit.
    Raises: MeasurementError if it fails, or takes longer.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **(environment or {})},
            cwd=ROOT,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"it took longer than {seconds:g} s") from None
    if done.returncode:
        raise MeasurementError((done.stderr.strip().split("\n")[-1] or f"exit status {done.returncode}").strip())
    return json.loads(done.stdout.strip().split("\n")[-1])


def in_turns(
    contenders: Mapping[str, Callable[[], dict[str, Any]]], turns: int, label: str = ""
) -> dict[str, list[dict[str, Any]]]:
    """Measure all contenders in every turn.

    One that fails is left out from then on, with a note on standard error.
    Raises: MeasurementError if the first fails, with which the others are compared.
    """
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    with tqdm(total=turns * len(contenders), desc=label, unit="measurement", file=sys.stderr) as bar:
        for _ in range(turns):
            for name in list(results):
                bar.set_postfix_str(name)
                try:
                    results[name].append(contenders[name]())
                except MeasurementError as error:
                    if name == next(iter(contenders)):
                        raise
                    tqdm.write(f"note: left out {name}: {error}", file=sys.stderr)
                    del results[name]
                bar.update()
    return results


def ratios(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """Return their times over ours, turn by turn: the median, and in brackets the lowest and the highest."""
    each = [their / our for their, our in zip(theirs, ours, strict=True)]
    return f"{median(each):.2f} ({min(each):.2f} - {max(each):.2f})"


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held so far, its libraries included."""
    try:
        status = Path("/proc/self/status").read_text("ascii", errors="replace")
    except OSError:  # a system other than Linux
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
    # On Linux that would be no less than what the process held that started this one.
    return 1024 * int(re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[0])


def memory_with_workers() -> int:
    """Return how many bytes this process and its workers hold now; what they share counts once. 0 if nobody knows."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text("ascii") for pid in ("self", *children)]
    except OSError:  # a system other than Linux, where the workers are threads
        return 0
    return sum(1024 * int(pss) for text in texts for pss in re.findall(r"^Pss: +(\d+) kB$", text, re.MULTILINE))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(map(table_row, [head, ["---"] * len(head), *rows]))


def table_row(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table, for a table that grows as it is measured."""
    return f"| {' | '.join(cells)} |"


def machine(*libraries: str) -> str:
    """Return a line on what was measured: the processor, and the versions of those libraries that are there."""
    there = [name for name in ("numpy", *libraries) if importlib.util.find_spec(name)]
    # The module is asked, since its distribution may have another name: cupy comes with cupy-cuda13x.
    found = [f"{name} {importlib.import_module(name).__version__}" for name in there]
    return f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}, {', '.join(found)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").split("\n")
    except OSError:  # a system other than Linux
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def require_torch(script: str) -> None:
    """Exit with status 1 and one line if there is no PyTorch to compare with."""
    if importlib.util.find_spec("torch") is None:
        sys.exit(f"{script}: error: PyTorch is not installed; run: pip install -e '.[parity]'")
