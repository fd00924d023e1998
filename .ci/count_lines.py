"""Hold the project to its size: the core below 1,500 lines of code, and no file over 300 lines in all.

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
from pathlib import Path

CORE = ["backend.py", "timing.py", "tape.py", "tensor.py", "ops", "module.py", "layers.py", "cache.py", "optim.py"]
MOST_CODE, MOST_LINES = 1500, 300
ROOT = Path(__file__).parent.parent


def code_lines(path: Path) -> int:
    """Count the lines of code of one file."""
    text = path.read_text(encoding="utf-8")
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    skipped |= {tokenize.ENCODING, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in skipped:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return len(lines)


def main() -> None:
    package = ROOT / "tinytransformer"
    core = 0
    for room in CORE:
        files = sorted((package / room).rglob("*.py")) or [package / room]
        count = sum(map(code_lines, files))
        core += count
        print(f"{count:6}  {room}")
    print(f"{core:6}  lines of code in the core, of at most {MOST_CODE}")

    tracked = subprocess.run(
        ["git", "ls-files", "*.py", "*.cu", "*.h"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in tracked.stdout.split()}
    longest = max(lengths, key=lambda name: lengths[name])
    print(f"{lengths[longest]:6}  lines in the longest file, {longest}, of at most {MOST_LINES}")
    if core > MOST_CODE or lengths[longest] > MOST_LINES:
        sys.exit("too large: redesign, or move a wall")


if __name__ == "__main__":
    main()
