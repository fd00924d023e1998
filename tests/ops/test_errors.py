"""Every error that an operation documents: its type, its words, and that it comes before any work."""

import re

import numpy as np
import pytest

from tinytransformer.tensor import OPS, ShapeError


class Idle(np.ndarray):
    """An array that refuses to be computed with."""

    def __array_ufunc__(self, *_args, **_options):
        raise AssertionError("work was done before the error")


def idle(shape, dtype=np.float64):
    return np.ones(shape, dtype=dtype).view(Idle)


def ids(*numbers, dtype=int):
    return np.array(numbers, dtype=dtype)


def mask(*shape, dtype=bool):
    return {"mask": np.ones(shape, dtype=dtype)}


QKV = (2, 2, 3, 5), (2, 2, 4, 5), (2, 2, 4, 6)
ANY = np.random.default_rng(0)

# operation, shapes of the inputs, options, error, words of its message
ERRORS = [
    *[(op, [(2, 3), (2, 4)], {}, ShapeError, ["(2, 3)", "(2, 4)"]) for op in ("add", "subtract", "multiply", "divide")],
    *[(op, [(2, 3)], {"axis": axis}, ShapeError, ["axis 2", "(2, 3)"])
      for op in ("sum", "mean", "max", "logsumexp") for axis in (2, (0, 2))],
    *[(op, [(2, 3)], {"axis": -3}, ShapeError, ["axis -3", "(2, 3)"]) for op in ("sum", "softmax", "log_softmax")],
    *[(op, [()], {"axis": 0}, ShapeError, ["axis 0", "()"]) for op in ("softmax", "log_softmax", "max")],
    ("reshape", [(2, 3)], {"shape": (4, 2)}, ShapeError, ["(2, 3)", "(4, 2)", "6"]),
    ("reshape", [(2, 3)], {"shape": (4, -1)}, ShapeError, ["(2, 3)", "(4, -1)"]),
    ("transpose", [(2, 3)], {"axes": (0, 0)}, ShapeError, ["(0, 0)", "(2, 3)"]),
    ("transpose", [(2, 3)], {"axes": (0, -2)}, ShapeError, ["(0, 0)", "(2, 3)"]),
    ("transpose", [(2, 3)], {"axes": (0,)}, ShapeError, ["(0,)", "(2, 3)"]),
    ("transpose", [(2, 3)], {"axes": (0, 2)}, ShapeError, ["(0, 2)", "(2, 3)"]),
    ("concatenate", [], {}, ShapeError, ["at least one"]),
    ("concatenate", [(2, 3), (3, 3)], {}, ShapeError, ["(2, 3)", "(3, 3)", "axis 1"]),
    ("concatenate", [(2, 3), (2, 4)], {"axis": 0}, ShapeError, ["(2, 3)", "(2, 4)", "axis 0"]),
    ("concatenate", [(3, 2), (3,)], {}, ShapeError, ["(3, 2)", "(3,)"]),
    ("concatenate", [(2, 3)], {"axis": 2}, ShapeError, ["axis 2", "(2, 3)"]),
    ("getitem", [(2, 3)], {"key": ids(0, 1)}, TypeError, ["ndarray", "gather"]),
    ("getitem", [(2, 3)], {"key": (0, [0, 1])}, TypeError, ["list", "gather"]),
    ("getitem", [(2, 3)], {"key": True}, TypeError, ["bool"]),
    ("getitem", [(2, 3)], {"key": 2}, ShapeError, ["2", "(2, 3)"]),
    ("getitem", [(2, 3)], {"key": (0, 0, 0)}, ShapeError, ["(0, 0, 0)", "(2, 3)"]),
    ("gather", [(2, 3)], {"ids": ids(0, 1)}, ShapeError, ["(2,)", "(2, 3)"]),
    ("gather", [(2, 3)], {"ids": ids([0])}, ShapeError, ["(1, 1)", "(2, 3)"]),
    ("gather", [(2, 3)], {"ids": ids([0], [1], dtype=float)}, TypeError, ["float64"]),
    ("gather", [(2, 3)], {"ids": ids([0], [3])}, IndexError, ["3", "[0, 3)"]),
    ("gather", [(2, 3)], {"ids": ids([0], [-1])}, IndexError, ["-1", "[0, 3)"]),
    ("matmul", [(3,), (3, 2)], {}, ShapeError, ["(3,)", "(3, 2)"]),
    ("matmul", [(2, 3), (3,)], {}, ShapeError, ["(2, 3)", "(3,)"]),
    ("matmul", [(2, 3), (4, 2)], {}, ShapeError, ["(2, 3)", "(4, 2)"]),
    ("matmul", [(2, 2, 3), (3, 3, 2)], {}, ShapeError, ["(2,)", "(3,)"]),
    ("matmul", [(0, 2, 3), (4, 3, 2)], {}, ShapeError, ["(0,)", "(4,)"]),
    ("linear", [(2, 3), (4, 2), None], {}, ShapeError, ["(2, 3)", "(4, 2)"]),
    ("linear", [(2, 3), (3,), None], {}, ShapeError, ["(2, 3)", "(3,)"]),
    ("linear", [(2, 3), (3, 4), (3,)], {}, ShapeError, ["bias", "(3,)", "(4,)"]),
    ("layer_norm", [(2, 3), (2,), (3,)], {}, ShapeError, ["gain", "(2,)", "(3,)"]),
    ("layer_norm", [(2, 3), (3,), (1, 3)], {}, ShapeError, ["bias", "(1, 3)", "(3,)"]),
    *[(op, shapes, {"rate": rate, "generator": ANY}, ValueError, [str(rate), "0 <= rate < 1"])
      for op, shapes in (("dropout", [(2, 3)]), ("attention", QKV), ("blockwise_attention", QKV))
      for rate in (-0.1, 1, float("nan"))],
    ("embedding", [(3,)], {"ids": ids(0)}, ShapeError, ["(3,)", "(V, d)"]),
    ("embedding", [(3, 2)], {"ids": ids(0.0, dtype=float)}, TypeError, ["float64"]),
    ("embedding", [(3, 2)], {"ids": ids(0, dtype=bool)}, TypeError, ["bool"]),
    ("embedding", [(3, 2)], {"ids": ids([1, 3])}, IndexError, ["3", "[0, 3)"]),
    ("embedding", [(3, 2)], {"ids": ids([1, -1])}, IndexError, ["-1", "[0, 3)"]),
    *[(op, *call) for op in ("attention", "blockwise_attention") for call in [
        ([(2, 3, 5), *QKV[1:]], {}, ShapeError, ["(2, 3, 5)", "(2, 2, 4, 5)", "(2, 2, 4, 6)"]),
        ([(1, 2, 3, 5), *QKV[1:]], {}, ShapeError, ["(1, 2, 3, 5)", "(B, H, T_query, d)"]),
        ([(2, 2, 3, 6), *QKV[1:]], {}, ShapeError, ["(2, 2, 3, 6)"]),
        ([*QKV[:2], (2, 2, 5, 6)], {}, ShapeError, ["(2, 2, 5, 6)"]),
        ([*QKV[:2], (2, 1, 4, 6)], {}, ShapeError, ["(2, 1, 4, 6)"]),
        (QKV, mask(3, 3), ShapeError, ["(3, 3)", "(2, 2, 3, 4)"]),
        (QKV, mask(1, 2, 2, 3, 4), ShapeError, ["(1, 2, 2, 3, 4)", "(2, 2, 3, 4)"]),
        (QKV, mask(3, 4, dtype=int), TypeError, ["mask", "boolean", "int64"]),
    ]],
    *[("blockwise_attention", QKV, {"block": block}, ValueError, [f"block is {block}"]) for block in (0, -2)],
    ("cross_entropy", [(2, 3)], {"targets": ids(0, 1, 2)}, ShapeError, ["(3,)", "(2, 3)"]),
    ("cross_entropy", [()], {"targets": ids()}, ShapeError, ["()"]),
    ("cross_entropy", [(2, 3)], {"targets": ids(0.0, 1.0, dtype=float)}, TypeError, ["float64"]),
    ("cross_entropy", [(2, 3)], {"targets": ids(0, 3)}, IndexError, ["3", "[0, 3)"]),
    ("cross_entropy", [(2, 3)], {"targets": ids(0, -100), "padding": 0}, IndexError, ["-100", "[0, 3)"]),
    *[("cross_entropy", [(2, 3)], {"targets": ids(0, 1), "label_smoothing": e}, ValueError, [f"label_smoothing is {e}"])
      for e in (1, -0.1)],
]  # fmt: skip


@pytest.mark.parametrize(("name", "shapes", "options", "error", "words"), ERRORS)
def test_errors_name_the_operation_and_come_before_any_work(name, shapes, options, error, words):
    inputs = [None if shape is None else idle(shape) for shape in shapes]
    state = ANY.bit_generator.state
    with pytest.raises(error) as caught:
        OPS[name](*inputs, **options)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert [word for word in words if word not in message] == []
    assert ANY.bit_generator.state == state


@pytest.mark.parametrize("inputs", [(idle((2, 2)), 3.0), (3.0, idle((2, 2)))])
def test_a_number_is_no_matrix(inputs):
    with pytest.raises(ShapeError, match=r"^matmul: shapes \(.*\) and \(.*\) do not fit"):
        OPS["matmul"](*inputs)


TWO_OR_MORE = ["add", "subtract", "multiply", "divide", "matmul", "concatenate"]


@pytest.mark.parametrize("name", TWO_OR_MORE)
@pytest.mark.parametrize("other", [np.float32, np.int64, np.bool_])
def test_inputs_share_one_floating_dtype(name, other):
    with pytest.raises(TypeError, match=rf"^{name}: .*float64.*{np.dtype(other)}"):
        OPS[name](idle((2, 2)), idle((2, 2), dtype=other))


def test_idle_arrays_do_refuse_to_work():
    """Else the tests above would show nothing about the order of check and work."""
    for call in (lambda x: OPS["softmax"](x), lambda x: OPS["matmul"](x, x), lambda x: OPS["sum"](x)):
        with pytest.raises(AssertionError, match="work was done"):
            call(idle((2, 2)))


def documented_errors(name):
    """Return the error types in an operation's docstring, of which it may leave the wording to another's."""
    text = " ".join(OPS[name].__doc__.split())
    other = re.search(r"errors: as `(\w+)`", text)
    if other:
        return documented_errors(other[1])
    raises = re.search(r"Raises: (.*?)(Source:|$)", text)
    return set(re.findall(r"\w+Error", raises[1])) if raises else set()


@pytest.mark.parametrize("name", sorted(OPS))
def test_every_documented_error_is_tried_and_every_error_tried_is_documented(name):
    tried = {error.__name__ for op, _, _, error, _ in ERRORS if op == name}
    assert tried == documented_errors(name)


@pytest.mark.parametrize("bad", [np.int64(-1), np.int64(4), np.array(-1)])
def test_an_id_that_is_a_number_of_numpy_is_looked_at_too(bad):
    """As an element of an array of ids is one; NumPy would take -1 for the last row."""
    with pytest.raises(IndexError, match=rf"^embedding: id {bad} is outside \[0, 4\)"):
        OPS["embedding"](np.ones((4, 3)), ids=bad)
    with pytest.raises(IndexError, match=rf"^cross_entropy: id {bad} is outside \[0, 4\)"):
        OPS["cross_entropy"](np.ones(4), targets=bad)
    assert OPS["embedding"](np.ones((4, 3)), ids=np.int64(3)).shape == (3,)
