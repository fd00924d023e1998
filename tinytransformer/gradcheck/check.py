"""The verdict on one operation in one case: does its gradient agree with what its values say?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinytransformer.backend import to_device, to_host
from tinytransformer.gradcheck.case import Case
from tinytransformer.gradcheck.numerical import Differences, differences
from tinytransformer.tensor import OPS, Operation, Tensor

PASS, ZERO, INCONCLUSIVE, FAIL = "pass", "zero", "inconclusive", "FAIL"

TOLERANCE = 1e-9  # on the norm of the error, relative to the norm of the gradient
ZERO_TOLERANCE = 1e-11  # on every element of a gradient that is zero by nature
# Rounding disturbs a numerical gradient by about 1e-13, so one below this cannot be held to TOLERANCE.
SMALLEST_NORM = 1e-4


@dataclass(frozen=True)
class Result:
    """The verdict on the gradient of one input in one case.

    Attributes:
        verdict: PASS, ZERO, INCONCLUSIVE or FAIL.
        error: norm-wise and relative; for an input declared zero, the largest absolute value found.
        index: where analytic and numerical gradient differ most.
        analytic, numerical: the two values there.
        note: why the operation could not be run at all, else empty.
    """

    operation: str
    case: str
    input: str
    seed: int
    verdict: str
    error: float = np.nan
    index: tuple[int, ...] = ()
    analytic: float = np.nan
    numerical: float = np.nan
    note: str = ""

    def __str__(self) -> str:
        """Everything needed to find the mistake, in a few lines."""
        values = f"analytic {self.analytic:.12g}, numerical {self.numerical:.12g}"
        found = self.note or f"error {self.error:.3g}; worst at index {self.index}: {values}"
        repeat = f"seed {self.seed}"
        if self.operation in OPS:  # not one that a reader is trying out
            repeat = f"repeat: python -m tinytransformer.gradcheck --op {self.operation} --seed {self.seed}"
        return f"{self.verdict}: {self.operation}, case '{self.case}', input {self.input}\n  {found}\n  {repeat}"


def check(
    operation: Operation,
    case: Case,
    seed: int,
    device: str = "cpu",
    numerical: Callable[[], list[Differences]] | None = None,
) -> list[Result]:
    """Compare the gradient of every input of `case` with its numerical gradient; one Result per input.

    The upstream gradient is random. A vector of ones, the usual choice, cannot tell the backward of softmax from one
    that is scaled, negated or zero everywhere: what sums to 1 has a gradient of zero when it is summed.

    device: where the operation runs, in both directions; numbers are drawn and compared on the host.
    numerical: gives the numerical gradients where they are known already.
    """
    names = case.input_names(operation)
    try:
        arrays, upstream = draw(operation, case, seed)
        analytic = analytic_gradients(operation, case, arrays, upstream, device)
    except Exception as problem:  # whatever it is: an operation that raises has not passed
        note = f"{type(problem).__name__}: {problem}"
        return [Result(operation.name, case.label, name, seed, FAIL, note=note) for name in names]

    slopes = numerical() if numerical else numerical_gradients(operation, case, arrays, upstream, device)
    results = []
    for name, gradient, slope in zip(names, analytic, slopes, strict=True):
        verdict, error = judge(gradient, slope, declared_zero=name in case.zero)
        # argmax counts a NaN as the largest, so it is found too
        index = np.unravel_index(np.abs(gradient - slope.sixth).argmax(), gradient.shape)
        place = tuple(int(i) for i in index)
        values = float(gradient[place]), float(slope.sixth[place])
        results.append(Result(operation.name, case.label, name, seed, verdict, error, place, *values))
    return results


def draw(operation: Operation, case: Case, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Draw the inputs of `case` and a gradient for its result: the same ones for the same seed."""
    generator = np.random.Generator(np.random.SFC64(seed))
    arrays = [np.asarray(draw_input(generator)) for draw_input in case.draws]
    shape = case.run(operation, arrays).shape
    upstream = generator.uniform(0.5, 1.5, shape) * generator.choice([-1.0, 1.0], shape)
    return arrays, np.asarray(upstream)


def numerical_gradients(
    operation: Operation, case: Case, arrays: list[np.ndarray], upstream: np.ndarray, device: str = "cpu"
) -> list[Differences]:
    """Return what differences of the loss say the gradient of every input is."""

    def loss() -> float:
        output = case.run(operation, [to_device(x, device) for x in arrays]).data
        return float((upstream * to_host(output)).sum())

    return [differences(loss, array) for array in arrays]


def analytic_gradients(
    operation: Operation, case: Case, arrays: list[np.ndarray], upstream: np.ndarray, device: str = "cpu"
) -> list[np.ndarray]:
    """Return the gradients that backward finds, one per input; NaN where an input was given none.

    Inputs and upstream gradient are handed over read-only: an operation that writes into them raises ValueError.
    """
    inputs = [Tensor(to_device(_read_only(x), device), requires_grad=True) for x in arrays]
    case.run(operation, inputs).backward(to_device(_read_only(upstream), device))
    return [np.full(x.shape, np.nan) if x.grad is None else to_host(x.grad) for x in inputs]


def judge(analytic: np.ndarray, numerical: Differences, *, declared_zero: bool) -> tuple[str, float]:
    """Return the verdict on one gradient, and its error.

    Every comparison asks whether things are well, so that a NaN, of which nothing is true, never passes.
    """
    doubts = (numerical.sixth - numerical.fourth, numerical.jump)
    if declared_zero:
        error = float(np.abs([analytic, numerical.sixth]).max())
        sure = all(np.abs(doubt).max() <= ZERO_TOLERANCE for doubt in doubts)
        if not error <= ZERO_TOLERANCE:
            return FAIL, error
        return (ZERO if sure else INCONCLUSIVE), error
    norm = float(np.linalg.norm(numerical.sixth))
    error = float(np.linalg.norm(analytic - numerical.sixth)) / norm if norm else np.inf
    sure = norm >= SMALLEST_NORM and all(float(np.linalg.norm(doubt)) <= TOLERANCE * norm for doubt in doubts)
    if not sure:
        return INCONCLUSIVE, error
    return (PASS if error <= TOLERANCE else FAIL), error


def _read_only(x: np.ndarray) -> np.ndarray:
    view = x.view()
    view.flags.writeable = False
    return view
