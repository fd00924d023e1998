"""Every operation gives what the formula of its paper gives."""

import numpy as np
import pytest

from tinytransformer.tensor import OPS, Tensor

from .cases import CASES, cases_of
from .oracles import ORACLES


def expected(case):
    """Return the oracle's answer to a case, as an array."""
    nested = {k: v.tolist() if isinstance(v, np.ndarray | np.generic) else v for k, v in case.keywords().items()}
    arrays = [x.tolist() if isinstance(x, np.ndarray) else x for x in case.inputs]
    return np.asarray(ORACLES[case.op](*arrays, **nested))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_are_those_of_the_oracle(case):
    """In float64 to the last digits, in float32 to float32's."""
    wanted = expected(case)
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        output = OPS[case.op](*case.arrays(dtype), **case.keywords()).data
        np.testing.assert_allclose(output, wanted, rtol=tolerance, atol=tolerance)
        assert output.shape == wanted.shape


def test_every_operation_has_an_oracle_and_cases():
    assert set(ORACLES) == set(OPS)
    assert all(cases_of(op) for op in OPS)


def test_strided_cases_are_strided():
    """The non-contiguous inputs are not made contiguous on their way into the operation."""
    strided = [x for case in CASES if case.strided for x in case.arrays(np.float32)]
    assert {case.op for case in CASES if case.strided} == set(OPS)
    assert not any(x.flags.c_contiguous for x in strided if isinstance(x, np.ndarray) and x.size > 1)


def test_relu_is_flat_at_its_kink_and_ties_share_the_gradient_of_max():
    """relu'(0) = 0; elements that tie for the maximum get equal shares."""
    x = Tensor(np.array([-1.0, 0.0, 2.0]), requires_grad=True)
    OPS["relu"](x).backward(np.array([3.0, 5.0, 7.0]))
    np.testing.assert_array_equal(x.grad, [0, 0, 7])
    y = Tensor(np.array([[1.0, 4.0, 4.0], [2.0, 2.0, 2.0]]), requires_grad=True)
    OPS["max"](y, axis=1).backward(np.array([6.0, 3.0]))
    np.testing.assert_array_equal(y.grad, [[0, 3, 3], [1, 1, 1]])


def test_no_ids_take_nothing():
    """A batch without a token is an empty array, and no row of the table gets a gradient."""
    table = Tensor(np.ones((5, 3)), requires_grad=True)
    y = OPS["embedding"](table, ids=np.zeros((2, 0), dtype=int))
    y.backward(np.zeros((2, 0, 3)))
    np.testing.assert_array_equal(table.grad, np.zeros((5, 3)))


def test_means_of_no_rows_have_a_gradient_of_no_rows():
    x = Tensor(np.ones((0, 3)), requires_grad=True)
    OPS["mean"](x, axis=-1).backward(np.ones(0))
    assert x.grad.shape == (0, 3)


EMPTY = [
    ((0, 2, 3), (3, 4)),
    ((2, 3), (0, 3, 4)),
    ((0, 2, 3), (5, 0, 3, 4)),
    ((2, 0, 3), (3, 4)),
    ((5, 2, 3), (3, 0)),
    ((2, 0), (5, 0, 4)),  # sums of nothing
]


@pytest.mark.parametrize(("left", "right"), EMPTY)
def test_matrices_without_elements_have_a_product(left, right):
    """Which nested lists cannot show. There is nothing in the result, or zeros; the gradients are sums of nothing."""
    x, y = (Tensor(np.ones(shape), requires_grad=True) for shape in (left, right))
    z = OPS["matmul"](x, y)
    assert z.shape == (*np.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    assert not z.data.any()
    z.backward(np.ones(z.shape))
    for tensor in (x, y):
        np.testing.assert_array_equal(tensor.grad, np.zeros(tensor.shape))
