"""The stand-in runs kernels as a GPU may run them, and ends where threads would wait for ever."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinytransformer.kernels import launch

COMMON = (Path(launch.__file__).parent / "common.cu").read_text()
SUM = """
extern "C" __global__ void sum_of_threads(const real* x, real* y) {
    real sum = block_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x == blockDim.x - 1) y[blockIdx.x] = sum;
}
extern "C" __global__ void largest_of_threads(const real* x, real* y) {
    real largest = block_max(x[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x == 0) y[blockIdx.x] = largest;
}
"""


@pytest.mark.parametrize("threads", [32, 96, 1024])
def test_threads_add_up_what_they_have(gpu, threads):
    x = np.random.default_rng(0).normal(size=(3, threads)) - 5
    module, y = gpu.RawModule(COMMON + SUM, ("-DREAL=double",)), gpu.zeros(3)
    for name, expected in (("sum_of_threads", x.sum(axis=1)), ("largest_of_threads", x.max(axis=1))):
        module.get_function(name)((3,), (threads,), (gpu.asarray(x), y))
        np.testing.assert_allclose(gpu.asnumpy(y), expected, rtol=1e-13)


def test_who_does_not_wait_reads_what_was_there_before(gpu):
    """A race: the next thread has not written yet."""
    code = """
    extern "C" __global__ void shift(real* x) {
        real mine = x[threadIdx.x];
        x[threadIdx.x] = mine + 1;
        x[32 + threadIdx.x] = x[(threadIdx.x + 1) % 32];
    }
    """
    shift = gpu.RawModule(COMMON + code, ("-DREAL=double",)).get_function("shift")
    for expected in ([0] * 31 + [1], [1] * 31 + [0]):  # with the first thread first, and with the last
        x = gpu.zeros(64)
        shift((1,), (32,), (x,))
        np.testing.assert_array_equal(gpu.asnumpy(x)[32:], expected)


TWICE = """
extern "C" __global__ void sum_twice(const real* x, real* y) {
    real sum = block_sum(x[threadIdx.x]), other = block_sum(2 * x[threadIdx.x]);
    y[threadIdx.x] = sum;
    y[blockDim.x + threadIdx.x] = other;
}
"""


@pytest.mark.parametrize("which", [0, 1])
def test_a_warp_that_does_not_wait_is_far_ahead(gpu, which):
    """Without one of its barriers a sum over the block is found out, whichever it is."""
    barrier, x = "    __syncthreads();", np.random.default_rng(0).normal(size=128)
    head, *tails = COMMON.split(barrier)
    assert len(tails) == 2
    broken = head + tails[0] + barrier + tails[1] if which == 0 else head + barrier + tails[0] + tails[1]
    sound = []
    for common in (COMMON, broken):
        y = gpu.zeros(256)
        gpu.RawModule(common + TWICE, ("-DREAL=double",)).get_function("sum_twice")((1,), (128,), (gpu.asarray(x), y))
        sound.append(np.allclose(gpu.asnumpy(y), np.repeat([x.sum(), 2 * x.sum()], 128), rtol=1e-13))
    assert sound == [True, False]


DIVERGING = {
    "the first waits alone": ("if (threadIdx.x == 0) __syncthreads();", None),
    "all but the first wait": (
        "if (threadIdx.x > 0) __syncthreads();",
        "thread 1 waits at __syncthreads, the first nowhere",
    ),
    "each waits for something else": (
        "if (threadIdx.x < 16) __syncthreads(); else warp_sum(1);",
        "thread 16 waits at __shfl_xor_sync, one before it at __syncthreads",
    ),
}

PROGRAM = """
from kernel_stand_in import StandInWithKernels
code = {common!r} + 'extern "C" __global__ void diverge(real* x) {{ {body} }}'
StandInWithKernels().RawModule(code, ("-DREAL=double",)).get_function("diverge")((1,), (32,), (0,))
"""


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("body", "message"), DIVERGING.values(), ids=DIVERGING)
def test_threads_wait_at_the_same_places(tmp_path, body, message):
    """Those that have ended are waited for by nobody."""
    command = [sys.executable, "-c", PROGRAM.format(common=COMMON, body=body)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}  # where it leaves its files when it is aborted
    done = subprocess.run(command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
    assert (done.returncode == 0) == (message is None)
    assert (message or "") in done.stderr
