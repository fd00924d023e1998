"""Hold the code to its size: the core below 1,500 lines of code, a function below 50, no file over 300 in all.

A line of code is one that holds more than a comment, a docstring or white space. The core is what every model is made
of, and moved by: from backend.py up to layers.py and optim.py. What `kernels` computes on a GPU the core has once
already, and says why; it is not counted again.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

CORE = ["backend.py", "timing.py", "tape.py", "tensor.py", "ops", "module.py", "layers.py", "cache.py", "optim.py"]
MOST_CODE, MOST_IN_A_FUNCTION, MOST_LINES = 1500, 49, 300
ROOT = Path(__file__).parent.parent


def code_lines(text: str) -> set[int]:
    """Return the numbers of the lines of code."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    skipped |= {tokenize.ENCODING, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.difference_update(lines_of(docstring))
    return lines


def lines_of(node: ast.stmt) -> range:
    return range(node.lineno, (node.end_lineno or 0) + 1)


def functions(text: str) -> Iterator[tuple[int, str]]:
    """Yield each function: its lines of code, and its name."""
    code = code_lines(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            yield len(code.intersection(lines_of(node))), node.name


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def main() -> None:
    package = ROOT / "tinytransformer"
    core = 0
    for room in CORE:
        modules = sorted((package / room).rglob("*.py")) or [package / room]
        count = sum(len(code_lines(read(str(module)))) for module in modules)
        core += count
        print(f"{count:6}  {room}")
    print(f"{core:6}  lines of code in the core, of at most {MOST_CODE}")

    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.cu", "*.h"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = tracked.stdout.split()
    in_function, function = max(each for name in files if name.endswith(".py") for each in functions(read(name)))
    print(f"{in_function:6}  lines of code in the longest function, {function}, of at most {MOST_IN_A_FUNCTION}")
    length, longest = max((len(read(name).splitlines()), name) for name in files)
    print(f"{length:6}  lines in the longest file, {longest}, of at most {MOST_LINES}")
    if core > MOST_CODE or in_function > MOST_IN_A_FUNCTION or length > MOST_LINES:
        sys.exit("too large: redesign, or move a wall")


if __name__ == "__main__":
    main()
