"""An operation that nothing uses has no place in the package."""

import ast
from pathlib import Path

import tinytransformer
from tinytransformer import ops
from tinytransformer.tensor import OPS

PACKAGE = Path(tinytransformer.__file__).parent


def operations_used(source):
    """Return the operations that a source calls: imported from `ops` and named, or looked up in OPS."""
    tree = ast.parse(source)
    imported = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinytransformer"):
            if node.module.startswith("tinytransformer.ops"):
                imported |= {alias.asname or alias.name: alias.name for alias in node.names}
            modules = [alias.asname or alias.name for alias in node.names if alias.name == "ops"]
            imported |= {f"{module}.{name}": name for module in modules for name in OPS}
    spoken = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)}
    looked_up = {
        node.slice.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "OPS" and isinstance(node.slice, ast.Constant)
    }
    return {name for alias, name in imported.items() if alias in spoken} | looked_up


def test_every_operation_is_used():
    """By a Tensor operator, by the floors above the operations, or by a composition in the tests."""
    beside = {PACKAGE / "ops", PACKAGE / "gradcheck"}
    sources = [path for path in PACKAGE.rglob("*.py") if not beside & set(path.parents)]
    sources.append(Path(__file__).with_name("compositions.py"))
    used = set().union(*(operations_used(path.read_text(encoding="utf-8")) for path in sources))
    assert sorted(set(OPS) - used) == []


def test_use_is_told_from_mention():
    """An import alone, a word in a string or a name from elsewhere is no use."""
    source = (
        "from tinytransformer.ops import relu, tanh as t, gelu\nfrom math import exp\n"
        "from tinytransformer import ops\n'gelu'\nexp(t(1)); ops.softmax(2); OPS['add']; OPS[name]\n"
    )
    assert operations_used(source) == {"tanh", "softmax", "add"}


def test_the_registry_holds_what_the_package_exports():
    assert set(ops.__all__) == set(OPS)
    assert all(getattr(ops, name) is OPS[name] and OPS[name].name == name for name in OPS)
