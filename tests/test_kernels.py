"""The kernels, run by the stand-in: at sizes that the table of cases leaves out, and broken on purpose."""

import shutil
import subprocess
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from device_training import results
from kernel_stand_in import philox_bytes

from tinytransformer import layers, ops
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.kernels import Dropping, add_pairs, drop, launch
from tinytransformer.kernels.launch import SOURCES, source
from tinytransformer.kernels.products import in_tf32, product, products
from tinytransformer.optim import Adam
from tinytransformer.tensor import Tensor

FOLDER = Path(launch.__file__).parent
KINDS = [np.float64, np.float32]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def close(there, here, kind):
    tolerance = 1e-12 if kind == np.float64 else 1e-5
    np.testing.assert_allclose(there, here, rtol=0, atol=tolerance * max(1.0, np.abs(here).max(initial=0)))


def same_as_on_a_cpu(gpu, kind, operation, *inputs, **options):
    """Run an operation on both, forward and backward; arrays among the options go where the inputs are."""
    found = []
    for place, back in ((lambda x: x, lambda x: x), (gpu.asarray, gpu.asnumpy)):
        tensors = [None if x is None else Tensor(place(x.astype(kind)), requires_grad=True) for x in inputs]
        moved = {name: place(x) if isinstance(x, np.ndarray) else x for name, x in options.items()}
        y = operation(*tensors, **moved)
        y.backward(place(normal(*y.shape).astype(kind)))
        found.append([back(y.data), *(back(x.grad) for x in tensors if x is not None)])
    for here, there in zip(*found, strict=True):
        assert there.dtype == kind
        close(there, here, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 8), (1, 1), (2, 3, 31), (33, 32), (70, 200), (2, 5000)], ids=str)
def test_layer_norm_of_any_width(gpu, kind, shape):
    d = shape[-1]
    eps = 1e-2  # or one feature alone would be a difference of nothing, divided by nearly nothing
    same_as_on_a_cpu(gpu, kind, ops.layer_norm, normal(*shape), normal(d, seed=1), normal(d, seed=2), eps=eps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 1, 1), (2, 35, 33, 40), (1, 70, 5)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_of_any_shape(gpu, kind, shape, bias):
    *rows, n, m = shape
    same_as_on_a_cpu(gpu, kind, ops.linear, normal(*rows, n), normal(n, m, seed=1), normal(m, seed=2) if bias else None)


def test_linear_takes_a_gradient_that_was_stretched(gpu):
    """As that of a sum: it stands in memory once, and has no rows side by side."""
    x, weight = normal(3, 4, 5), normal(5, 6, seed=1)
    same_as_on_a_cpu(gpu, np.float64, lambda x, w: ops.sum(ops.linear(x, w, None), axis=(1, 2)), x, weight)
    same_as_on_a_cpu(gpu, np.float64, lambda x, w: ops.linear(ops.transpose(x, axes=(2, 1, 0)), w, None), x, weight[:3])


MASKS = {
    "none": None,
    "of keys": np.arange(150) % 3 > 0,
    "of keys, by sentence": np.arange(300).reshape(2, 1, 1, 150) % 3 > 0,
    "whole": np.random.default_rng(5).random((2, 3, 4, 150)) > 0.5,
    "a view": (np.random.default_rng(5).random((150, 4, 3, 2)) > 0.5).T.swapaxes(1, 2).swapaxes(1, 2),
    "of everything": np.zeros((2, 1, 4, 1), bool),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_under_any_mask(gpu, kind, mask, causal):
    query, key, value = normal(2, 3, 4, 5), normal(2, 3, 150, 5, seed=1), normal(2, 3, 150, 7, seed=2)
    same_as_on_a_cpu(gpu, kind, ops.attention, query, key, value, mask=mask, causal=causal)


@pytest.mark.parametrize("sizes", [(0, 2, 3, 4), (2, 2, 0, 4), (1, 1, 1, 1), (2, 3, 1, 5), (2, 3, 5, 1)], ids=str)
def test_attention_of_any_shape(gpu, sizes):
    batch, heads, queries, keys = sizes
    arrays = normal(batch, heads, queries, 6), normal(batch, heads, keys, 6, seed=1), normal(batch, heads, keys, 1)
    same_as_on_a_cpu(gpu, np.float64, ops.attention, *arrays)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"padding": 2}, {"label_smoothing": 0.1}, {"padding": 2, "count": 9}], ids=str)
@pytest.mark.parametrize("size", [3, 130, 5000])
def test_cross_entropy_of_any_vocabulary(gpu, kind, options, size):
    targets = np.random.default_rng(1).integers(0, 3, (2, 4))
    same_as_on_a_cpu(gpu, kind, ops.cross_entropy, normal(2, 4, size), targets=targets, **options)


@pytest.mark.parametrize("scale", [-1e4, 1e4])
def test_large_scores_and_logits_overflow_nowhere(gpu, scale):
    """The largest is taken off first; all are whole numbers, which float32 can tell apart."""
    arrays = [np.arange(12.0).reshape(1, 1, 3, 4) % 5, np.arange(20.0).reshape(1, 1, 5, 4) % 7, normal(1, 1, 5, 2)]
    same_as_on_a_cpu(gpu, np.float32, ops.attention, scale * arrays[0], *arrays[1:])
    logits, targets = scale + np.arange(35.0).reshape(7, 5) % 4, np.arange(7) % 5
    same_as_on_a_cpu(gpu, np.float32, ops.cross_entropy, logits, targets=targets, label_smoothing=0.1)
    logits[0, 1] = -np.inf  # a token that cannot come; without smoothing nothing is asked of it
    same_as_on_a_cpu(gpu, np.float32, ops.cross_entropy, logits, targets=targets)


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
@pytest.mark.parametrize(("rows", "width"), [(0, 3), (5, 1), (100, 33), (40, 5000)])
def test_an_embedding_of_any_width(gpu, kind, rows, width):
    ids = np.random.default_rng(1).integers(0, 6, rows).astype(kind)
    same_as_on_a_cpu(gpu, np.float64, ops.embedding, normal(7, width), ids=ids)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (8,), (3, 5, 700)], ids=str)
@pytest.mark.parametrize("key", [0, 5, 2**64 - 1])
def test_dropout_draws_the_bytes_of_philox(gpu, shape, key):
    class Generator:
        class bit_generator:  # noqa: N801
            random_raw = staticmethod(lambda: key)

    x = normal(*shape)
    x.reshape(-1)[1::7], x.reshape(-1)[3::7] = np.nan, -np.inf  # 0 * NaN and 0 * infinity are NaN
    dropped = gpu.asnumpy(drop(gpu.asarray(x), Dropping.drawn(26, 1.5, Generator)))
    with np.errstate(invalid="ignore"):
        expected = np.where(philox_bytes(x, Generator) < 26, 0.0 * x, x * 1.5)
    np.testing.assert_array_equal(dropped, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_what_lies_in_memory_in_any_order(gpu, kind):
    """Also where nothing lies side by side, as in every second column, or what was stretched."""
    there = {
        "in order": lambda x: gpu.asarray(x),
        "transposed": lambda x: gpu.asarray(np.ascontiguousarray(x.swapaxes(-1, -2))).swapaxes(-1, -2),
        "spread out": lambda x: gpu.asarray(np.repeat(np.repeat(x, 2, -1), 2, -2))[..., ::2, ::2],
    }
    x, y = normal(2, 3, 4, 5).astype(kind), normal(2, 3, 5, 6, seed=1).astype(kind)
    for one, other in [(a, b) for a in there.values() for b in there.values()]:
        close(gpu.asnumpy(product(one(x[0, 0]), other(y[0, 0]))), x[0, 0] @ y[0, 0], kind)
        z = gpu.empty((2, 4, 3, 6), dtype=kind).swapaxes(1, 2)
        assert products(one(x), other(y), z) is z
        close(gpu.asnumpy(z), x @ y, kind)
    stretched = gpu.broadcast_to(gpu.asarray(x[0, 0, :, :1]), (4, 5))
    close(gpu.asnumpy(product(stretched, there["in order"](y[0, 0]))), np.repeat(x[0, 0, :, :1], 5, 1) @ y[0, 0], kind)


def test_pairs_are_added_up_wherever_they_lie(gpu):
    x = [normal(size, 3, seed=size) for size in (1, 500, 3, 0)]
    there = [gpu.asarray(each) for each in x]
    others = [gpu.asarray(2 * x[0]), gpu.asarray(2 * x[1]), gpu.asarray(2 * x[2].T).T, gpu.asarray(x[3])]
    add_pairs(list(zip(there, others, strict=True)))
    for before, after in zip(x, there, strict=True):
        np.testing.assert_array_equal(gpu.asnumpy(after), 3 * before)


def test_attention_goes_block_by_block_where_it_would_take_much_memory(gpu, monkeypatch):
    """That of all sentences and heads counts: time it does not save, as it does on a CPU."""
    query, key = (Tensor(gpu.zeros((2, 3, time, 1))) for time in (5, 7))
    monkeypatch.setattr(layers, "LONG", 1)
    for many, is_long in ((2 * 3 * 5 * 7, True), (2 * 3 * 5 * 7 + 1, False)):
        monkeypatch.setattr(layers, "MANY_ON_A_GPU", many)
        assert layers.is_long(query, key) is is_long


def test_what_a_kernel_would_misread_it_is_never_given(gpu):
    """Numbers of another kind, arrays of no dimension, other precisions."""
    x, gain, bias = normal(3, 8), normal(8, seed=1), normal(8, seed=2)
    same_as_on_a_cpu(gpu, np.float64, ops.layer_norm, x, gain, bias, eps=1)
    same_as_on_a_cpu(
        gpu, np.float64, ops.cross_entropy, x, targets=np.arange(3), padding=np.int32(1), label_smoothing=0
    )
    assert gpu.asnumpy(drop(gpu.asarray(np.array(3.0)), Dropping(np.uint64(1), 1, 2.0))).shape == ()
    half = gpu.asarray(x.astype(np.float16))
    for call in (lambda: product(half, half.T), lambda: drop(half, Dropping(np.uint64(1), 1, 2.0))):
        with pytest.raises(TypeError, match="on a GPU there is float32 and float64, got float16"):
            call()
    one, other = gpu.asarray(x), gpu.asarray(x.astype(np.float32))
    add_pairs([(one, one + 0), (other, gpu.asarray(x))])  # of two precisions
    close(gpu.asnumpy(one), 2 * x, np.float64)
    close(gpu.asnumpy(other), 2 * x, np.float32)


@pytest.mark.parametrize("sound", [True, False])
def test_adam_moves_a_slice(gpu, make_model, sound):
    """In three slices, the first of which ends among what decays; or not at all, but the gradient is gone."""
    models = [make_model(12, dtype=np.float32, device=device) for device in ("cpu", "cuda")]
    size, decayed = models[0].parameters.data.size, models[0].parameters.decayed
    gradient, adams = normal(size).astype(np.float32), [Adam(model.parameters, weight_decay=0.1) for model in models]
    before = models[0].parameters.data.copy()
    for adam, place in zip(adams, (lambda x: x, gpu.asarray), strict=True):
        numbers = adam.begin_step(1e-2, 0.5, place(np.array(sound)))
        adam.parameters.grad[...] = place(gradient)
        for start, stop in pairwise((0, decayed - 5, decayed + 7, size)):
            adam.move(start, stop, numbers)
    there = adams[1]
    assert not gpu.asnumpy(there.parameters.grad).any()
    here = [models[0].parameters.data, adams[0].m, adams[0].v] if sound else [before, 0 * before, 0 * before]
    for x, y in zip((there.parameters.data, there.m, there.v), here, strict=True):
        np.testing.assert_allclose(gpu.asnumpy(x), y, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("precision", "modes"), [("float32", []), ("tf32", [3, 0])])
def test_cublas_is_told_of_tf32_and_told_otherwise_after(gpu, monkeypatch, precision, modes, fails):
    """CUBLAS_TF32_TENSOR_OP_MATH is 3, CUBLAS_DEFAULT_MATH 0; CuPy's own products count on the second."""
    told, multiply = [], gpu.cuda.cublas.sgemm
    monkeypatch.setenv("CUPY_TF32", str(int(precision == "tf32")))
    monkeypatch.setattr(gpu.cuda.cublas, "setMathMode", lambda handle, mode: told.append(mode))
    monkeypatch.setattr(
        gpu.cuda.cublas, "sgemm", lambda *numbers: told.append("product") or multiply(*numbers) or 1 / (not fails)
    )
    x = gpu.asarray(np.ones((2, 2), np.float32))
    in_tf32.cache_clear()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        product(x, x)
    in_tf32.cache_clear()
    assert told == [*modes[:1], "product", *modes[1:]]


# --- Broken on purpose

BREAKAGES = {  # the operation whose checks must fail, what stands in the source, and what is put in its place
    "a warp leaves out some of its sums": ("layer_norm", "apart /= 2) x +=", "apart /= 4) x +="),
    "the mean is not taken out": ("layer_norm", "gain[i] - mean_dxhat - xhat", "gain[i] - xhat"),
    "a row is left out of dgain": (
        "layer_norm",
        "= threadIdx.y; row < rows; row += 32) {",
        "= threadIdx.y + 1; row < rows; row += 32) {",
    ),
    "the bias is not added": ("linear", "y[i] += bias[i % d]", "y[i] += 0 * bias[i % d]"),
    "causal sees a key too far": ("attention", "query + 1 + keys", "query + 2 + keys"),
    "the mask of another sentence": ("attention", "sentence * mask_b", "0 * mask_b"),
    "scores are scaled twice": ("attention", "k] * (real)scale;", "k] * (real)(scale * scale);"),
    "q is not spread out": ("cross_entropy", "(real)smoothing / size + (v", "(v"),
    "padding counts": ("cross_entropy", "target == padding ? 0 : *slope", "*slope"),
    "an id is counted once": ("embedding", "found; found &= found - 1", "found; found = 0"),
    "another mask on the way back": ("attention", "philox(key, (whole)", "philox(key + (x == y), (whole)"),
}


@pytest.mark.parametrize(("name", "before", "after"), BREAKAGES.values(), ids=BREAKAGES)
def test_a_broken_kernel_fails_its_checks(gpu, monkeypatch, name, before, after):
    text = source()
    assert text.count(before) == 1
    monkeypatch.setattr(launch, "source", lambda: text.replace(before, after))
    monkeypatch.setattr(launch, "_kernels", {})
    launch._module.cache_clear()
    compared = [
        np.allclose(there, here, rtol=1e-13, atol=1e-14)
        for case in CASES[name]
        for here, there in zip(*(results(name, case, device) for device in ("cpu", "cuda")), strict=True)
    ]
    launch._module.cache_clear()
    assert not all(compared)


# --- Sources


def test_every_source_is_compiled():
    assert sorted(path.stem for path in FOLDER.glob("*.cu")) == sorted(SOURCES)


@pytest.mark.parametrize(("real", "card"), [("float", "sm_90"), ("double", "sm_80")])
def test_the_compiler_for_a_gpu_takes_them(tmp_path, real, card):
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc")
    (tmp_path / "all.cu").write_text(source())
    command = ["nvcc", f"-DREAL={real}", f"-arch={card}", "-Werror", "all-warnings", "-cubin", "all.cu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
