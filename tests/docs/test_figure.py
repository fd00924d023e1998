"""The picture of a block: the script draws the file that is there, and every formula in it is the tape's gradient."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scripts import load_script

from tinytransformer.layers import Block
from tinytransformer.module import FlatParameters
from tinytransformer.tensor import Tensor

DOCS = Path(__file__).parents[2] / "docs"
PICTURE = DOCS / "block.svg"


@pytest.fixture(scope="module")
def figure():
    pytest.importorskip("matplotlib")
    return load_script("docs/figure.py")


def labels(svg):
    """matplotlib draws letters as paths, and keeps the text beside them in a comment."""
    return [unescape(text).replace("\N{MINUS SIGN}", "-") for text in re.findall(r"<!-- (.*?) -->", svg)]


def test_the_picture_is_the_one_that_the_script_draws(figure, tmp_path):
    """Under the matplotlib that drew it, byte for byte; under another, with the same labels."""
    drawn = tmp_path / "block.svg"
    figure.draw(drawn)
    new, old = drawn.read_text("utf-8"), PICTURE.read_text("utf-8")
    assert labels(new) == labels(old)
    version = re.compile(r"Matplotlib v[\d.]+")
    if version.search(new)[0] == version.search(old)[0]:
        assert new == old


def test_the_picture_says_every_step(figure):
    drawn = labels(PICTURE.read_text("utf-8"))
    for i, branch in enumerate(figure.BRANCHES):
        assert branch.name in drawn
        for step in [*figure.norm(i), *branch.steps]:
            assert step.forward in drawn
            assert step.shape in drawn
            assert step.backward in drawn
            assert step.weights == "" or step.weights in drawn


def test_the_picture_is_small_and_prints_in_black_and_white():
    content = PICTURE.read_text("utf-8")
    assert len(content.encode()) < 200_000
    colours = set(re.findall(r"#[0-9a-f]{6}\b", content))
    assert all(c[1:3] == c[3:5] == c[5:7] for c in colours), colours


def split(x):
    return x.reshape(2, -1, 3, 4).swapaxes(1, 2)


def join(x):
    return x.swapaxes(1, 2).reshape(2, -1, 12)


def turned(x):
    return x.swapaxes(-1, -2)


def mean(x):
    return x.mean(-1, keepdims=True)


def softmax(S):
    e = np.exp(S - S.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Picture:
    """What the picture says, step by step; each step gives its result and its way back.

    weight: the parameters, by name. found: their gradients, as the ways back are gone.
    """

    def __init__(self, weight):
        self.weight, self.found = weight, {}

    def norm(self, X, name):
        s = np.sqrt(mean((X - mean(X)) ** 2) + 1e-5)
        xhat = (X - mean(X)) / s

        def backward(dN):
            g = dN * self.weight[f"{name}.gain"]
            self.found[f"{name}.gain"], self.found[f"{name}.bias"] = (dN * xhat).sum((0, 1)), dN.sum((0, 1))
            return (g - mean(g) - xhat * mean(g * xhat)) / s

        return self.weight[f"{name}.gain"] * xhat + self.weight[f"{name}.bias"], backward

    def product(self, x, name):
        """y = x @ W, and the gradient of x; that of W is put down in `found`."""

        def backward(dy):
            self.found[name] = (turned(x) @ dy).sum(0)
            return dy @ self.weight[name].T

        return x @ self.weight[name], backward

    def attend(self, N, source, name, *, causal):
        c = 1 / np.sqrt(4)
        (q, q_back), (k, k_back), (v, v_back) = (
            self.product(of, f"{name}.{part}.weight") for of, part in ((N, "query"), (source, "key"), (source, "value"))
        )
        Q, K, V = split(q), split(k), split(v)
        S = c * Q @ turned(K)
        if causal:
            S = np.where(np.tri(5, dtype=bool), S, -np.inf)
        A = softmax(S)
        C = join(A @ V)
        Y, o_back = self.product(C, f"{name}.output.weight")

        def backward(dY):
            dC = o_back(dY)
            dA, dV = split(dC) @ turned(V), turned(A) @ split(dC)
            dS = A * (dA - (dA * A).sum(-1, keepdims=True))
            dQ, dK = c * dS @ K, c * turned(dS) @ Q
            return q_back(join(dQ)), k_back(join(dK)) + v_back(join(dV))

        return Y, backward

    def block(self, X0, M, dX3):
        """The left side upwards, the right side downwards: X3, dX0 and dM."""
        N1, norm1_back = self.norm(X0, "self_attention_norm")
        Y1, self_back = self.attend(N1, N1, "self_attention", causal=True)
        X1 = X0 + Y1
        N2, norm2_back = self.norm(X1, "cross_attention_norm")
        Y2, cross_back = self.attend(N2, M, "cross_attention", causal=False)
        X2 = X1 + Y2
        N3, norm3_back = self.norm(X2, "feed_forward_norm")
        U, expand_back = self.product(N3, "feed_forward.expand.weight")
        R = np.maximum(U, 0)
        Y3, contract_back = self.product(R, "feed_forward.contract.weight")
        X3 = X2 + Y3

        dY3 = dX3
        dR = contract_back(dY3)
        dU = np.where(U > 0, dR, 0)
        dX2 = dX3 + norm3_back(expand_back(dU))
        dN2, dM = cross_back(dX2)
        dX1 = dX2 + norm2_back(dN2)
        through_query, through_key_and_value = self_back(dX1)
        dX0 = dX1 + norm1_back(through_query + through_key_and_value)
        return X3, dX0, dM


def test_every_formula_of_the_picture_is_the_gradient_of_the_tape():
    rng = np.random.default_rng(0)
    block = Block(12, 20, 3, rng, cross_attention=True, rate=0.5)
    parameters = FlatParameters(block, dtype=np.float64)
    for name, parameter in parameters.named.items():  # biases of linear maps stay 0, as the picture leaves them out
        if "norm" in name:
            parameter.data[...] = rng.normal(1, 0.5, parameter.shape)
    X0, M, dX3 = (rng.standard_normal(shape) for shape in ((2, 5, 12), (2, 7, 12), (2, 5, 12)))
    x, memory = Tensor(X0, requires_grad=True), Tensor(M, requires_grad=True)
    result = block(x, memory, causal=True)
    result.backward(dX3)

    picture = Picture({name: p.data for name, p in parameters.named.items()})
    X3, dX0, dM = picture.block(X0, M, dX3)
    np.testing.assert_allclose(result.data, X3, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(x.grad, dX0, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(memory.grad, dM, rtol=1e-10, atol=1e-12)
    linear_biases = {name for name in parameters.named if name.endswith(".bias") and "norm" not in name}
    assert picture.found.keys() == parameters.named.keys() - linear_biases
    for name, gradient in picture.found.items():
        np.testing.assert_allclose(parameters.named[name].grad, gradient, rtol=1e-10, atol=1e-12, err_msg=name)
