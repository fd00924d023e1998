"""NumPy or CuPy: which one, and what is said when it cannot be."""

import ast
import errno
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stand_in import DeviceArray, StandIn

import tinytransformer
from tinytransformer import backend

PACKAGE = Path(tinytransformer.__file__).parent


@pytest.fixture(params=[None, StandIn()], ids=["without CuPy", "with CuPy"])
def _either(request, monkeypatch):
    monkeypatch.setattr(backend, "cupy", request.param)


def test_as_many_processes_as_there_are_cores_to_have(monkeypatch):
    """The cores that this process may use, or where that is not known all; a GPU is waited for by one process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 5, 7}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert backend.cores(np.ones(1)) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert backend.cores(np.ones(1)) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert backend.cores(np.ones(1)) == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    monkeypatch.setattr(backend, "array_module", lambda x: StandIn())
    assert backend.cores(np.ones(1)) == 1


@pytest.mark.usefixtures("_either")
def test_arrays_of_the_host_belong_to_numpy():
    x = np.ones(3)
    assert backend.array_module(x) is np
    assert backend.array_module(np.float32(1)) is np
    assert backend.to_host(x) is x
    assert backend.to_device(x, "cpu") is x
    backend.require_device("cpu")


def test_arrays_of_the_device_belong_to_cupy(gpu):
    """They come and go through CuPy's own functions alone."""
    x = np.ones(3)
    y = backend.to_device(x, "cuda")
    assert isinstance(y, DeviceArray)
    assert backend.array_module(y) is gpu
    assert backend.to_device(y, "cuda") is y
    for back in (backend.to_host(y), backend.to_device(y, "cpu")):
        np.testing.assert_array_equal(back, x)


class CudaError(RuntimeError):
    """Stands for CUDARuntimeError, which has a number."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


OUT_OF_MEMORY = {
    "the host's": (MemoryError("Unable to allocate 7 GiB"), True),
    "cuBLAS's": (CudaError(3, "CUBLAS_STATUS_ALLOC_FAILED"), True),
    "CUDA's": (CudaError(2, "cudaErrorMemoryAllocation: out of memory"), True),
    "another of CUDA's": (CudaError(700, "cudaErrorIllegalAddress"), False),
    "none of CUDA's": (ValueError("ALLOC_FAILED is no number"), False),
}


@pytest.mark.parametrize(("error", "is_one"), OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_what_counts_as_out_of_memory(error, is_one):
    assert backend.is_out_of_memory(error) == is_one


def cupy_that(driver=13000, built_for=13000, devices=1, product=None):
    """Return a stand-in whose CUDA has these versions and devices; an exception among them is raised when asked for."""

    def answer(what):
        if isinstance(what, Exception):
            raise what
        return what

    module = StandIn()
    module.cuda.runtime.driverGetVersion = lambda: answer(driver)
    module.cuda.runtime.runtimeGetVersion = lambda: built_for
    module.cuda.runtime.getDeviceCount = lambda: answer(devices)
    if product is not None:
        module.ones = lambda shape, dtype: answer(product)
    return module


def import_that_fails():
    """Return what `import cupy` raises where a library is missing: a page, and the cause below it."""
    error = ImportError("\n====\nFailed to import CuPy.\n\nIf you installed CuPy via wheels\n====\n")
    error.__cause__ = ImportError("libcudart.so.13: cannot open shared object file")
    return error


MISSING = ModuleNotFoundError("No module named 'cupy'", name="cupy")
UNUSABLE = {
    "an unknown name": ("tpu", None, MISSING, "is unknown; expected one of: cpu, cuda"),
    "a number": ("cuda:0", cupy_that(), None, "is unknown; expected one of: cpu, cuda"),
    "no CuPy": (
        "cuda",
        None,
        MISSING,
        "needs CuPy, which is not installed; run: pip install -e '.[cuda13]' (or '.[cuda12]' for a CUDA 12 driver)",
    ),
    "a CuPy that cannot be imported": (
        "cuda",
        None,
        import_that_fails(),
        "needs CuPy, which is installed but cannot be imported (ImportError: libcudart.so.13: cannot open "
        "shared object file); remove it, and run: pip install -e '.[cuda13]' (or '.[cuda12]' for a CUDA 12 driver)",
    ),
    "no driver": (
        "cuda",
        cupy_that(driver=0, devices=CudaError(35, "cudaErrorInsufficientDriver")),
        None,
        "needs an NVIDIA driver, and there is none; install the one for your card from nvidia.com/drivers",
    ),
    "a CuPy for a newer CUDA": (
        "cuda",
        cupy_that(driver=12080, built_for=13020, devices=CudaError(35, "cudaErrorInsufficientDriver")),
        None,
        "has a driver for CUDA 12, but CuPy is built for CUDA 13; remove it, and run: pip install -e '.[cuda12]'",
    ),
    "a driver too old for any": (
        "cuda",
        cupy_that(driver=11040, built_for=12090, devices=CudaError(35, "cudaErrorInsufficientDriver")),
        None,
        "has a driver for CUDA 11, but CuPy is built for CUDA 12; install a newer driver",
    ),
    "no device": (
        "cuda",
        cupy_that(devices=CudaError(100, "cudaErrorNoDevice: no CUDA-capable device is detected")),
        None,
        "needs an NVIDIA GPU, and the driver finds none; is one plugged in, and named in CUDA_VISIBLE_DEVICES?",
    ),
    "devices: none": (
        "cuda",
        cupy_that(devices=0),
        None,
        "needs an NVIDIA GPU, and the driver finds none; is one plugged in, and named in CUDA_VISIBLE_DEVICES?",
    ),
    "CUDA's libraries are missing": (
        "cuda",
        cupy_that(built_for=12090, product=RuntimeError("CuPy failed to load libnvrtc.so.12:\n  OSError: not found")),
        None,
        "fails at its first steps (RuntimeError: CuPy failed to load libnvrtc.so.12: OSError: not found); "
        "for CUDA's libraries run: pip install -e '.[cuda12]'",
    ),
    "the runtime is missing": (
        "cuda",
        cupy_that(driver=RuntimeError("libcudart.so.13:\n not found")),
        None,
        "fails at its first steps (RuntimeError: libcudart.so.13: not found); for CUDA's libraries "
        "run: pip install -e '.[cuda13]' (or '.[cuda12]' for a CUDA 12 driver)",
    ),
}


@pytest.mark.parametrize(("device", "cupy", "import_error", "line"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_device_that_cannot_be_used_says_why(monkeypatch, device, cupy, import_error, line):
    """Which of the causes it is, and what to install; always in one line."""
    monkeypatch.setattr(backend, "cupy", cupy)
    monkeypatch.setattr(backend, "import_error", import_error)
    for ask in (backend.require_device, lambda name: backend.to_device(np.ones(1), name)):
        with pytest.raises(backend.DeviceError) as caught:
            ask(device)
        assert str(caught.value) == f"device {device!r} {line}"


@pytest.mark.usefixtures("gpu")
def test_a_device_that_can_be_used_is_let_pass():
    backend.require_device("cuda")
    backend.require_device("cpu")


@pytest.mark.parametrize(("precision", "value"), [("float32", "0"), ("tf32", "1")])
def test_the_precision_is_what_cupy_reads(monkeypatch, precision, value):
    monkeypatch.setitem(backend.os.environ, "CUPY_TF32", "?")
    backend.set_precision(precision)
    assert backend.os.environ["CUPY_TF32"] == value


@pytest.mark.usefixtures("_either")
@pytest.mark.parametrize("shape", [(), (4,), (2, 3, 5), (0, 2)])
def test_random_bytes_are_one_for_every_element(shape):
    x = np.empty(shape, dtype=np.float32)
    first, again, other = (backend.random_bytes(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert x.size < 4 or (first != other).any()


@pytest.mark.parametrize("source", [np.random.SFC64, np.random.PCG64, np.random.Philox, np.random.MT19937])
def test_random_bytes_take_every_value(source):
    """From 0 to 255, all about equally often, in every byte of a word: within six standard deviations of a 256th."""
    drawn = backend.random_bytes(np.empty((256_000, 8)), np.random.Generator(source(0)))
    for place in range(8):
        counts = np.bincount(drawn[:, place], minlength=256)
        assert len(counts) == 256
        assert np.abs(counts - 1000).max() < 6 * np.sqrt(1000)


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


def test_memory_to_be_shared_that_is_not_there_is_a_memory_error(monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(backend.mmap, "mmap", refuse)
    monkeypatch.setattr(backend.sys, "platform", "linux")
    with pytest.raises(MemoryError, match=r"^24 bytes to be shared: Cannot allocate memory$"):
        backend.shared(np.zeros(3))


def test_where_nothing_forks_an_array_stays_where_it_is(monkeypatch):
    monkeypatch.setattr(backend.sys, "platform", "darwin")
    x = np.zeros(3)
    assert backend.shared(x) is x
