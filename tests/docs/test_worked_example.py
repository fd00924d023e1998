"""docs/worked-example.md: up to date, and right in every number, read off the page as a reader would."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from tinytransformer.ops import attention, linear, reshape, transpose
from tinytransformer.tensor import Tensor

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "worked-example.md").read_text(encoding="utf-8")
EQUATION = re.compile(r"^(\w+)\[(\d),(\d)\] = (.+) = (-?[\d.]+)$", re.MULTILINE)


def load():
    """Import docs/worked_example.py, which is no part of a package."""
    return load_script("docs/worked_example.py")


@pytest.fixture
def script():
    return load()


def matrices():
    """Read every matrix off the page: names and shapes stand in one line, the rows below them."""
    found = {}
    for paragraph in TEXT.replace("```", "").split("\n\n"):
        heading, *lines = paragraph.strip("\n").split("\n")
        titles = list(re.finditer(r"(\w+)  \((\d) x (\d)\)(?=  |$)", heading))
        ends = [title.start() for title in titles[1:]] + [None] * bool(titles)
        for title, end in zip(titles, ends, strict=True):
            cells = [line[title.start() : end].replace("|", " ").split() for line in lines]
            found[title[1]] = np.array([row for row in cells if row], dtype=float)
            assert found[title[1]].shape == (int(title[2]), int(title[3]))
    return found


def test_the_page_is_what_the_script_writes(script):
    assert (DOCS / "worked-example.md").read_bytes() == script.page(script.compute(script.GIVEN)).encode()


def test_every_matrix_of_the_arithmetic_is_on_the_page(script):
    """But for the halves of Q, K and V, which stand side by side."""
    numbers, printed = script.compute(script.GIVEN), matrices()
    assert set(numbers) - set(printed) == {f"{name}_{head}" for name in "QKV" for head in (1, 2)}
    for name, x in printed.items():
        np.testing.assert_allclose(x, numbers[name], atol=5.1e-5, err_msg=name)


def test_the_numbers_on_the_page_are_those_of_the_operations():
    """From X, the weights and dY as printed, the output and all gradients as printed, to the last decimal."""
    printed = matrices()
    leaves = {name: Tensor(printed[name], requires_grad=True) for name in ("X", "W_Q", "W_K", "W_V", "W_O")}

    def project(name):
        return transpose(reshape(linear(leaves["X"], leaves[name], None), shape=(1, 2, 2, 2)), axes=(0, 2, 1, 3))

    heads = attention(project("W_Q"), project("W_K"), project("W_V"))
    concatenated = reshape(transpose(heads, axes=(0, 2, 1, 3)), shape=(2, 4))
    output = linear(concatenated, leaves["W_O"], None)
    output.backward(printed["dY"])
    np.testing.assert_allclose(printed["C"], concatenated.data, atol=5.1e-5)
    np.testing.assert_allclose(printed["Y"], output.data, atol=5.1e-5)
    for name, leaf in leaves.items():
        np.testing.assert_allclose(printed[f"d{name}"], leaf.grad, atol=5.1e-5, err_msg=name)


def test_every_entry_multiplied_out_is_true_and_stands_in_its_matrix():
    printed = matrices()
    for name, i, j, right, result in EQUATION.findall(TEXT):
        assert round(eval(right, {"exp": math.exp}), 4) == float(result), f"{name}[{i},{j}]"
        assert printed[name][int(i) - 1, int(j) - 1] == float(result), f"{name}[{i},{j}]"


def test_three_entries_of_every_matrix_are_multiplied_out():
    """Both heads of a matrix together; C and the joined gradients hold nothing new. Of g only two come out exactly."""
    written = [re.sub(r"_[12]$", "", name) for name, *_ in EQUATION.findall(TEXT)]
    copied = {"C", "dH", "dQ", "dK", "dV", "X", "W_Q", "W_K", "W_V", "W_O", "dY"} - set(written)
    computed = {re.sub(r"_[12]$", "", name) for name in matrices()} - copied
    assert set(written) == computed
    assert {name for name in computed if written.count(name) < 3} == {"g"}


def test_no_zero_is_negative(script):
    assert script.fixed(-0.00001, 4) == "0.0000"
    assert not re.search(r"-0(\.0*)?(?![\d.])", TEXT)


@pytest.mark.parametrize(
    ("term", "instead"),
    [
        ('n[f"dA_{i}"] - n[f"g_{i}"]', 'n[f"dA_{i}"]'),
        ('C * n[f"dS_{i}"] @ n[f"K_{i}"]', 'n[f"dS_{i}"] @ n[f"K_{i}"]'),
        ('C * n[f"dS_{i}"].T @ n[f"Q_{i}"]', 'C * n[f"dS_{i}"] @ n[f"Q_{i}"]'),
        ('n["dX_Q"] + n["dX_K"] + n["dX_V"]', 'n["dX_Q"] + n["dX_V"]'),
        ('n[f"A_{i}"].T @ n[f"dH_{i}"]', 'n[f"A_{i}"] @ n[f"dH_{i}"]'),
        ('C * n[f"R_{i}"]', 'n[f"R_{i}"]'),
    ],
)
def test_a_fault_in_the_arithmetic_leaves_no_page(script, term, instead):
    source = (DOCS / "worked_example.py").read_text(encoding="utf-8")
    assert source.count(term) == 1
    exec(compile(source.replace(term, instead), script.__file__, "exec"), vars(script))
    with pytest.raises(AssertionError, match="the page and the package differ"):
        script.page(script.compute(script.GIVEN))


def test_an_entry_that_does_not_come_out_as_printed_is_refused(script):
    """H_1[1,1] is 0.8447, but 0.8448 from the rounded weights."""
    with pytest.raises(ValueError, match="does not come out"):
        script.product(script.compute(script.GIVEN), "H_1 = A_1 @ V_1, at 1,1")


def test_a_number_between_two_printed_ones_is_refused(script):
    with pytest.raises(ValueError, match="lies between"):
        script.fixed(0.00005, 4)
