"""What may import what, beyond the contracts of import-linter: these know no list of all that is allowed."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tinytransformer"
ROOMS = ["backend", "timing", "tape", "tensor", "module", "layers", "cache", "optim", "transformer"]
FILES = [PACKAGE / f"{room}.py" for room in ROOMS] + sorted((PACKAGE / "ops").glob("*.py"))
FILES += sorted((PACKAGE / "gradcheck").glob("*.py")) + sorted((PACKAGE / "kernels").glob("*.py"))


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
def test_the_model_and_its_proofs_import_numpy_alone(path):
    allowed = {"numpy", "tinytransformer", *sys.stdlib_module_names}
    assert imported_by(path) - allowed <= ({"cupy"} if path.name == "backend.py" else set())


LOADERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "yaml", "torch"}
SOURCES = [*PACKAGE.rglob("*.py"), *PACKAGE.parent.glob("*.py"), *(PACKAGE.parent / "data").glob("*.py")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_nothing_loads_code(path):
    """No pickle, under whatever name, and no eval: a model file from a stranger cannot run anything."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not imported_by(path) & LOADERS
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if path.name not in ("exercise.py", "exercises.py"):  # which run what their reader wrote
        assert not called & {"eval", "exec", "compile", "__import__"}
    numpy = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ("np", "numpy")}
    assert not numpy & {"load", "lib", "fromfile", "memmap", "loadtxt", "genfromtxt"}  # np.load can unpickle
    assert "allow_pickle" not in {n.arg for n in ast.walk(tree) if isinstance(n, ast.keyword)}
