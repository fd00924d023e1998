"""On a real GPU, `pytest -m gpu`: gradients, models and trainings are those of the CPU. docs/gpu.md shows it."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from device_training import OPTIONS, SEARCHES, SHAPES, both, step, trained
from kernel_stand_in import drop_as_a_gpu
from scripts import ROOT, load_script

from tinytransformer.backend import DeviceError, array_module, require_device, to_device, to_host
from tinytransformer.data import make_batch
from tinytransformer.gradcheck.cases import CASES
from tinytransformer.gradcheck.check import check
from tinytransformer.optim import Adam, clipping
from tinytransformer.tensor import OPS
from tinytransformer.training import Replicas


def why_not():
    """Return why there is no GPU to test on; nothing if there is one."""
    try:
        require_device("cuda")
    except DeviceError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not())]


def is_whole(session):
    """Return whether `pytest -m gpu` ran, all of it, and nothing failed: only that is fit for the page."""
    config = session.config
    narrowed = [config.getoption(name, None) for name in ("keyword", "deselect", "ignore", "ignore_glob", "lf")]
    everywhere = list(config.args) == list(config.getini("testpaths"))
    return config.option.markexpr == "gpu" and everywhere and not any(narrowed) and not session.testsfailed


@pytest.fixture(scope="module")
def table(request):
    """Rows of what was compared: what, on the CPU, on the GPU. They are printed; a whole run fills in docs/gpu.md."""
    rows = []
    yield rows
    sys.path.insert(0, str(ROOT))
    gpu, processes = load_script("benchmarks/gpu.py"), load_script("benchmarks/processes.py")
    head = ("", "CPU", "GPU")
    text = f"{gpu.card()}; {processes.machine('cupy')}\n\n{processes.table(head, rows)}"
    plugins = request.config.pluginmanager
    with plugins.get_plugin("capturemanager").global_and_fixture_disabled():  # or nobody would see it
        plugins.get_plugin("terminalreporter").write_line(f"\n{text}")
    if is_whole(request.session):
        gpu.fill_in(gpu.PAGE, "tests", text)


@pytest.fixture
def same_bytes(monkeypatch):
    """Let a CPU drop what a GPU drops."""
    drop_as_a_gpu(monkeypatch)


def difference(x, y):
    """Return |y - x| / |x|, in the Euclidean norm."""
    x, y = to_host(x).astype(float), to_host(y).astype(float)
    return float(np.linalg.norm(y - x) / np.linalg.norm(x))


def test_every_gradient_stands_on_the_device(table):
    errors = []
    for name, cases in CASES.items():
        for case in cases:
            for result in check(OPS[name], case, seed=0, device="cuda"):
                assert result.verdict == ("zero" if result.input in case.zero else "pass"), str(result)
                errors += [result.error] if result.verdict == "pass" else []
    table.append(("worst relative error of a gradient, float64", "", f"{max(errors):.1e}"))


@pytest.mark.usefixtures("same_bytes")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 1e-4)], ids=["float64", "float32"])
@pytest.mark.parametrize("changes", SHAPES, ids=["pre-norm", "post-norm"])
def test_a_model_is_that_of_the_cpu(make_model, corpus, table, changes, dtype, tolerance):
    here, there = both(make_model, dtype=dtype, **changes)
    (loss, gradient), (loss_there, gradient_there) = step(here, corpus), step(there, corpus)
    found = difference(gradient, gradient_there)
    what = f"gradient of a {changes.get('norm', 'pre')}-norm model, {np.dtype(dtype)}, relative difference"
    table.append((what, "", f"{found:.1e}"))
    assert found < tolerance
    assert difference(loss, loss_there) < tolerance


@pytest.mark.usefixtures("same_bytes")
def test_a_training_is_that_of_the_cpu(make_model, corpus, table):
    """37 updates in float64 with dropout; and twice on the GPU, to the bit.

    At this learning rate two trainings on a CPU that begin one rounding apart end 1e-12 apart; at 1e-2 they would end
    1e-5 apart, and nothing would be said of the GPU.
    """
    options = replace(OPTIONS, valid_every=9, clip=0.1, learning_rate=1e-3)
    (here, _, _, _), (there, standing, reports, _), (again, _, _, _) = (
        trained(make_model(12, device=device, **SHAPES[0]), corpus, options) for device in ("cpu", "cuda", "cuda")
    )
    assert standing.step == len(reports) == options.steps
    table.append((f"parameters after {options.steps} updates, float64", "", f"{difference(here[0], there[0]):.1e}"))
    for x, y, z in zip(here, there, again, strict=True):
        assert difference(x, y) < 1e-10
        assert to_host(y).tobytes() == to_host(z).tobytes()


def test_nobody_waits_for_a_step(make_model, corpus):
    """All of it has been handed over while the GPU still multiplies what it was given before.

    The model is small: a stream holds about a thousand launches, and with more even one that asks for nothing waits.
    """
    model = make_model(12, device="cuda", dtype=np.float32, scale=1.0, decoder_layers=1)
    xp, optimizer, batch = array_module(model.parameters.data), Adam(model.parameters), make_batch(corpus.pairs[:20])
    large = to_device(np.ones((8192, 8192), np.float32), "cuda")
    parts, result = [replace(batch, source=xp.asarray(batch.source), target=xp.asarray(batch.target))], large @ large

    with Replicas(model, OPTIONS, optimizer) as replicas:

        def step():
            loss = replicas.gradient(parts, batch.tokens, 1)
            norm, scale = clipping(model.parameters.grad, OPTIONS.clip)
            replicas.update(1e-3, scale, xp.isfinite(loss + norm))

        step()  # compiles its kernels, and takes its memory
        stream = xp.cuda.get_current_stream()
        stream.synchronize()
        for _ in range(100):  # two seconds of an H100
            xp.matmul(large, large, out=result)
        step()
        assert not stream.done
        stream.synchronize()


@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
def test_a_search_finds_what_it_finds_on_the_cpu(make_model, corpus, search):
    sources = [source for source, _ in corpus.pairs[:6]]
    here, there = (search(make_model(12, device=device), sources, [9] * 6) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
        for x, y in pairs:
            assert x.ids == y.ids
            assert x.log_probability == pytest.approx(y.log_probability, rel=1e-10)


def bleu(text):
    return float(re.search(r"BLEU ([\d.]+)", text)[1])


def test_a_toy_training_is_as_good_as_on_the_cpu(call, table):
    """The whole of `python train.py` on either device, at once; the GPU's model translates as well on the CPU."""
    scores = {}
    with ThreadPoolExecutor() as both_at_once:
        runs = {
            device: both_at_once.submit(call, "train.py", "--device", device, "--out", f"toy-{device}")
            for device in ("cpu", "cuda")
        }
    for device, run in runs.items():
        status, output, errors = run.result()
        assert status == 0, errors
        scores[device] = bleu(output[0])
    files = [str(ROOT / "data" / "toy" / f"test.{language}") for language in ("en", "de")]
    for device in ("cpu", "cuda"):
        status, output, errors = call("evaluate.py", *files, "--model", "toy-cuda", "--device", device)
        assert status == 0, errors
        assert bleu(output[1]) == pytest.approx(scores["cuda"], abs=0.1)
    table.append(("BLEU on the toy corpus, trained there", f"{scores['cpu']:.2f}", f"{scores['cuda']:.2f}"))
    assert scores["cuda"] == pytest.approx(scores["cpu"], abs=1.5)


def test_memory_that_runs_out_is_told_in_one_line(call, monkeypatch):
    monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", str(100 << 20))
    arguments = ("--preset", "base", "--vocab-size", "600", "--steps", "2", "--device", "cuda", "--out", "too-large")
    status, output, errors = call("train.py", *arguments)
    assert (status, output) == (1, [])
    last = errors.strip().split("\n")[-1]
    assert last.startswith("train.py: error: there is not enough memory: ")


PRODUCT = """
import numpy as np
from tinytransformer.backend import require_device, set_precision, to_device, to_host
from tinytransformer.kernels.products import product, products
require_device("cuda")  # before it, as in train.py
set_precision({precision!r})
x = np.random.default_rng(0).standard_normal((512, 512))
there = to_device(x.astype(np.float32), "cuda")
batch = there[None, None]
for result in (product(there, there), products(batch, batch, batch.copy())[0, 0], there @ there):
    print(np.linalg.norm(to_host(result) - x @ x) / np.linalg.norm(x @ x))
"""


def test_tf32_is_coarser_and_float32_is_not(table):
    """A product of 512 x 512; TF32 is there from Ampere on."""
    errors = []
    for precision in ("float32", "tf32"):
        command = [sys.executable, "-c", PRODUCT.format(precision=precision)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        errors.append([float(error) for error in printed.split()])
        table.append((f"relative error of a product, {precision}", "", f"{errors[-1][0]:.1e}"))
    for exact, coarse in zip(*errors, strict=True):  # one product, one of a batch, and one of CuPy's own
        assert exact < 1e-6
        assert exact * 10 < coarse < 1e-2
