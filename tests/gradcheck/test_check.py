"""The verdicts: what passes, what fails, and what proves nothing."""

import numpy as np
import pytest

from tinytransformer.gradcheck.case import Case, anywhere, off_zero
from tinytransformer.gradcheck.check import check, judge
from tinytransformer.gradcheck.numerical import Differences
from tinytransformer.ops import exp, max, multiply, relu, subtract
from tinytransformer.tensor import Operation


def square(factor):
    """Return y = x^2 with the gradient `factor` * x * dy; 2 is right."""

    def plain(x):
        return x * x, lambda dy: (factor * x * dy,)

    return Operation(plain)


def only(operation, case, seed=0):
    (result,) = check(operation, case, seed)
    return result


ROWS = Case("rows", off_zero(2, 3))


def test_right_gradient_passes():
    result = only(square(2), ROWS)
    assert result.verdict == "pass"
    assert result.error < 1e-11
    assert (result.operation, result.case, result.input, result.seed) == ("plain", "rows", "x", 0)


@pytest.mark.parametrize("factor", [0, -2, 2 + 1e-8, np.nan, np.inf])
def test_wrong_gradient_fails(factor):
    assert only(square(factor), ROWS).verdict == "FAIL"


def test_failure_shows_where_and_how_to_repeat_it():
    def relu(x):
        def backward(dy):
            dx = dy.copy()
            dx[1, 2] *= 3
            return (dx,)

        return x * 1, backward

    result = only(Operation(relu), ROWS, seed=5)
    assert result.verdict == "FAIL"
    assert result.index == (1, 2)
    assert result.analytic == pytest.approx(3 * result.numerical)
    text = str(result)
    assert text.startswith("FAIL: relu, case 'rows', input x\n")
    assert "(1, 2)" in text
    assert f"{result.analytic:.12g}" in text
    assert f"{result.numerical:.12g}" in text
    assert "python -m tinytransformer.gradcheck --op relu --seed 5" in text


def test_failure_of_a_readers_own_operation_names_no_command():
    text = str(only(square(0), ROWS, seed=5))
    assert "gradcheck --op" not in text
    assert "seed 5" in text


def test_every_input_is_checked():
    def plain(x, y):
        return x * y, lambda dz: (dz * y, dz)

    first, second = check(Operation(plain), Case("both", off_zero(3), off_zero(3)), seed=0)
    assert (first.input, first.verdict) == ("x", "pass")
    assert (second.input, second.verdict) == ("y", "FAIL")


def test_an_input_used_twice_is_one_input():
    result = only(multiply, Case("twice", off_zero(3), call=lambda op, x: op(x, x)))
    assert (result.input, result.verdict) == ("x", "pass")


def test_missing_gradient_fails():
    def plain(x):
        return x * 1, lambda dy: (None,)

    assert only(Operation(plain), ROWS).verdict == "FAIL"


def test_missing_gradient_is_not_a_zero():
    def plain(x):
        return 0 * x, lambda dy: (None,)

    assert only(Operation(plain), Case("declared", off_zero(3), zero=("x",))).verdict == "FAIL"


def test_broken_contract_fails_with_a_note():
    def plain(x):
        return x * 1, lambda dy: (dy.sum(),)

    result = only(Operation(plain), ROWS)
    assert result.verdict == "FAIL"
    assert result.note.startswith("GraphError: plain: backward returned a gradient of shape ()")
    assert result.note in str(result)


@pytest.mark.parametrize("victim", ["x", "dy"])
def test_writing_into_foreign_arrays_fails(victim):
    def plain(x):
        def backward(dy):
            written = {"x": x, "dy": dy}[victim]
            written *= 1
            return (dy,)

        return x * 1, backward

    result = only(Operation(plain), ROWS)
    assert result.verdict == "FAIL"
    assert "read-only" in result.note


def test_relu_at_zero_is_inconclusive():
    def half_slope(x):  # agrees with every central difference
        return np.maximum(x, 0), lambda dy: (dy * np.where(x == 0, 0.5, x > 0),)

    at_zero = Case("kink", lambda generator: np.array([0.0, 1.0]))
    assert only(relu, at_zero).verdict == "inconclusive"
    assert only(Operation(half_slope), at_zero).verdict == "inconclusive"


def test_kink_within_the_step_is_inconclusive():
    assert only(relu, Case("near kink", lambda generator: np.array([2e-3, 1.0]))).verdict == "inconclusive"


def test_tied_maxima_are_inconclusive():
    tied = Case("ties", lambda generator: np.array([[1.0, 1.0, 0.0]]), axis=-1)
    assert only(max, tied).verdict == "inconclusive"


def test_step_too_large_for_the_function_is_inconclusive():
    assert only(exp, Case("steep", lambda generator: np.array([1.0]), call=steep)).verdict == "inconclusive"


def steep(operation, x):
    return operation(multiply(x, 30.0))


def test_zero_has_to_be_declared():
    def difference(op, x):
        return op(x, x)

    assert only(subtract, Case("undeclared", anywhere(3), call=difference)).verdict == "inconclusive"
    assert only(subtract, Case("declared", anywhere(3), call=difference, zero=("x",))).verdict == "zero"


def test_gradient_wrongly_declared_zero_fails():
    assert only(square(2), Case("declared", off_zero(3), zero=("x",))).verdict == "FAIL"


def test_declared_zero_is_held_absolutely():
    def plain(x):
        return 0 * x, lambda dy: (2e-11 * np.sign(dy),)

    assert only(Operation(plain), Case("declared", off_zero(3), zero=("x",))).verdict == "FAIL"


def test_kink_of_a_declared_zero_is_inconclusive():
    def plain(x):
        return np.abs(x), lambda dy: (0 * dy,)

    at_zero = Case("kink", lambda generator: np.zeros(2), zero=("x",))
    assert only(Operation(plain), at_zero).verdict == "inconclusive"


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e5])
def test_the_error_is_relative_to_the_norm(scale):
    right, nothing = scale * np.array([3.0, -4.0]), np.zeros(2)
    wrong = right + 1e-6 * scale * np.array([4.0, 3.0])
    verdict, error = judge(wrong, Differences(right, right, nothing), declared_zero=False)
    assert verdict == "FAIL"
    assert error == pytest.approx(1e-6, rel=1e-6)
    assert judge(right, Differences(right, right, nothing), declared_zero=False) == ("pass", 0.0)


def verdict(analytic, sixth, fourth, jump, declared_zero):
    numerical = Differences(*(np.array([value, 0.0]) for value in (sixth, fourth, jump)))
    return judge(np.array([analytic, 0.0]), numerical, declared_zero=declared_zero)[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("declared_zero", [False, True])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nothing_passes_that_is_not_finite(bad, position, declared_zero):
    good = [0.0, 0.0, 0.0, 0.0] if declared_zero else [1.0, 1.0, 1.0, 0.0]
    assert verdict(*good, declared_zero) == ("zero" if declared_zero else "pass")
    good[position] = bad
    assert verdict(*good, declared_zero) in ("FAIL", "inconclusive")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((1 + 0.5e-9, 1, 1, 0), "pass"),
        ((1 + 2e-9, 1, 1, 0), "FAIL"),
        ((1, 1, 1 + 2e-9, 0), "inconclusive"),
        ((1, 1, 1, 2e-9), "inconclusive"),
        ((5, 1, 1, 1), "inconclusive"),
        ((1e-5, 1e-5, 1e-5, 0), "inconclusive"),
        ((1, 0, 0, 0), "inconclusive"),
    ],
)
def test_tolerances(values, expected):
    assert verdict(*values, declared_zero=False) == expected
