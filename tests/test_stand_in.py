"""The stand-in for CuPy refuses what CuPy refuses, and counts where the host would wait; and it catches leaks."""

import math

import numpy as np
import pytest
from stand_in import DeviceArray, StandIn

from tinytransformer.backend import array_module
from tinytransformer.tensor import Operation, Tensor


@pytest.fixture
def here():
    return np.arange(6.0).reshape(2, 3)


@pytest.fixture
def there(gpu, here):
    return gpu.asarray(here)


REFUSED = {
    "a NumPy array on the right": lambda gpu, x, y: x + y,
    "a NumPy array on the left": lambda gpu, x, y: y * x,
    "a NumPy array in place": lambda gpu, x, y: x.__iadd__(y),
    "in place of a NumPy array": lambda gpu, x, y: y.__iadd__(x),
    "a product with a NumPy array": lambda gpu, x, y: x @ y.T,
    "a comparison with a NumPy array": lambda gpu, x, y: x < y,
    "a NumPy array put in": lambda gpu, x, y: x.__setitem__(..., y),
    "an index on the host": lambda gpu, x, y: x[np.array([0])],
    "an index that is a list": lambda gpu, x, y: x[[0, 1]],
    "a list in a ufunc": lambda gpu, x, y: gpu.maximum(x, [1, 2, 3]),
    "a list beside an operator": lambda gpu, x, y: x * [1, 2, 3],
    "its ufunc on a NumPy array": lambda gpu, x, y: gpu.exp(y),
    "its function on a NumPy array": lambda gpu, x, y: gpu.argsort(y),
    "its function on a list": lambda gpu, x, y: gpu.sum([1, 2]),
    "its result in a NumPy array": lambda gpu, x, y: gpu.exp(x, out=y),
    "both in one sequence": lambda gpu, x, y: gpu.concatenate([x, y]),
    "a list as data": lambda gpu, x, y: gpu.searchsorted(x[0], [1, 2]),
    "a list as data of a method": lambda gpu, x, y: x.take([1, 0]),
    "a list to fill with": lambda gpu, x, y: gpu.full((2,), [1, 2]),
    "a tuple as a branch of where": lambda gpu, x, y: gpu.where(x > 0, (1, 2, 3), 0),
    "counts of the device for repeat": lambda gpu, x, y: x.repeat(gpu.asarray([1, 2]), axis=0),
    "counts of the device by name": lambda gpu, x, y: x.repeat(repeats=gpu.asarray([1, 2]), axis=0),
    "branches of where on the host": lambda gpu, x, y: gpu.where(x > 0, x, y),
    "NumPy's ufunc": lambda gpu, x, y: np.exp(x),
    "NumPy's function": lambda gpu, x, y: np.sum(x),
    "NumPy's function of a sequence": lambda gpu, x, y: np.concatenate([x, x]),
    "asarray": lambda gpu, x, y: np.asarray(x),
    "array": lambda gpu, x, y: np.array(x, dtype=np.float32),
    "a list of them as an array": lambda gpu, x, y: np.array([x, x]),
    "as a whole number of Python": lambda gpu, x, y: range(x[0, 0].astype(gpu.int64)),
    "as a key": lambda gpu, x, y: {x: 1},
}


@pytest.mark.parametrize("leak", REFUSED.values(), ids=REFUSED)
def test_nothing_mixes(gpu, there, here, leak):
    with pytest.raises(TypeError):
        leak(gpu, there, here)


def test_no_way_out_but_by_its_name(there):
    """NumPy looks for these before it gives up; with one of them `asarray` would succeed without a word."""
    names = ("__array_interface__", "__array_struct__", "__buffer__", "__dlpack__", "__index__", "vecdot")
    assert not [name for name in names if hasattr(there, name)]


def test_what_cupy_lacks_it_lacks(gpu, there):
    for name in ("vecdot", "matvec", "errstate", "ndenumerate", "nditer", "spacing", "unstack"):
        assert not hasattr(gpu, name)
    for name in ("maximum", "subtract"):
        with pytest.raises(NotImplementedError, match=f"cupy_{name}.reduce` is not supported"):
            getattr(gpu, name).reduce(there)
    assert not hasattr(gpu.add, "at")
    for ufunc in (gpu.maximum, gpu.multiply):
        with pytest.raises(NotImplementedError, match="reduceat"):
            ufunc.reduceat(there, gpu.asarray([0]))
    with pytest.raises(ValueError, match="stable"):
        gpu.argsort(there, kind="quicksort")
    with pytest.raises(TypeError):
        gpu.exp(there, where=there > 0)


def test_where_cupy_is_installed_it_has_all_that_the_stand_in_has():
    """It can be imported without a GPU."""
    cupy = pytest.importorskip("cupy")
    functions = {name for name in vars(StandIn()) | vars(StandIn) if not name.startswith("_")} - {
        "call",
        "waits",
        "tf32",
    }
    methods = {name for name in vars(DeviceArray) if not name.startswith("_")}
    assert not [name for name in functions if not hasattr(cupy, name)]
    assert not [name for name in methods if not hasattr(cupy.ndarray, name)]


WAITS = {
    "float": float,
    "int": int,
    "bool": bool,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "get": lambda x: x.get(),
    "math": math.isfinite,
    "repr": repr,
    "a condition": lambda x: 1 if x > 0 else 0,
    "a mask as index": lambda x: x.reshape(1)[x.reshape(1) > 0],
    "a mask that is written through": lambda x: x.reshape(1).__setitem__(x.reshape(1) > 0, 1),
    "how many to count": lambda x: x._gpu.arange(x),
    "where to count to": lambda x: x._gpu.arange(0, x),
}


@pytest.mark.parametrize("look", WAITS.values(), ids=WAITS)
def test_a_look_at_a_value_is_counted(gpu, look):
    x = gpu.asarray(np.array(3.0))
    assert gpu.waits == 0
    look(x)
    assert gpu.waits == 1


@pytest.mark.parametrize("name", ["nonzero", "flatnonzero", "argwhere", "unique", "where"])
def test_what_depends_on_values_in_its_size_is_counted(gpu, there, name):
    getattr(gpu, name)(there)
    assert gpu.waits == 1


def test_computing_waits_for_nothing(gpu, here, there):
    """Reductions stay on the device, as arrays without axes; views share memory; the values are NumPy's."""
    total = gpu.sqrt((there * 2 + 1).sum())
    assert isinstance(total, DeviceArray)
    assert total.shape == ()
    there.T[0] = 7
    there[gpu.asarray([1, 0])] = there[gpu.asarray([0, 1])]
    there += 1
    assert gpu.waits == 0
    here[:, 0] = 7
    np.testing.assert_array_equal(gpu.asnumpy(there), here[::-1] + 1)
    assert float(total) == np.sqrt(36)


def test_an_index_out_of_range_wraps_in_silence(gpu, there):
    np.testing.assert_array_equal(gpu.asnumpy(there[gpu.asarray([2, -1, 3])]), gpu.asnumpy(there)[[0, 1, 1]])
    taken = gpu.take_along_axis(there, gpu.asarray([[3], [5]]), axis=1)
    np.testing.assert_array_equal(gpu.asnumpy(taken), [[0], [5]])


PLACES = {
    "first": (lambda i: i, np.s_[[2, 0]]),
    "second": (lambda i: (slice(None), i), np.s_[:, [2, 0]]),
    "last of all": (lambda i: (..., i + 2), np.s_[..., [4, 2]]),
    "behind all and before one": (lambda i: (..., i, 0), np.s_[..., [2, 0], 0]),
    "behind a new axis": (lambda i: (None, slice(None), i), np.s_[None, :, [2, 0]]),
    "behind all and a new axis": (lambda i: (..., None, i + 2), np.s_[..., None, [4, 2]]),
}


@pytest.mark.parametrize(("place", "plain"), PLACES.values(), ids=PLACES)
def test_an_index_wraps_by_the_axis_on_which_it_stands(gpu, place, plain):
    """Read and written, one array of the host and one of the device stay alike."""
    here = np.arange(60.0).reshape(3, 4, 5)
    there, key = gpu.asarray(here), place(gpu.asarray([2, 0]))
    np.testing.assert_array_equal(gpu.asnumpy(there[key]), here[plain])
    there[key], here[plain] = 7.0, 7.0
    np.testing.assert_array_equal(gpu.asnumpy(there), here)


def test_rows_of_numbers_are_shapes_and_axes(gpu, there):
    assert gpu.zeros((2, 3)).shape == gpu.full([2, 3], 1.0).shape == there.T.reshape((2, 3)).shape == (2, 3)
    assert there.transpose((1, 0)).shape == (3, 2)
    assert there.sum(axis=(0, 1)).shape == there.sum((0, 1)).shape == ()
    assert gpu.broadcast_to(there, (4, 2, 3)).shape == (4, 2, 3)
    assert there.repeat(2, axis=0).shape == (4, 3)


@pytest.mark.parametrize(("kind", "settled"), [("float64", None), ("float32", "0")])
def test_the_first_product_in_float32_settles_on_tf32_or_not(gpu, monkeypatch, kind, settled):
    """As CuPy does: whatever the environment says later."""
    monkeypatch.setenv("CUPY_TF32", "0")
    x = gpu.ones((2, 2), dtype=kind)
    x @ x
    monkeypatch.setenv("CUPY_TF32", "1")
    x @ x
    assert gpu.tf32 == settled


def test_a_repeated_index_may_only_put_one_value(gpu, there):
    rows = gpu.asarray([1, 1])
    there[rows] = 4.0
    with pytest.raises(TypeError, match="repeated"):
        there[rows] = gpu.asarray(np.array([[1.0], [2.0]]))


def exponential(call):
    """Return y = e^x as an operation that computes with `call`."""

    def plain(x):
        y = call(x)
        return y, lambda dy: (dy * y,)

    return Operation(plain)


def test_leak_one_a_function_of_numpy_inside_an_operation(there):
    """It runs on the CPU, and so would pass every other test."""
    leaking, right = exponential(lambda x: np.exp(x)), exponential(lambda x: array_module(x).exp(x))
    assert leaking(Tensor(np.ones(3))).shape == (3,)
    assert right(Tensor(there)).shape == (2, 3)
    with pytest.raises(TypeError, match="ufunc"):
        leaking(Tensor(there))


def test_leak_two_a_list_in_a_ufunc(there):
    leaking = exponential(lambda x: array_module(x).power([math.e] * x.shape[-1], x))
    np.testing.assert_allclose(leaking(Tensor(np.ones(3))).data, np.e)
    with pytest.raises(TypeError, match="list"):
        leaking(Tensor(there))
