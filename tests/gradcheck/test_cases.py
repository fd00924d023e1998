"""The table of cases: it covers every operation, and every gradient stands the check."""

from inspect import Parameter, signature

import numpy as np
import pytest

import tinytransformer.ops
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import check, draw
from tinytransformer.tensor import OPS

NAMES = sorted(tinytransformer.ops.__all__)
EVERY_CASE = [(name, case) for name, cases in CASES.items() for case in cases]


def test_every_operation_has_cases():
    assert set(CASES) == set(OPS)
    assert all(CASES.values())


@pytest.mark.parametrize("name", NAMES)
def test_first_case_takes_every_input(name):
    parameters = signature(OPS[name].plain).parameters.values()
    expected = [p.name for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
    names = CASES[name][0].input_names(OPS[name])
    assert names == (expected or ["xs[0]", "xs[1]", "xs[2]"])


@pytest.mark.parametrize("name", NAMES)
def test_labels_tell_cases_apart(name):
    labels = [case.label for case in CASES[name]]
    assert len(labels) == len(set(labels))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "case"), EVERY_CASE, ids=lambda value: getattr(value, "label", value))
def test_every_gradient_stands(name, case, seed):
    for result in check(OPS[name], case, seed):
        expected = "zero" if result.input in case.zero else "pass"
        assert result.verdict == expected, str(result)


@pytest.mark.parametrize(("name", "case"), EVERY_CASE, ids=lambda value: getattr(value, "label", value))
def test_inputs_are_small_float64_and_reproducible(name, case):
    arrays, upstream = draw(OPS[name], case, seed=3)
    again, upstream_again = draw(OPS[name], case, seed=3)
    for x, same in zip([*arrays, upstream], [*again, upstream_again], strict=True):
        assert x.dtype == np.float64
        assert x.size <= 60
        np.testing.assert_array_equal(x, same)


@pytest.mark.parametrize(("name", "case"), EVERY_CASE, ids=lambda value: getattr(value, "label", value))
def test_every_evaluation_yields_the_same(name, case):
    arrays, _ = draw(OPS[name], case, seed=0)
    first, second = (case.run(OPS[name], arrays).data for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_views_are_not_contiguous():
    for name, case in EVERY_CASE:
        if "view" in case.label:
            arrays, _ = draw(OPS[name], case, seed=0)
            assert not all(x.flags.c_contiguous for x in arrays), f"{name}, {case.label}"
