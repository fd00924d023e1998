#!/usr/bin/env python3
"""Write worked-example.md: multi-head attention of two tokens, forward and backward, with every number.

All arithmetic is in `compute`. The page shows each of its matrices, and some entries multiplied out; `work` refuses to
write down an entry that does not come out as printed when it is computed from the numbers as printed.
"""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import numpy as np

from tinytransformer.layers import MultiHeadAttention
from tinytransformer.tensor import Tensor

TEMPLATE = Path(__file__).with_name("worked_example.template.md")
PAGE = Path(__file__).with_name("worked-example.md")
Numbers = dict[str, np.ndarray]
ENTRY = re.compile(r"(\w+)\[(\d),(\d)\]")

GIVEN: Numbers = {
    name: np.array(rows, dtype=float)
    for name, rows in {
        "X": [[0, 1, -1, 0], [1, -1, 0, 0.5]],
        "W_Q": [[0, 0, 0, 0.5], [1, 0, 0, 0], [0, 1, 1, 0], [0, -1, 1, 1]],
        "W_K": [[0, 0, 0, 1], [-1, 1, 0.5, 1], [0, 0.5, 0, 0], [0, 0, -1, 0]],
        "W_V": [[1, 0, 0, 0], [0, 1, -1, 0], [1, 0, 0, 1], [0, -1, 0, 1]],
        "W_O": [[0, 0, 1, 0], [0, -1, 0, 0], [0.5, 0, 0, 0], [0, 1, 1, 1]],
        "dY": [[-1, 0.5, 0.5, 0.5], [1, 1, 0.5, 0]],
    }.items()
}
BY_HEAD = {"Q", "K", "V", "C", "dC", "dQ", "dK", "dV", "W_Q", "W_K", "W_V", "dW_Q", "dW_K", "dW_V"}
C = 1 / math.sqrt(2)


def compute(given: Numbers) -> Numbers:
    """Return every matrix of the page by its name, all with two axes."""
    n = dict(given)
    for name in "QKV":
        n[name] = n["X"] @ n[f"W_{name}"]
        n[f"{name}_1"], n[f"{name}_2"] = n[name][:, :2], n[name][:, 2:]
    for i in "12":
        n[f"R_{i}"] = n[f"Q_{i}"] @ n[f"K_{i}"].T
        n[f"S_{i}"] = C * n[f"R_{i}"]
        n[f"E_{i}"] = np.exp(n[f"S_{i}"])
        n[f"z_{i}"] = n[f"E_{i}"].sum(1, keepdims=True)
        n[f"A_{i}"] = n[f"E_{i}"] / n[f"z_{i}"]
        n[f"H_{i}"] = n[f"A_{i}"] @ n[f"V_{i}"]
    n["C"] = np.hstack([n["H_1"], n["H_2"]])
    n["Y"] = n["C"] @ n["W_O"]

    n["dW_O"] = n["C"].T @ n["dY"]
    n["dC"] = n["dY"] @ n["W_O"].T
    n["dH_1"], n["dH_2"] = n["dC"][:, :2], n["dC"][:, 2:]
    for i in "12":
        n[f"dV_{i}"] = n[f"A_{i}"].T @ n[f"dH_{i}"]
        n[f"dA_{i}"] = n[f"dH_{i}"] @ n[f"V_{i}"].T
        n[f"g_{i}"] = (n[f"dA_{i}"] * n[f"A_{i}"]).sum(1, keepdims=True)
        n[f"dS_{i}"] = n[f"A_{i}"] * (n[f"dA_{i}"] - n[f"g_{i}"])
        n[f"dQ_{i}"] = C * n[f"dS_{i}"] @ n[f"K_{i}"]
        n[f"dK_{i}"] = C * n[f"dS_{i}"].T @ n[f"Q_{i}"]
    for name in "QKV":
        n[f"d{name}"] = np.hstack([n[f"d{name}_1"], n[f"d{name}_2"]])
        n[f"dW_{name}"] = n["X"].T @ n[f"d{name}"]
        n[f"dX_{name}"] = n[f"d{name}"] @ n[f"W_{name}"].T
    n["dX"] = n["dX_Q"] + n["dX_K"] + n["dX_V"]
    return n


# ---------------------------------------------------------------- numbers as they are printed


def decimals(x: np.ndarray) -> int:
    """Return how many decimals show a matrix exactly, if two are enough, else 4."""
    return next((places for places in (0, 1, 2) if (x == np.round(x, places)).all()), 4)


def fixed(x: float, places: int) -> str:
    """Print a number. Raises: ValueError if it lies where another machine might round it to the other side."""
    if abs(abs(x) * 10**places % 1 - 0.5) < 1e-5:
        raise ValueError(f"{x!r} lies between two numbers of {places} decimals")
    return f"{round(x, places) + 0.0:.{places}f}"  # -0.0 + 0.0 is 0.0


def show(n: Numbers, *names: str) -> str:
    """Print matrices side by side, each below its name and shape, with a bar between the heads."""
    blocks = []
    for name in names:
        x = n[name]
        cells = [[fixed(v, decimals(x)) for v in row] for row in x.tolist()]
        width = max(len(cell) for row in cells for cell in row)
        rows = ["  ".join(cell.rjust(width) for cell in row) for row in cells]
        if name in BY_HEAD:
            half = 2 * width + 2
            rows = [f"{row[:half]}  |{row[half:]}" for row in rows]
        blocks.append([f"{name}  ({x.shape[0]} x {x.shape[1]})", *rows])
    height = max(map(len, blocks))
    widths = [max(map(len, block)) for block in blocks]
    lines = [
        "      ".join((block[i] if i < len(block) else "").ljust(w) for block, w in zip(blocks, widths, strict=True))
        for i in range(height)
    ]
    return "\n".join(line.rstrip() for line in lines)


def entry(n: Numbers, name: str, i: int | str, j: int | str) -> str:
    """Print one entry, counted from 1: an exact one without needless decimals."""
    text = fixed(n[name][int(i) - 1, int(j) - 1], places := decimals(n[name]))
    return text.rstrip("0").rstrip(".") if places in (1, 2) else text


def work(n: Numbers, equation: str) -> str:
    """Print an equation such as "S_1[1,2] = c * R_1[1,2]" with the numbers put in on the right, and its result.

    Raises: ValueError if the numbers as printed do not give the result as printed.
    """
    left, right = equation.split(" = ")
    numbers = ENTRY.sub(lambda m: entry(n, *m.groups()), re.sub(r"\bc\b", fixed(C, 4), right))
    numbers = re.sub(r"(?<=[*+-] )(-[\d.]+)", r"(\1)", numbers)
    result = ENTRY.sub(lambda m: entry(n, *m.groups()), left)
    if fixed(eval(numbers, {"exp": math.exp}), 4) != fixed(float(result), 4):
        raise ValueError(f"{left}: {numbers} does not come out as {result}")
    return f"{left} = {numbers} = {result}"


def product(n: Numbers, equation: str) -> str:
    """Print entries of a matrix product, multiplied out: "dK = c * dS^T @ Q, at 1,1 2,2"; "c * " may be missing."""
    parts = re.fullmatch(r"(\w+) = (c \* )?(\w+)(\^T)? @ (\w+)(\^T)?, at (.+)", equation)
    if parts is None:
        raise ValueError(f"{equation!r} is no product")
    result, factor, left, left_transposed, right, right_transposed, entries = parts.groups()
    inner = n[left].shape[0 if left_transposed else 1]
    lines = []
    for i, j in (pair.split(",") for pair in entries.split()):
        terms = [
            (f"{left}[{k},{i}]" if left_transposed else f"{left}[{i},{k}]")
            + " * "
            + (f"{right}[{j},{k}]" if right_transposed else f"{right}[{k},{j}]")
            for k in range(1, inner + 1)
        ]
        total = " + ".join(terms)
        lines.append(work(n, f"{result}[{i},{j}] = " + (f"{factor}({total})" if factor else total)))
    return "\n".join(lines)


# ---------------------------------------------------------------- the page, and its check


def require_the_package_agrees(n: Numbers) -> None:
    """Raise AssertionError unless the package computes the same Y and the same gradients."""
    attention = MultiHeadAttention(4, 2, 0.0, np.random.default_rng(0))
    layers = {"Q": attention.query, "K": attention.key, "V": attention.value, "O": attention.output}
    for name, layer in layers.items():
        layer.weight.data, layer.bias = n[f"W_{name}"], None
    x = Tensor(n["X"][None], requires_grad=True)
    y = attention(x)
    y.backward(n["dY"][None])
    pairs = {"Y": y.data, "dX": x.grad, **{f"dW_{name}": layer.weight.grad for name, layer in layers.items()}}
    for name, theirs in pairs.items():
        worst = np.abs(n[name] - theirs).max()
        if worst > 1e-12:
            raise AssertionError(f"{name}: the page and the package differ by {worst}")


def nudged_loss(h: float) -> float:
    """Return L = sum(dY * Y) with W_Q[2,1] moved by h."""
    moved = GIVEN["W_Q"].copy()
    moved[1, 0] += h
    return float((GIVEN["dY"] * compute({**GIVEN, "W_Q": moved})["Y"]).sum())


def page(n: Numbers) -> str:
    """Fill the numbers into the template: {show A B}, {product ...}, {work ...}, {A[1,2]}, {c} and those of the nudge.

    Raises: AssertionError if the package or the finite difference does not agree.
    """
    require_the_package_agrees(n)
    up, down = fixed(nudged_loss(0.001), 8), fixed(nudged_loss(-0.001), 8)
    slope = fixed((float(up) - float(down)) / 0.002, 4)
    if slope != entry(n, "dW_Q", 2, 1):
        raise AssertionError(f"dW_Q[2,1] is {n['dW_Q'][1, 0]}, the finite difference {slope}")
    values = {"c": fixed(C, 4), "L_up": up, "L_down": down, "slope": slope}

    def fill(field: re.Match) -> str:
        command, _, rest = field[1].partition(" ")
        if command == "show":
            return show(n, *rest.split())
        if command in ("product", "work"):
            return {"product": product, "work": work}[command](n, rest)
        return values[command] if command in values else ENTRY.sub(lambda m: entry(n, *m.groups()), command)

    return re.sub(r"\{(.+?)\}", fill, TEMPLATE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_bytes(page(compute(GIVEN)).encode())
