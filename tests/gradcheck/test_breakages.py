"""The checker is checked: every gradient that is broken on purpose is noticed."""

import pytest

import tinytransformer.ops
from tinytransformer.gradcheck.breakages import (
    BY_HAND,
    EVERYWHERE,
    EXEMPT,
    attention_backward,
    breakages_of,
    caught,
    gelu_backward,
    layer_norm_backward,
    rebuilt,
)
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import analytic_gradients, check, draw
from tinytransformer.tensor import OPS

NAMES = sorted(tinytransformer.ops.__all__)
BREAKAGES = [
    pytest.param(breakage, id=f"{name}, {breakage.label}") for name in NAMES for breakage in breakages_of(OPS[name])
]
TO_CATCH = [parameter for parameter in BREAKAGES if not parameter.values[0].exemption]


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("breakage", TO_CATCH)
def test_breakage_is_caught(breakage, seed):
    assert caught(breakage, seed)


@pytest.mark.parametrize("breakage", TO_CATCH)
def test_breakage_is_caught_for_what_it_is(breakage):
    """A breakage that stumbles over a mistake of its own would be caught for the wrong reason."""
    failures = [
        result
        for case in CASES[breakage.broken.name]
        for result in check(breakage.broken, case, seed=0)
        if result.verdict == "FAIL"
    ]
    assert all(result.note == "" or result.note.startswith("GraphError") for result in failures)
    refused_by_the_engine = breakage.label == "sum over broadcast axes left out"
    assert refused_by_the_engine or any(result.note == "" for result in failures)


@pytest.mark.parametrize("name", NAMES)
def test_every_input_is_broken_in_every_way(name):
    labels = {breakage.label for breakage in breakages_of(OPS[name])}
    for input_name in CASES[name][0].input_names(OPS[name]):
        assert {f"{input_name} {label}" for label in EVERYWHERE} <= labels


def test_exemptions_are_breakages_with_a_reason():
    for (name, label), reason in EXEMPT.items():
        assert label in BY_HAND[name]
        assert reason
    assert len(BREAKAGES) - len(TO_CATCH) == len(EXEMPT)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "label"), EXEMPT)
def test_exempt_breakage_changes_nothing(name, label, seed):
    operation = OPS[name]
    for case in CASES[name]:
        arrays, upstream = draw(operation, case, seed)
        right = analytic_gradients(operation, case, arrays, upstream)
        broken = analytic_gradients(rebuilt(operation, BY_HAND[name][label]), case, arrays, upstream)
        for dx, same in zip(right, broken, strict=True):
            assert abs(dx - same).max() <= 1e-15


@pytest.mark.parametrize(
    ("name", "right"),
    [("attention", attention_backward), ("gelu", gelu_backward), ("layer_norm", layer_norm_backward)],
)
def test_formulas_broken_by_hand_are_right_before_they_are_broken(name, right):
    operation = rebuilt(OPS[name], right)
    for case in CASES[name]:
        for result in check(operation, case, seed=0):
            assert result.verdict in ("pass", "zero"), str(result)


def test_breakages_leave_the_registry_alone():
    assert all(OPS[name] is getattr(tinytransformer.ops, name) for name in NAMES)
