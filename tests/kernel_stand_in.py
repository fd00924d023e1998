"""The stand-in for CuPy with what the kernels need: it compiles CUDA C++ for this machine's own processor, and runs it.

So the kernels are held to everything that the plain operations are held to, without a GPU. cuda_on_a_cpu.h says how
threads are made to wait for each other; how fast they are, or what memory they wait for, it cannot say.
"""

from __future__ import annotations

import ctypes
import math
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from device_array import DeviceArray, on_device
from stand_in import StandIn

COMPILER = shutil.which("g++")
HEADER = Path(__file__).parent / "cuda_on_a_cpu.h"
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\((.*?)\)\s*\{', re.DOTALL)
LAUNCHER = """
extern "C" void launch_{name}(Place blocks_, Place threads_, {parameters}) {{
    stand_in::run(blocks_, threads_, [=] {{ {name}({arguments}); }});
}}
"""
KINDS = {  # of numbers, each as CuPy hands it over: what a kernel calls it, and what Python's ctypes does
    int: ("whole", ctypes.c_longlong),
    float: ("double", ctypes.c_double),
    bool: ("bool", ctypes.c_bool),
    np.uint64: ("word", ctypes.c_ulonglong),
}


class StandInWithKernels(StandIn):
    """A stand-in that has `RawModule`, and of cuBLAS products, alone and in batches."""

    def __init__(self):
        super().__init__()
        self.cuda.cublas = SimpleNamespace(
            sgemm=_product(np.float32),
            dgemm=_product(np.float64),
            sgemmBatched=_products(np.float32),
            dgemmBatched=_products(np.float64),
            setMathMode=lambda handle, mode: None,
        )
        self.cuda.device = SimpleNamespace(get_cublas_handle=lambda: 0)

    def ascontiguousarray(self, x):
        return DeviceArray(np.ascontiguousarray(on_device(x)._memory), self)

    def RawModule(self, code, options):  # noqa: N802
        library = ctypes.PyDLL(str(compiled(code, options)))  # which holds the lock: one launch at a time
        kinds = {
            name: [_kind(parameter) for parameter in parameters.split(",")] for name, parameters in KERNEL.findall(code)
        }
        return SimpleNamespace(get_function=lambda name: self._kernel(library, name, kinds[name]))

    def _kernel(self, library, name, kinds):
        def start(blocks, threads, arguments):
            assert math.prod(blocks) > 0
            assert blocks[0] < 1 << 31
            assert max(blocks[1:], default=1) < 1 << 16
            assert math.prod(threads) <= 1024
            assert threads[0] % 32 == 0
            given = [_argument(x, kind) for x, kind in zip(arguments, kinds, strict=True)]
            library[f"launch_{name}"](_place(blocks), _place(threads), *given)

        return start


class Place(ctypes.Structure):
    """Along each axis how many there are."""

    _fields_ = tuple((axis, ctypes.c_uint) for axis in "xyz")


def _place(counts):
    return Place(*counts, *(1,) * (3 - len(counts)))


def _kind(parameter):
    """Return the type of a parameter of C++: of `const real* x` it is real*."""
    return parameter.replace("const ", "").replace("__restrict__ ", "").split()[0]


def _argument(x, kind):
    """Return what C++ is given: an address for an array, 0 for none. Nobody converts a number, so it has to fit."""
    if kind.endswith("*"):
        return ctypes.c_void_p(x.data.ptr if isinstance(x, DeviceArray) else {0: 0}[x])
    name, convert = KINDS[type(x)]
    assert name == kind, f"{x!r} for {kind}"
    return convert(x)


def philox_bytes(x, generator):
    """Draw on the host the bytes that the kernels draw; takes the place of `backend.random_bytes`."""
    words = np.random.Philox(key=generator.bit_generator.random_raw()).random_raw(-(-x.size // 8))
    return words.astype("<u8").view(np.uint8)[: x.size].reshape(x.shape)


def drop_as_a_gpu(monkeypatch):
    """Let the operations drop on a CPU what the kernels drop."""
    module = sys.modules["tinytransformer.ops.dropout"]  # as an attribute of `ops`, `dropout` is the operation
    monkeypatch.setattr(module, "random_bytes", philox_bytes)


_libraries = {}


@cache
def _folder():
    """Return where the libraries are, which is taken away when this process ends."""
    return tempfile.TemporaryDirectory(prefix="kernels-")


def compiled(code, options):
    """Return a library with a function `launch_NAME(blocks, threads, ...)` for every kernel in `code`."""
    if (code, options) not in _libraries:
        text = f'#include "{HEADER}"\n{code}'
        for name, parameters in KERNEL.findall(code):
            arguments = ", ".join(re.findall(r"(\w+)\s*(?:,|$)", parameters))
            text += LAUNCHER.format(name=name, parameters=parameters, arguments=arguments)
        to = Path(_folder().name) / f"{len(_libraries)}.so"
        to.with_suffix(".cpp").write_text(text)
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wno-unknown-pragmas", "-shared", "-fPIC", *options]
        done = subprocess.run(
            [COMPILER, *flags, "-o", str(to), str(to.with_suffix(".cpp"))], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        _libraries[code, options] = to
    return _libraries[code, options]


def _at(address, shape, kind, strides=None):
    """Return the array that lies at an address; without strides, its elements side by side."""
    size = np.dtype(kind).itemsize
    last = sum((n - 1) * apart for n, apart in zip(shape, strides or (size,), strict=True)) + size
    return np.ndarray(shape, kind, (ctypes.c_char * last).from_address(address), strides=strides)


def _product(kind):
    """Return cuBLAS's `gemm`, for which a matrix lies column by column."""
    size = np.dtype(kind).itemsize

    def matrix(address, rows, columns, apart, transposed=False):
        if transposed:
            return matrix(address, columns, rows, apart).T
        assert apart >= rows > 0
        return _at(address, (rows, columns), kind, (size, apart * size))

    def multiply(handle, x_mode, y_mode, rows, columns, inner, alpha, x, x_apart, y, y_apart, beta, z, z_apart):
        assert (_at(alpha, (1,), kind)[0], _at(beta, (1,), kind)[0]) == (1, 0)
        one, other = matrix(x, rows, inner, x_apart, x_mode), matrix(y, inner, columns, y_apart, y_mode)
        matrix(z, rows, columns, z_apart)[...] = one @ other

    return multiply


def _products(kind):
    """Return cuBLAS's `gemmBatched`, which is given the addresses of the addresses."""
    multiply = _product(kind)

    def multiply_all(*arguments):
        *options, xs, x_apart, ys, y_apart, beta, zs, z_apart, count = arguments
        for x, y, z in zip(*(_at(places, (count,), np.int64).tolist() for places in (xs, ys, zs)), strict=True):
            multiply(*options, x, x_apart, y, y_apart, beta, z, z_apart)

    return multiply_all
