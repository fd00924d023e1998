"""Every fused or clever operation is the same function as its plain composition, and has the same gradients."""

import pytest

from tinytransformer.tensor import OPS

from .cases import cases_of, relative_difference
from .compositions import COMPOSITIONS

CALLS = [(composition, case) for op, composition in COMPOSITIONS for case in cases_of(op)]


@pytest.mark.parametrize(("composition", "case"), CALLS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_an_operation_agrees_with_its_composition(composition, case):
    """Outputs and gradients of every input, under a random upstream gradient, to 1e-12."""
    output, _, gradients = case.run(OPS[case.op])
    plain_output, _, plain_gradients = case.run(composition)
    assert relative_difference(output, plain_output) < 1e-12
    for gradient, plain_gradient in zip(gradients, plain_gradients, strict=True):
        assert (gradient is None) == (plain_gradient is None)
        if gradient is not None:
            assert relative_difference(gradient, plain_gradient) < 1e-12
