"""One fault in a backward, planted for a reader to find: everything else stays as it stands in the source."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from random import Random

import numpy as np

from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import FAIL, check
from tinytransformer.gradcheck.exercise import backward_in, complete, operation_in, source

TITLE = '''"""Find the fault in {name}.

The operation is that of tinytransformer/ops, but for one fault in the code of `backward`: a line is wrong, or missing.
The derivation is right. Hold the one against the other, line by line; repair what is wrong; and have it graded:

    python exercises.py {name} --find
"""
'''

SYMBOLS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Gt: ">", ast.Eq: "=="}
OPPOSITES = {"+": "-", "-": "+", "/": "*", ">": "<", "==": "!="}

Fault = tuple[str, int, int, str]  # its kind; from where to where the source is replaced; by what
Place = ast.expr | ast.stmt


def plant(name: str, seed: int) -> str:
    """Return the text of a file with the operation `name` and one fault, which gradcheck notices, in its backward.

    The seed decides first on the kind of the fault and then on its place.
    """
    text, random = source(name), Random(seed)
    candidates = sorted(set(faults(text)))
    kinds = sorted({kind for kind, *_ in candidates})
    random.shuffle(candidates)
    random.shuffle(kinds)
    candidates.sort(key=lambda fault: kinds.index(fault[0]))
    for may_raise in (False, True):  # an error would tell the line, but some operations allow no quieter fault
        for _, start, end, new in candidates:
            planted = complete(name, text[:start] + new + text[end:], TITLE, needed_by=text)  # no import may tell
            if is_noticed(planted, name, may_raise=may_raise):
                return planted
    raise ValueError(f"no fault can be planted in {name}")


def is_noticed(text: str, name: str, *, may_raise: bool) -> bool:
    """Return whether gradcheck finds wrong values, but no NaN, and no error unless it `may_raise`."""
    operation = operation_in(text, name, f"{name}.py")
    with np.errstate(all="ignore"):
        results = [result for case in CASES[name] for result in check(operation, case, seed=0)]
    quiet = all(np.isfinite(r.error) or (r.note and may_raise) for r in results)
    return quiet and any(r.verdict == FAIL and not r.note for r in results)


class Code:
    """The text of an operation, and where in it a node of its syntax tree stands."""

    def __init__(self, text: str):
        self.text = text
        self.starts = [0, *itertools.accumulate(len(line) for line in text.splitlines(keepends=True))]

    def begin(self, node: Place) -> int:
        return self.starts[node.lineno - 1] + node.col_offset

    def end(self, node: Place) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: Place) -> str:
        return self.text[self.begin(node) : self.end(node)]

    def find(self, symbol: str, left: Place, right: Place) -> int:
        return self.text.index(symbol, self.end(left), self.begin(right))

    def replaced(self, kind: str, node: Place, new: str) -> Fault:
        """Put `new` in the place of `node`, and in that of its parentheses, where `new` needs none any more."""
        start, end = self.begin(node), self.end(node)
        grouped = re.search(r"(?<![\w)\]])\($", self.text[:start]) and self.text[end] == ")"
        return (kind, start - 1, end + 1, new) if grouped and new.isalnum() else (kind, start, end, new)


def faults(text: str) -> Iterator[Fault]:
    """Yield the faults that might be planted in the backward of the operation with this source; some change nothing."""
    code, backward, names = Code(text), backward_in(text), variables(text)
    nodes = list(ast.walk(backward))
    operands = [child for node in nodes if isinstance(node, ast.BinOp) for child in (node.left, node.right)]
    for node in nodes:
        match node:
            case ast.BinOp(_, operator, _) if type(operator) in SYMBOLS:
                yield from of_formula(code, node, inside=node in operands)
            case ast.AugAssign(target, operator, value) if isinstance(operator, ast.Add | ast.Sub):
                at = code.find(SYMBOLS[type(operator)], target, value)
                yield "sign", at, at + 1, OPPOSITES[text[at]]
            case ast.Compare(left, [operator], [right]) if type(operator) in SYMBOLS:
                at, symbol = code.find(SYMBOLS[type(operator)], left, right), SYMBOLS[type(operator)]
                yield "comparison", at, at + len(symbol), OPPOSITES[symbol]
            case ast.UnaryOp(ast.USub(), operand) if not isinstance(operand, ast.Constant):
                yield code.replaced("sign", node, code.of(operand))
            case ast.Attribute(value, "T") | ast.Call(ast.Attribute(value, "swapaxes" | "transpose")):
                yield code.replaced("transposition", node, code.of(value))
            case ast.Call(ast.Attribute(_, "reshape"), [ast.Attribute(_, "shape") as shape]):
                yield code.replaced("order", shape, f'{code.of(shape)}, order="F"')
            case ast.keyword("axis", value):
                yield from (code.replaced("axis", value, axis) for axis in ("0", "-1"))
            case ast.Assign([ast.Subscript()], value):
                yield code.replaced("sign", value, f"-{code.of(value)}")
            case ast.Return(ast.Tuple(gradients)):
                for dx in gradients:
                    if isinstance(dx, ast.Call | ast.Name):
                        yield code.replaced("sign", dx, f"-{code.of(dx)}")
                if len(gradients) > 1:
                    first, second = gradients[:2]
                    swapped = f"{code.of(second)}, {code.of(first)}"
                    yield "swapped", code.begin(first), code.end(second), swapped
            case ast.Name(name, ast.Load()) if name in names:
                yield from (code.replaced("name", node, other) for other in names if other != name)
            case ast.FunctionDef() | ast.For():
                for line in node.body[:-1]:
                    if isinstance(line, ast.Assign | ast.AugAssign | ast.If):
                        yield "line", code.starts[line.lineno - 1], code.end(line) + 1, ""


def of_formula(code: Code, node: ast.BinOp, *, inside: bool) -> Iterator[Fault]:
    """Yield the faults in one sum, difference, product or quotient, which may stand inside another one."""
    symbol = SYMBOLS[type(node.op)]
    at = code.find(symbol, node.left, node.right)
    left, right = code.of(node.left), code.of(node.right)
    if inside:  # what stays is joined to something else, so it keeps its parentheses
        left, right = code.text[code.begin(node) : at].rstrip(), code.text[at + 1 : code.end(node)].lstrip()
    kind = "term" if symbol in "+-" else "factor"
    yield code.replaced(kind, node, left)
    if symbol in "+*":
        yield code.replaced(kind, node, right)
    if symbol in OPPOSITES:
        yield ("sign" if symbol in "+-" else kind), at, at + 1, OPPOSITES[symbol]
    for number in (node.left, node.right):
        if isinstance(number, ast.Constant) and isinstance(number.value, int):
            yield code.replaced("number", number, str(number.value + 1))


def variables(text: str) -> list[str]:
    """Return the names of the inputs and variables in the source of an operation; not of its options."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.arguments):
            names |= {argument.arg for argument in node.args}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return sorted(names - {"xp"})  # the module of the arrays
