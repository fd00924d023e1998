"""What may import what, beyond the contracts of import-linter: these know no list of all that is allowed."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tinytransformer"
CORE = ["backend", "timing", "tape", "tensor", "module", "layers", "optim", "transformer"]
FILES = [PACKAGE / f"{room}.py" for room in CORE] + sorted((PACKAGE / "ops").glob("*.py"))
FILES += sorted((PACKAGE / "gradcheck").glob("*.py"))


def imported_by(path):
    """The top-level names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_core_imports_numpy_alone(path):
    allowed = {"numpy", "tinytransformer", *sys.stdlib_module_names}
    assert imported_by(path) - allowed <= ({"cupy"} if path.name == "backend.py" else set())


def test_nothing_loads_code():
    """No pickle, no eval: a model file from a stranger cannot run anything."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not imported_by(path) & {"pickle", "marshal", "shelve", "dill", "joblib"}, path
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        if path.name != "exercise.py":  # which runs what its reader wrote
            assert not called & {"eval", "exec", "__import__"}, path
