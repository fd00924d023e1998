"""The floor holds all products of a step and nothing else: counted against those that a real step makes."""

import numpy as np
import pytest

from benchmarks.floor import Products, measure_floor, products
from tinytransformer.data import make_batch
from tinytransformer.training import add_gradient
from tinytransformer.transformer import Transformer


class CountingArray(np.ndarray):
    """Counts the multiplications and additions of every product that it takes part in."""

    count = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        plain = [x.view(np.ndarray) if isinstance(x, CountingArray) else x for x in inputs]
        if out:
            options["out"] = tuple(x.view(np.ndarray) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            CountingArray.count += 2 * result.size * plain[0].shape[-1]
        return result.view(CountingArray) if isinstance(result, np.ndarray) else result


def operations(size):
    return sum(product.operations() for product in products(size, size.batch))


def test_the_products_are_those_of_a_real_step(size):
    """All products of a whole training step, counted in the arrays; what is not of the model is a small remainder."""
    model = Transformer(size.config(), np.random.default_rng(1))
    for parameter in model.parameters.named.values():
        parameter.data = parameter.data.view(CountingArray)
    CountingArray.count = 0
    pairs = size.corpus(1).pairs
    add_gradient(model, make_batch(pairs), size.batch_tokens, 0.1, np.random.default_rng(2))
    assert CountingArray.count == pytest.approx(operations(size), rel=0.15)
    assert CountingArray.count >= operations(size)


def test_the_operations_of_the_base_model():
    """By hand, per token and layer: 4 d^2 + 2 d f in the encoder, 8 d^2 + 2 d f in the decoder; d V in the end."""
    from benchmarks.sizes import SIZES

    size, d, f = SIZES["base"], 512, 2048
    per_token = 6 * (4 * d * d + 2 * d * f) + 6 * (8 * d * d + 2 * d * f) + d * 8000
    attention = 18 * 2 * 32 * d  # for every query, two products with 32 keys
    assert operations(size) == 3 * 2 * 32 * 32 * (per_token + attention)


def test_the_products_are_computed(size):
    """Of every product x @ w = y also dy @ w^T and x^T @ dy, where dy is y."""
    work = Products(size, size.batch)
    work()
    last = {id(arrays[-1]): arrays for arrays in reversed(work.prepared)}  # of each kind
    assert len(last) == len(products(size, size.batch))
    for x, w, _, dy, dx, dw in last.values():
        np.testing.assert_allclose(dx, dy @ w.swapaxes(-1, -2), rtol=1e-5)
        np.testing.assert_allclose(dw, x.swapaxes(-1, -2) @ dy, rtol=1e-5)
    for x, w, y, *_ in work.prepared:
        np.testing.assert_allclose(y, x @ w, rtol=1e-5)


def test_products_have_operands_of_their_own_unless_they_are_to_stay_in_the_cache(size):
    kinds = products(size, 2)
    for in_cache in (False, True):
        work = Products(size, 2, in_cache=in_cache)
        assert len(work.prepared) == sum(p.count for p in kinds)
        inputs, weights, results = (len({id(arrays[i]) for arrays in work.prepared}) for i in range(3))
        assert weights == results == (len(kinds) if in_cache else sum(p.count for p in kinds))
        assert inputs == (len(kinds) if in_cache else sum(p.count // p.uses for p in kinds))


def test_shares_of_a_batch_have_the_same_weights(size):
    """And inputs of their own; in attention both operands are."""
    whole = [product for product in products(size, 2) for _ in range(product.count)]
    one = Products(size, 2)
    for product, ours, theirs in zip(whole, one.prepared, Products(size, 2, weights_of=one).prepared, strict=True):
        assert theirs[0] is not ours[0]
        assert (theirs[1] is ours[1]) == (product.stack == 1)


@pytest.mark.parametrize("in_cache", [False, True])
def test_the_faster_division_of_the_work_counts(size, new_clock, in_cache):
    clocks = new_clock(), new_clock()
    seconds = measure_floor(size, clocks, in_cache=in_cache)
    assert seconds == min(clock.median() for clock in clocks) > 0
