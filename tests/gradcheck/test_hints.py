"""The hints: each names the kind of mistake that was made."""

import pytest
from attempts import answered

from tinytransformer.gradcheck.exercise import operation_in
from tinytransformer.gradcheck.grade import grade


def hints(name, *body):
    return [mark.hint for mark in grade(operation_in(answered(name, body), name, "attempt.py"))]


@pytest.mark.parametrize(
    ("name", "body", "hint"),
    [
        ("log", "return (-dy / x,)", "its sign is turned"),
        ("log", "return (1 / x,)", "a factor is missing: the gradient of the result"),
        ("log", "return (dy / x * dy,)", "a factor is one too many, or a division by it is missing: the gradient"),
        ("log", "return (dy,)", "a factor is one too many, or a division by it is missing: x"),
        ("log", "return (3 * dy / x,)", "it is 3 times the right one"),
        ("log", "return (0 * x,)", "it is zero everywhere"),
        ("log", "return (None,)", "it is None"),
        ("log", "return (3.0,)", "it is a float, and has to be an array"),
        ("log", "return (dy > 0,)", "it is an array of bool"),
        ("log", "return (dy / (x - x),)", "it holds NaN or infinities"),
        ("softmax", "return (y * dy,)", "off by a multiple of the result"),
        ("softmax", "return (y * (1 - y) * dy,)", "each element takes its own dy alone"),
        ("sum", "return (dy.mean() + 0 * x,)", "dy is the same everywhere"),
        ("relu", "return (dy,)", "some elements have to be zero; all others are right"),
        ("sum", "return (0 * x + 1,)", "it does not change with the gradient of the result"),
        ("getitem", "dx = 0 * x; dx[key] = 1; return (dx,)", "it does not change with the gradient of the result"),
        ("relu", "return (1.0 * (dy > 0),)", "some elements are wrong, all others right"),
        ("multiply", "return dz, dz", "a factor is missing: y"),
        ("divide", "return dz, -dz * x / y**2", "a factor is one too many, or a division by it is missing: y"),
        ("log_softmax", "return (dy - xp.exp(y),)", "off by a multiple of e^the result"),
        ("dropout", "return (dy,)", "the gradient of the result, unchanged"),
        ("reshape", "return (dy,)", "it has not the shape of the input: reshape it"),
        ("reshape", "return (dy.reshape(x.shape, order='F'),)", "the right numbers in the wrong places"),
    ],
)
def test_hint_names_the_kind_of_mistake(name, body, hint):
    assert hint in hints(name, body)[0]


def test_hints_of_the_rich_operations():
    dx, dgain, dbias = hints("layer_norm", "return inv_std * dy * gain, dy * xhat, dy")
    assert "each element takes its own dy alone" in dx
    assert "a sum is missing" in dgain
    assert "a sum is missing" in dbias
    scores = "dS = dy @ value.swapaxes(-1, -2) * (1 if kept is None else kept)"
    scores += "; dS = probabilities * (dS - (dS * probabilities).sum(-1, keepdims=True))"
    dquery, dkey, dvalue = hints("attention", scores, "return dS @ key, dS.swapaxes(-1, -2) @ query, 0 * value")
    assert "too large by a factor of sqrt(d)" in dquery
    assert "too large by a factor of sqrt(d)" in dkey
    assert dvalue == "it is zero everywhere"
    assert "the gradient of another input" in hints("multiply", "return dz * x, dz * y")[0]


def test_sum_over_a_broadcast_axis_is_missed_where_the_engine_does_not_take_it():
    text = answered("add", ["return dz, dz"]).replace("@op(broadcasts=True)", "@op")
    for mark in grade(operation_in(text, "add", "attempt.py")):
        assert "a sum is missing" in mark.hint
