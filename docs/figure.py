#!/usr/bin/env python3
"""Draw a Transformer block, forward and backward, into docs/block.svg, or into a file of your own.

A row is one step: on the left what `layers.Block` computes with pre-norm and cross-attention, on the right the
gradient of that step. tests/docs/test_figure.py computes every formula of the picture and compares with the tape.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so the picture is the same everywhere
    "font.size": 11.5,
    "mathtext.fontset": "dejavusans",
    "mathtext.default": "regular",
    "svg.fonttype": "path",
    "svg.hashsalt": "tinytransformer",
}


@dataclass(frozen=True)
class Step:
    """One row: the formula with the shape of its result, its gradient, and the weights that get theirs here."""

    forward: str
    shape: str
    backward: str
    weights: str = ""


@dataclass(frozen=True)
class Branch:
    """A sublayer beside the residual stream: its name, and its steps. The i-th adds $Y_i$ to the stream."""

    name: str
    steps: list[Step]


HEADS, SCORES, HIDDEN, WIDTH = "(B, H, T, d)", "(B, H, T, T)", "(B, T, $D_{ff}$)", "(B, T, D)"
XHAT = r"$\hat{x}$"

# In the order of the computation, which the picture shows from the bottom to the top.
BRANCHES = [
    Branch(
        "self-attention",
        [
            Step(
                "Q, K, V = $N_1$ @ ($W_Q$, $W_K$, $W_V$)",
                HEADS,
                "$dN_1$ = dQ @ $W_Q^T$ + dK @ $W_K^T$ + dV @ $W_V^T$",
                "$dW_Q$, $dW_K$, $dW_V$",
            ),
            Step("S = c * Q @ $K^T$,  no future", SCORES, "dQ = c * dS @ K,   dK = c * $dS^T$ @ Q"),
            Step("A = softmax(S)", SCORES, "dS = A * (dA - sum(dA * A))"),
            Step("C = join(A @ V)", WIDTH, "dA = split(dC) @ $V^T$,   dV = $A^T$ @ split(dC)"),
            Step("$Y_1$ = C @ $W_O$", WIDTH, "dC = $dY_1$ @ $W_O^T$", "$dW_O$"),
        ],
    ),
    Branch(
        "cross-attention",
        [
            Step("Q = $N_2$ @ $W_Q$", HEADS, "$dN_2$ = dQ @ $W_Q^T$", "$dW_Q$"),
            Step(
                "K, V = M @ ($W_K$, $W_V$)",
                "(B, H, $T_M$, d)",
                "dM = dK @ $W_K^T$ + dV @ $W_V^T$",
                "$dW_K$, $dW_V$",
            ),
            Step("A = softmax(c * Q @ $K^T$)", "(B, H, T, $T_M$)", "dQ, dK as in self-attention"),
            Step("C = join(A @ V)", WIDTH, "dA, dV as in self-attention"),
            Step("$Y_2$ = C @ $W_O$", WIDTH, "dC = $dY_2$ @ $W_O^T$", "$dW_O$"),
        ],
    ),
    Branch(
        "feed-forward",
        [
            Step("U = $N_3$ @ $W_1$", HIDDEN, "$dN_3$ = dU @ $W_1^T$", "$dW_1$"),
            Step("R = max(U, 0)", HIDDEN, "dU = dR where U > 0, else 0"),
            Step("$Y_3$ = R @ $W_2$", WIDTH, "dR = $dY_3$ @ $W_2^T$", "$dW_2$"),
        ],
    ),
]


def norm(i: int) -> list[Step]:
    """The steps of the layer norm that the i-th branch begins with."""
    return [
        Step(
            f"{XHAT} = ($X_{i}$ - mean($X_{i}$)) / s",
            WIDTH,
            f"$G_{i + 1}$ = (g - mean(g) - {XHAT} * mean(g * {XHAT})) / s",
        ),
        Step(f"$N_{i + 1}$ = gain * {XHAT} + bias", WIDTH, f"g = $dN_{i + 1}$ * gain", "dgain, dbias"),
    ]


NOTES = [
    "Read the left side upwards, the right side downwards: beside each step stands its gradient.",
    "A fork forward is a sum backward; a sum forward is a fork backward.  dX has the shape of X.",
    "Weights: y = x @ W gives dW = $x^T$ @ dy, over all positions.  Linear biases and dropout are left out.",
    "@ matrix product, * element by element, c = 1 / √d, d = D / H; s: standard deviation; M: from the encoder;",
    "join, split: (B, H, T, d) to (B, T, D) and back, understood at Q, K, V.  Sums and means: over the last axis.",
]

# Inches, from the bottom of the picture, and from the left edge of a panel.
STREAM, LEFT, RIGHT, MARGIN = 0.3, 1.0, 4.6, 4.87
MIDDLE = (LEFT + RIGHT) / 2
ROW, LEAD, BETWEEN, GAP, RADIUS = 0.41, 0.32, 0.4, 0.62, 0.12
STREAM_WIDTH = 2.6  # of the line, in points
SOLID: dict[str, Any] = {"color": "black", "ls": "-"}
DASHED: dict[str, Any] = {"color": "black", "ls": (0, (3.2, 1.8))}


class Panel:
    """One of the two sides. Everything is drawn in the direction of the forward pass, and turned round if backward."""

    def __init__(self, axes: Axes, left: float, *, backward: bool):
        self.axes = axes
        self.left = left
        self.backward = backward
        self.line = DASHED if backward else SOLID

    def text(self, x: float, y: float, text: str, **options: Any) -> None:
        text = text.replace(" - ", " \N{MINUS SIGN} ")
        self.axes.text(self.left + x, y, text, **{"va": "center", "ha": "left", **options})

    def arrow(self, *points: tuple[float, float], head: bool = True, lw: float = 1.5) -> None:
        """A line through `points`, with a head at its end; backward it runs from the last point to the first."""
        path = [(self.left + x, y) for x, y in (points[::-1] if self.backward else points)]
        (x0, y0), (x1, y1) = path[-2:]
        if head:
            length = abs(x1 - x0) + abs(y1 - y0)
            short = x1 - (x1 - x0) * 0.1 / length, y1 - (y1 - y0) * 0.1 / length  # the line ends inside the head
            style = {"arrowstyle": "-|>,head_width=0.3,head_length=0.6", "color": "black", "shrinkA": 0, "shrinkB": 0}
            self.axes.annotate("", (x1, y1), short, arrowprops=style)
            path[-1] = short
        self.axes.plot(*zip(*path, strict=True), lw=lw, solid_capstyle="butt", dash_capstyle="butt", **self.line)

    def fork(self, y: float) -> None:
        self.axes.plot(self.left + STREAM, y, "o", ms=7, color="black", zorder=3)

    def sum(self, y: float) -> None:
        self.axes.plot(self.left + STREAM, y, "o", ms=144 * RADIUS, mfc="white", mec="black", mew=1.5, zorder=3)
        self.axes.plot(self.left + STREAM, y, "+", ms=10, color="black", mew=1.5, zorder=4)

    def box(self, bottom: float, name: str, steps: list[Step]) -> float:
        """Draw a box with a row for every step; return the height of its top."""
        height = ROW * len(steps)
        corner, middle = (self.left + LEFT, bottom), bottom + height / 2
        self.axes.add_patch(plt.Rectangle(corner, RIGHT - LEFT, height, fc="white", ec="black", lw=1.2))
        self.text(LEFT - 0.19, middle, name, ha="center", rotation=90, weight="bold")
        for j, step in enumerate(steps):
            y = bottom + ROW * (j + 0.5)
            if j:
                edges = [self.left + LEFT, self.left + RIGHT]
                self.axes.plot(edges, [y - ROW / 2] * 2, color="0.6", lw=0.8)
            self.row(y, step)
        return bottom + height

    def row(self, y: float, step: Step) -> None:
        """Draw one step, and what enters and leaves it at the side: the memory, and the gradients of weights."""
        memory = "M @" in step.forward
        if self.backward:
            self.text(LEFT + 0.12, y, step.backward)
            at_side = [("dM", "bold")] * memory + [(step.weights, "normal")] * bool(step.weights)
            for k, (name, weight) in enumerate(at_side):
                height = y + (0.11 - 0.22 * k) * (len(at_side) - 1)
                self.arrow((MARGIN, height), (RIGHT, height))
                self.text(MARGIN + 0.06, height, name, fontsize=10.5, weight=weight)
        else:
            self.text(LEFT + 0.12, y, step.forward)
            self.text(RIGHT - 0.12, y, step.shape, ha="right", fontsize=10.5)
            if memory:
                self.arrow((MARGIN + 0.1, y), (RIGHT, y))
                self.text(MARGIN + 0.16, y, "M", fontsize=10.5, weight="bold")


def draw(path: Path) -> None:
    """Write the picture to `path`; its suffix chooses the format."""
    bottom = 0.25 * len(NOTES) + 0.85
    rows = sum(len(branch.steps) + 2 for branch in BRANCHES)
    width, height = 11.8, bottom + ROW * rows + (2 * LEAD + BETWEEN + GAP) * len(BRANCHES) + 0.65
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.axis("off")
        for panel in (Panel(axes, 0.1, backward=False), Panel(axes, 5.55, backward=True)):
            back = panel.backward
            title = "backward  ↓" if back else "forward  ↑"
            panel.text(MIDDLE, height - 0.3, title, ha="center", fontsize=15, weight="bold")
            panel.arrow((STREAM, bottom - 0.4), (STREAM, bottom), head=back, lw=STREAM_WIDTH)
            panel.text(STREAM + 0.2, bottom - 0.25, "$dX_0$ = $dX_1$ + $G_1$" if back else f"$X_0$   {WIDTH}")
            y = bottom
            for i, branch in enumerate(BRANCHES):
                y = draw_branch(panel, branch, i, y)
        for i, note in enumerate(reversed(NOTES)):
            axes.text(0.4, 0.22 + 0.25 * i, note, fontsize=11, va="center")
        figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)
    if path.suffix == ".svg":
        path.write_text(compact(path.read_text("utf-8")), "utf-8")


def draw_branch(panel: Panel, branch: Branch, i: int, start: float) -> float:
    """Draw the i-th sublayer, whose branch leaves the stream at height `start`; return where the next one leaves it."""
    back, last = panel.backward, i == len(BRANCHES) - 1
    norm_top = panel.box(start + LEAD, "norm", norm(i))
    steps_bottom = norm_top + BETWEEN
    steps_top = panel.box(steps_bottom, branch.name, branch.steps)
    end = steps_top + LEAD

    # Where values meet, arrows end at the edge of the circle: the sum is at the end forward, at the start backward.
    (panel.sum if back else panel.fork)(start)
    (panel.fork if back else panel.sum)(end)
    panel.arrow((STREAM + RADIUS * back, start), (MIDDLE, start), (MIDDLE, start + LEAD))
    panel.arrow((MIDDLE, norm_top), (MIDDLE, steps_bottom))
    panel.arrow((MIDDLE, steps_top), (MIDDLE, end), (STREAM + RADIUS * (not back), end))
    panel.arrow((STREAM, start + RADIUS * back), (STREAM, end - RADIUS * (not back)), lw=STREAM_WIDTH)
    panel.arrow((STREAM, end), (STREAM, end + GAP), head=last and not back, lw=STREAM_WIDTH)

    n, x = i + 1, f"$X_{i}$"
    if back:
        into, between, out = f"$G_{n}$", f"$dN_{n}$", f"$dY_{n}$ = $dX_{n}$"
        stream = f"$dX_{n}$" if last else f"$dX_{n}$ = $dX_{n + 1}$ + $G_{n + 1}$"
    else:
        into, between, out = x, f"$N_{n}$", f"$Y_{n}$"
        stream = f"$X_{n}$ = {x} + $Y_{n}$   {WIDTH}"
    panel.text(MIDDLE + 0.15, start + LEAD / 2, into)
    panel.text(MIDDLE + 0.15, norm_top + BETWEEN / 2, between)
    panel.text(MIDDLE + 0.15, end - LEAD / 2, out)
    panel.text(STREAM + 0.2, end + GAP / 2, stream)
    return end + GAP


def compact(svg: str) -> str:
    """Take out the indentation, and of the places of letters what is below a tenth of a point: a sixth of the file."""
    lines = "\n".join(line.strip() for line in svg.splitlines())
    return re.sub(r"translate\([^)]*\)", lambda place: re.sub(r"(\.\d)\d+", r"\1", place[0]), lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    block = Path(__file__).with_name("block.svg")
    parser.add_argument("path", nargs="?", metavar="FILE", type=Path, default=block, help="an .svg, .png or .pdf")
    path = parser.parse_args().path
    if path.suffix not in (".svg", ".png", ".pdf"):
        parser.error(f"{path} is no .svg, .png or .pdf")
    try:
        draw(path)
    except OSError as error:
        sys.exit(f"figure.py: error: {path}: {error.strerror}")
