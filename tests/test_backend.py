"""NumPy or CuPy: which one, and what is said when it cannot be."""

import ast
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinytransformer
from tinytransformer import backend

PACKAGE = Path(tinytransformer.__file__).parent


class DeviceArray:
    """Stands for an array on a GPU; NumPy may not convert it."""

    def __init__(self, host):
        self.host = host
        self.shape = host.shape
        self.size = host.size

    def __array__(self, *_args, **_options):
        raise TypeError("implicit conversion to a NumPy array")


class DriverError(Exception):
    """Stands for CUDARuntimeError."""


def fake_cupy(available):
    """Return a module like CuPy, whose is_available() answers or raises `available`."""

    def is_available():
        if isinstance(available, Exception):
            raise available
        return available

    module = SimpleNamespace(
        cuda=SimpleNamespace(is_available=is_available, runtime=SimpleNamespace(CUDARuntimeError=DriverError)),
        asarray=lambda x: x if isinstance(x, DeviceArray) else DeviceArray(x),
        asnumpy=lambda x: x.host if isinstance(x, DeviceArray) else x,
    )
    module.get_array_module = lambda x: module if isinstance(x, DeviceArray) else np
    return module


@pytest.fixture(params=[None, True], ids=["without CuPy", "with CuPy"])
def _either(request, monkeypatch):
    monkeypatch.setattr(backend, "cupy", request.param and fake_cupy(True))


@pytest.fixture
def cupy(monkeypatch):
    module = fake_cupy(True)
    monkeypatch.setattr(backend, "cupy", module)
    return module


@pytest.mark.usefixtures("_either")
def test_arrays_of_the_host_belong_to_numpy():
    x = np.ones(3)
    assert backend.array_module(x) is np
    assert backend.array_module(np.float32(1)) is np
    assert backend.to_host(x) is x
    assert backend.to_device(x, "cpu") is x
    backend.require_device("cpu")


def test_arrays_of_the_device_belong_to_cupy(cupy):
    """They come and go through CuPy's own functions alone."""
    x = np.ones(3)
    y = backend.to_device(x, "cuda")
    assert isinstance(y, DeviceArray)
    assert backend.array_module(y) is cupy
    assert backend.to_device(y, "cuda") is y
    assert backend.to_host(y) is x
    assert backend.to_device(y, "cpu") is x


@pytest.mark.parametrize(
    ("cupy", "device", "words"),
    [
        (None, "tpu", "'tpu' is unknown; expected one of: cpu, cuda"),
        (fake_cupy(True), "cuda:0", "'cuda:0' is unknown"),
        (None, "cuda", r"needs CuPy, which is not installed; run: pip install -e '\.\[cuda13\]'"),
        (fake_cupy(False), "cuda", "needs an NVIDIA GPU with a driver, and CuPy finds none"),
        (fake_cupy(DriverError("driver too old")), "cuda", "cannot be used: driver too old"),
    ],
)
def test_a_device_that_cannot_be_used_says_why(monkeypatch, cupy, device, words):
    monkeypatch.setattr(backend, "cupy", cupy)
    for ask in (backend.require_device, lambda name: backend.to_device(np.ones(1), name)):
        with pytest.raises(backend.DeviceError, match=words):
            ask(device)


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 5), (0, 2)])
def test_random_bytes_are_one_for_every_element(shape):
    x = np.empty(shape, dtype=np.float32)
    first, again, other = (backend.random_bytes(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert x.size < 4 or (first != other).any()


def test_random_bytes_take_every_value():
    """From 0 to 255, all about equally often: within six standard deviations of a 256th."""
    counts = np.bincount(backend.random_bytes(np.empty(256_000), np.random.default_rng(0)), minlength=256)
    assert len(counts) == 256
    assert np.abs(counts - 1000).max() < 6 * np.sqrt(1000)


@pytest.mark.usefixtures("cupy")
def test_random_bytes_are_the_same_on_every_device():
    x = np.ones((2, 3))
    there, here = (backend.random_bytes(array, np.random.default_rng(1)) for array in (DeviceArray(x), x))
    assert isinstance(there, DeviceArray)
    np.testing.assert_array_equal(there.host, here)


@pytest.fixture
def c_library(monkeypatch):
    """Stands for the C library: its functions, and what mallopt is asked for."""
    library = SimpleNamespace(asked=[], mallopt=lambda *numbers: library.asked.append(numbers))
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda name: library)
    return library


def test_freed_memory_is_kept_on_linux(monkeypatch, c_library):
    """Nothing is given back, and no array comes from elsewhere; the numbers fit a C int."""
    monkeypatch.setattr(backend.sys, "platform", "linux")
    backend.keep_freed_memory()
    assert all(type(n) is int and -(2**31) <= n < 2**31 for numbers in c_library.asked for n in numbers)
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    values = dict(c_library.asked)
    assert values[trim_threshold] >= 1 << 30
    assert values[mmap_threshold] >= 1 << 30


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_the_c_library_is_left_alone(monkeypatch, c_library, platform):
    monkeypatch.setattr(backend.sys, "platform", platform)
    monkeypatch.setattr(backend.ctypes, "CDLL", lambda name: pytest.fail("the library was opened"))
    backend.keep_freed_memory()
    assert not c_library.asked


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch, c_library):
    """musl, for one."""
    monkeypatch.setattr(backend.sys, "platform", "linux")
    del c_library.mallopt
    backend.keep_freed_memory()


def modules_imported(path):
    """Return the top-level modules that a source imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def test_nothing_but_the_backend_imports_cupy():
    importers = {
        str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py") if {"cupy", "cupyx"} & {*modules_imported(p)}
    }
    assert importers == {"backend.py"}
