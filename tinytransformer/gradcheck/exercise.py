"""An operation as an exercise: its source without its gradient, for a reader to complete.

All of it is generated from the source of the operations, so there is no second copy to maintain.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from inspect import Parameter
from typing import Any

from tinytransformer.tensor import OPS, Operation

TITLE = '''"""Exercise: the gradient of {name}.

Derive it with pencil and paper, the way every derivation in tinytransformer/ops goes: nudge the inputs, see by
what the result moves, pair that with the gradient of the result, and read off the gradients of the inputs. Then
write them into `backward`, and have them graded:

    python exercises.py {name}

Import whatever helps. All but `backward` is right as it stands.
"""
'''

TASK = """\
        # {upstream} is dL/d{result}, the gradient of the result: in the shape of the result, and read-only.
        # Return a tuple with the gradient of every input, in the shape of that input: {gradients}.
        # Whatever was computed above may be used again.{stretched}
        raise NotImplementedError("{name}: the backward is still to be written")
"""

STRETCHED = """
        # Where an input was stretched by broadcasting, the engine sums its gradient back to its shape."""


class ExerciseError(Exception):
    """A file that cannot be graded; the message says where and why, for whoever wrote the file."""


def exercise(name: str) -> str:
    """Return the text of a file with the operation `name`, but without its derivation and its backward."""
    text = source(name)
    backward = backward_in(text)
    upstream = backward.args.args[0].arg
    gradients = ", ".join(f"d{parameter}" for parameter in input_names(OPS[name].plain))
    task = TASK.format(
        name=name,
        upstream=upstream,
        result=upstream[1:],
        gradients=f"({gradients})" if "," in gradients else f"({gradients},)",
        stretched=STRETCHED if OPS[name].broadcasts else "",
    )
    lines = text.splitlines(keepends=True)
    lines[backward.lineno : backward.end_lineno] = [task]
    stripped = without_derivation("".join(lines), OPS[name].plain)
    return complete(name, stripped, TITLE, needed_by=stripped)


def source(name: str) -> str:
    """Return the source of the operation `name`, as it stands in the package."""
    return inspect.getsource(OPS[name].plain)


def backward_in(text: str) -> ast.FunctionDef:
    """Return the function `backward` in the source of an operation."""
    functions = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef))
    return next(function for function in functions if function.name == "backward")


def input_names(plain: Callable[..., Any]) -> list[str]:
    """Return the names of all that can carry a gradient, in order; for `*xs`: xs[0], xs[1], ..."""
    parameters = inspect.signature(plain).parameters.values()
    if any(p.kind is Parameter.VAR_POSITIONAL for p in parameters):
        return ["xs[0]", "xs[1]", "..."]
    return [p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD]


def without_derivation(text: str, plain: Callable[..., Any]) -> str:
    """Cut the docstring from "Backward" to what describes the options, or to the shapes."""
    parameters = inspect.signature(plain).parameters.values()
    headings = ["Shapes", *(p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY)]
    end = rf"^    (?:{'|'.join(headings)})\b[\w, ]*:"
    return re.sub(rf"^    Backward\b.*?(?={end})", "", text, count=1, flags=re.MULTILINE | re.DOTALL)


def complete(name: str, text: str, title: str, needed_by: str) -> str:
    """Make the source of the operation `name` a file of its own: titled, with the imports that `needed_by` needs."""
    return f"{title.format(name=name)}\n{imports(name, needed_by)}\n\n{text}"


def imports(name: str, text: str) -> str:
    """Return the imports that `text` needs outside the module that the operation `name` stands in."""
    module = sys.modules[OPS[name].plain.__module__]
    used = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    theirs: list[str] = []
    ours: list[str] = []
    helpers: list[str] = []
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.FunctionDef):
            helpers.append(statement.name)
        elif isinstance(statement, ast.Assign):
            helpers += [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            statement.names = [alias for alias in statement.names if (alias.asname or alias.name) in used]
            if statement.names:
                line = ast.unparse(statement)
                (ours if line.startswith("from tinytransformer") else theirs).append(line)
    needed = sorted(used.intersection(helpers) - {name})
    if needed:
        ours = sorted([*ours, f"from {module.__name__} import {', '.join(needed)}"])
    groups = [["from __future__ import annotations"], theirs, ours]
    return "\n\n".join("\n".join(group) for group in groups if group) + "\n"


def operation_in(text: str, name: str, filename: str) -> Operation:
    """Run the text of a file, and return the operation `name` that it defines; OPS stays as it is.

    Raises: ExerciseError if there is none, or the text cannot be run.
    """
    registered, namespace = dict(OPS), {"__name__": f"exercises.{name}"}
    try:
        exec(compile(text, filename, "exec"), namespace)
    except SyntaxError as problem:
        where = f"line {problem.lineno}: " if problem.lineno else ""
        raise ExerciseError(f"{where}{problem.msg}") from problem
    except (Exception, SystemExit) as problem:  # whatever the text does, it is the reader who wants to know
        raise ExerciseError(f"it cannot be run: {type(problem).__name__}: {problem}") from problem
    finally:
        OPS.clear()
        OPS.update(registered)
    operation = namespace.get(name)
    if not isinstance(operation, Operation) or operation.name != name or operation is OPS.get(name):
        raise ExerciseError(f"it defines no operation {name!r}; is `@op` still above `def {name}`?")
    return operation
