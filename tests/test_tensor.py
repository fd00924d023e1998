"""The Tensor: its operators, its gradients, and what it refuses."""

import numpy as np
import pytest

import tinytransformer.ops  # noqa: F401  (fills OPS)
from tinytransformer.module import Parameter
from tinytransformer.tape import GraphError
from tinytransformer.tensor import OPS, ShapeError, Tensor

A = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.5]])
B = np.array([[2.0, 5.0, -1.0], [1.5, -3.0, 2.5]])


def leaf(array):
    return Tensor(np.array(array), requires_grad=True)


BINARY = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y,
}


@pytest.mark.parametrize("operate", BINARY.values(), ids=BINARY)
@pytest.mark.parametrize("other", [B, B[0], 2, -0.5, np.float64(3)], ids=lambda x: type(x).__name__)
def test_operators_take_tensors_arrays_and_numbers_on_either_side(operate, other):
    """The result is always a Tensor with NumPy's value; an array on the left does not swallow the Tensor."""
    constant = Tensor(np.asarray(other, dtype=np.float64))
    for x, y in ((leaf(A), other), (other, leaf(A)), (leaf(A), constant), (constant, leaf(A))):
        result = operate(x, y)
        assert isinstance(result, Tensor)
        assert result.requires_grad
        plain = operate(*(z.data if isinstance(z, Tensor) else z for z in (x, y)))
        np.testing.assert_array_equal(result.data, plain)


def test_the_other_operators():
    """Matrix product on either side, negation, power and indexing."""
    x = leaf(A)
    np.testing.assert_array_equal((x @ B.T).data, A @ B.T)
    np.testing.assert_array_equal((B.T @ x).data, B.T @ A)
    np.testing.assert_array_equal((-x).data, -A)
    np.testing.assert_array_equal((x**3).data, A**3)
    np.testing.assert_array_equal(x[1, ::2].data, A[1, ::2])
    assert all(isinstance(y, Tensor) and y.requires_grad for y in (x @ B.T, B.T @ x, -x, x**3, x[0]))


@pytest.mark.parametrize(
    ("operate", "dx", "dy"),
    [
        (BINARY["+"], 1 + 0 * A, 1 + 0 * A),
        (BINARY["-"], 1 + 0 * A, -1 + 0 * A),
        (BINARY["*"], B, A),
        (BINARY["/"], 1 / B, -A / B**2),
    ],
    ids=BINARY,
)
def test_reflected_operators_have_the_gradients_of_the_written_order(operate, dx, dy):
    upstream = A + 2 * B
    x, y = leaf(A), leaf(B)
    operate(x, B).backward(upstream)
    operate(A, y).backward(upstream)
    np.testing.assert_allclose(x.grad, upstream * dx, rtol=1e-14)
    np.testing.assert_allclose(y.grad, upstream * dy, rtol=1e-14)


@pytest.mark.parametrize(("left", "right"), [((3, 1), (2, 1, 4)), ((), (2, 3)), ((1, 1), (5,)), ((4,), (4,))])
def test_what_was_broadcast_receives_the_sum_over_its_uses(left, right):
    random = np.random.default_rng(0)
    x, y = leaf(random.normal(size=left)), leaf(random.normal(size=right))
    z = x * y
    dz = random.normal(size=z.shape)
    z.backward(dz)
    for tensor, other in ((x, y), (y, x)):
        wanted = np.zeros(tensor.shape)
        for index in np.ndindex(*z.shape):
            last = index[len(index) - len(tensor.shape) :]
            own = tuple(0 if size == 1 else i for i, size in zip(last, tensor.shape, strict=True))
            wanted[own] += dz[index] * np.broadcast_to(other.data, z.shape)[index]
        np.testing.assert_allclose(tensor.grad, wanted, rtol=1e-12)


def test_an_input_used_many_times_receives_the_sum():
    """Twice by one operation, by several operations, and by a chain: d/dx of x*x + 3x - x^2 * x."""
    x = leaf(A)
    square = x * x
    (square + 3 * x - square * x).backward(B)
    np.testing.assert_allclose(x.grad, B * (2 * A + 3 - 3 * A**2), rtol=1e-14)


def test_gradients_add_up_over_backward_passes():
    x = leaf(A)
    (2 * x).backward(B)
    (x * x).backward(B)
    x.backward(B)
    np.testing.assert_allclose(x.grad, B * (2 + 2 * A + 1), rtol=1e-14)


def test_only_leaves_that_ask_for_a_gradient_keep_one():
    x, constant = leaf(A), Tensor(B)
    middle = x * constant
    loss = OPS["sum"](middle)
    loss.backward()
    np.testing.assert_array_equal(x.grad, B)
    assert middle.grad is None
    assert loss.grad is None
    assert constant.grad is None
    assert not (constant + 1).requires_grad


def test_no_gradient_flows_through_detach():
    x = leaf(A)
    (x * (x * 2).detach()).backward(B)
    np.testing.assert_array_equal(x.grad, B * 2 * A)
    assert x.detach().data is x.data


def test_a_gradient_buffer_is_added_to_in_place():
    """A grad that is a view of a flat buffer stays that view; without one, a gradient is never somebody's array."""
    flat = np.ones(10)
    x, y = leaf(A), leaf(A)
    x.grad = flat[2:8].reshape(2, 3)
    buffer, upstream = x.grad, B.copy()
    (x + y).backward(upstream)
    assert x.grad is buffer
    np.testing.assert_array_equal(flat, [1, 1, *(1 + B.ravel()), 1, 1])
    assert not np.shares_memory(y.grad, upstream)
    y.grad += 1
    np.testing.assert_array_equal(upstream, B)


def test_a_scalar_is_its_own_loss():
    """dL/dL is 1, of any shape that holds one element."""
    for shape in ((), (1,), (1, 1)):
        x = leaf(np.full(shape, 3.0))
        (x * x).backward()
        np.testing.assert_array_equal(x.grad, np.full(shape, 6.0))


def refuse_backward_again(x):
    loss = OPS["sum"](x * x)
    loss.backward()
    loss.backward()


def refuse_backward_of_a_part(x):
    shared = x * x
    OPS["sum"](shared * 2).backward()
    OPS["sum"](x + shared * 3).backward()


BACKWARD_ERRORS = [
    (lambda x: Tensor(A).backward(B), GraphError, "requires no gradient"),
    (lambda x: (Tensor(A) * 2).backward(B), GraphError, "requires no gradient"),
    (lambda x: (x * 2).backward(), GraphError, r"\(2, 3\) is not a scalar"),
    (lambda x: (x * 2).backward(B[0]), ShapeError, r"\(3,\), expected \(2, 3\)"),
    (lambda x: (x * 2).backward(B.astype(np.float32)), TypeError, "float32, expected float64"),
    (refuse_backward_again, GraphError, "'sum' was freed"),
    (refuse_backward_of_a_part, GraphError, "'multiply' was freed"),
]


@pytest.mark.parametrize(("attempt", "error", "words"), BACKWARD_ERRORS)
def test_backward_says_why_it_cannot_run(attempt, error, words):
    with pytest.raises(error, match=rf"^backward: .*{words}"):
        attempt(leaf(A))


def test_a_refused_backward_leaves_the_gradients_alone():
    """The graph is looked through before anything is added to a leaf."""
    x = leaf(A)
    with pytest.raises(GraphError):
        refuse_backward_of_a_part(x)
    np.testing.assert_array_equal(x.grad, 4 * A)


@pytest.mark.parametrize("data", [[1, 2], np.array([True]), 3])
def test_only_floating_tensors_have_gradients(data):
    with pytest.raises(TypeError, match=r"only floating Tensors have gradients, and this one is (int64|bool)"):
        Tensor(data, requires_grad=True)
    assert not Tensor(data).requires_grad


@pytest.mark.parametrize("other", [np.ones(3), np.float64(2), np.ones((), int), np.int64(2), np.array([True] * 3)])
def test_dtypes_do_not_mix(other):
    """A NumPy scalar is no Python number: it has a dtype, and would widen the result."""
    x = leaf(np.ones(3, dtype=np.float32))
    for x_, y_ in ((x, other), (other, x), (x, Tensor(other))):
        with pytest.raises(TypeError, match=r"^multiply: inputs must share one floating dtype, got .*float32"):
            x_ * y_


@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5)])
def test_numbers_of_python_take_the_dtype_beside_them(number):
    x = leaf(np.ones(3, dtype=np.float32))
    y = number / (number + x * number) ** 2 - number
    y.backward(np.ones(3, dtype=np.float32))
    assert y.dtype == x.grad.dtype == np.float32


def test_a_tensor_by_name_is_refused():
    """It would be taken for an array, and get no gradient."""
    x, gain, bias = Tensor(np.ones((2, 3))), leaf([1.0, 2.0, 3.0]), leaf([0.0, 0.0, 0.0])
    with pytest.raises(TypeError, match=r"^layer_norm: a Tensor is passed by position, and never by name"):
        OPS["layer_norm"](x, gain, bias=bias)
    with pytest.raises(TypeError, match=r"^matmul: a Tensor is passed by position, and never by name"):
        OPS["matmul"](x, y=Parameter(np.ones((3, 2))))
    assert OPS["layer_norm"](x, gain, bias, eps=0.1).requires_grad


def test_a_tensor_shows_what_it_is():
    x = Tensor([1.0, 2.0], requires_grad=True)
    assert repr(x) == "Tensor(array([1., 2.]), requires_grad=True)"
    assert repr(x.detach()) == "Tensor(array([1., 2.]))"
    assert x.shape == (2,)
    assert x.dtype == np.float64


def test_a_result_has_the_dtype_of_its_inputs():
    """An option that is a NumPy number would widen it, and with it everything after. Numbers alone have no dtype."""
    x, gain = leaf(A.astype(np.float32)), np.ones(3, dtype=np.float32)
    for wide, narrow in ((x, np.float64(1e-5)), (leaf(A.astype(np.float16)), np.float32(1e-5))):
        own = gain.astype(wide.dtype)
        with pytest.raises(TypeError, match=f"^layer_norm: made {narrow.dtype} of {wide.dtype}; are all options"):
            OPS["layer_norm"](wide, own, own, eps=narrow)
        assert OPS["layer_norm"](wide, own, own, eps=float(narrow)).dtype == wide.dtype
    assert OPS["add"](1, 2).data == 3
