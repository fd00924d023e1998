"""The best next tokens, held against a sort of all of them."""

from types import SimpleNamespace

import numpy as np
import pytest

import tinytransformer.candidates as module
from tinytransformer.cache import Remaining
from tinytransformer.candidates import Candidates, Rest, Shortlisted
from tinytransformer.ops import sums


class Projecting:
    """A model whose features are the logits themselves."""

    def __init__(self, vocabulary, dtype=np.float64):
        self.parameters, self.vocabulary, self.dtype = SimpleNamespace(data=np.zeros(0)), vocabulary, dtype

    def projection(self):
        return np.eye(self.vocabulary, dtype=self.dtype)


class Model(Projecting):
    """A model with this projection, (D, V)."""

    def __init__(self, matrix):
        super().__init__(matrix.shape[1])
        self.matrix = matrix

    def projection(self):
        return self.matrix


class Noting(Candidates):
    """Notes how many rows it looks at."""

    def _grouped(self, features):
        self.rows = [*getattr(self, "rows", []), len(features)]
        return super()._grouped(features)


def log_probabilities(logits, forbidden):
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    logs[..., list(forbidden)] = -np.inf
    return logs


@pytest.mark.parametrize("vocabulary", [1, 2, 15, 16, 17, 31, 33, 64, 100, 1000, 1003])
@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("forbidden", [(), (0, 7)], ids=str)
def test_the_best_are_those_of_a_sort(vocabulary, count, forbidden):
    forbidden = [i for i in forbidden if i < vocabulary - 1]
    logits = 3 * np.random.default_rng(vocabulary).normal(size=(9, vocabulary))
    found, logs = Candidates(Projecting(vocabulary), forbidden).best(logits.copy(), count)
    expected = log_probabilities(logits, forbidden)
    order = np.argsort(-expected, axis=1)[:, :count]
    reached = np.take_along_axis(expected, order, axis=1)
    assert found.shape == logs.shape == (9, min(count, vocabulary))
    np.testing.assert_allclose(logs, reached, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.where(reached > -np.inf, found, 0), np.where(reached > -np.inf, order, 0))


def test_each_place_is_found():
    """Also where only few are allowed, in groups with one token less, and beside others of their group."""
    for vocabulary in (37, 100, 1003):
        for first in range(vocabulary - 2):
            allowed = [first, first + 2]
            forbidden = [i for i in range(vocabulary) if i not in allowed]
            found, logs = Candidates(Projecting(vocabulary), forbidden).best(np.zeros((1, vocabulary)), 5)
            assert set(found[0][logs[0] > -np.inf]) == set(allowed)
            np.testing.assert_allclose(logs[0][:2], -np.log(vocabulary), rtol=1e-13)
            assert np.all(logs[0][2:] == -np.inf)


def test_an_id_that_is_forbidden_twice_is_counted_once():
    logits = np.array([[0.5, 2.0, 1.0, -1.0]])
    for forbidden in ((1, 3), (3, 1, 3, 3, 1)):
        found, logs = Candidates(Projecting(4), forbidden).best(logits.copy(), 2)
        np.testing.assert_array_equal(found, [[2, 0]])
        np.testing.assert_allclose(logs, [[1.0, 0.5]] - np.log(np.exp(logits).sum()), rtol=1e-12)


def test_large_logits_do_not_overflow():
    _, logs = Candidates(Projecting(3), ()).best(np.array([[10_000.0, 9_999.0, -10_000.0]]), 3)
    np.testing.assert_allclose(logs, [[-0.31326169, -1.31326169, -20_000.31326169]], rtol=1e-8)
    found, logs = Candidates(Projecting(3), (0,)).best(np.array([[10_000.0, 9_999.0, -10_000.0]]), 1)
    assert found == [[1]]  # and the forbidden one, which is larger, has its part in the sum
    np.testing.assert_allclose(logs, [[-1.31326169]], rtol=1e-8)


@pytest.mark.parametrize("shift", [1000.0, -1000.0])
@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [1]], ids=["all", "one"])
def test_logits_of_any_size_give_the_same(rows, shift):
    """All of a row moved alike changes no probability."""
    logits = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    found, logs = Candidates(Projecting(50), (3,)).best(logits, 5)
    moved = logits.copy()
    moved[rows] += np.float32(shift)
    found_moved, logs_moved = Candidates(Projecting(50, np.float32), (3,)).best(moved, 5)
    np.testing.assert_array_equal(found_moved, found)
    np.testing.assert_allclose(logs_moved, logs, rtol=0, atol=1e-4)


def test_no_probability_is_more_than_one():
    """A search leaves off where nothing can get better: every token lowers ln p, in float32 too."""
    certain = np.full((2000, 40), -30, np.float32)
    certain[:, 7] = np.linspace(0, 10, 2000)
    found, logs = Candidates(Projecting(40, np.float32), ()).best(certain, 2)
    assert np.all(found[:, 0] == 7)
    assert logs.max() == 0


def test_a_view_of_an_embedding_is_copied_into_the_order_of_rows():
    model = Projecting(5)
    model.projection = lambda: np.arange(10.0).reshape(5, 2).T
    candidates = Candidates(model, ())
    assert candidates.projection.flags.c_contiguous
    np.testing.assert_array_equal(candidates.projection, [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]])


def test_rows_are_looked_at_in_blocks(monkeypatch):
    logits = np.random.default_rng(0).normal(size=(11, 50))
    whole = Candidates(Projecting(50), (3,)).best(logits, 5)
    candidates = Noting(Projecting(50), (3,))
    monkeypatch.setattr(candidates, "parts", lambda rows: Candidates.parts(candidates, rows, 200))
    monkeypatch.setattr(sums, "FEW", 100)  # two rows
    for together, in_blocks in zip(whole, candidates.best(logits, 5), strict=True):
        np.testing.assert_allclose(together, in_blocks, rtol=1e-14)
    assert candidates.rows == [4, 4, 3]


@pytest.mark.parametrize(("beam", "count", "vocabulary"), [(1, 5, 3), (5, 5, 1003), (3, 2, 20), (4, 4, 2), (2, 6, 6)])
def test_continuations_are_the_best_of_all_rows(beam, count, vocabulary):
    generator = np.random.default_rng(beam)
    logits, totals = 3 * generator.normal(size=(7, beam, vocabulary)), -3 * generator.random((7, beam))
    totals[2, 0] = totals[3] = -np.inf  # one that has ended, and a sentence of such
    rows, tokens, sums = Candidates(Projecting(vocabulary), (1,)).continuations(logits, totals, count)
    every = (log_probabilities(logits, (1,)) + totals[..., None]).reshape(7, -1)
    expected = -np.sort(-every, axis=1)[:, :count]
    expected = np.pad(expected, ((0, 0), (0, count - expected.shape[1])), constant_values=-np.inf)
    np.testing.assert_allclose(sums, expected, rtol=0, atol=1e-12)
    chosen = np.take_along_axis(every, rows * vocabulary + tokens, axis=1)
    np.testing.assert_allclose(np.where(sums > -np.inf, chosen, -np.inf), expected, rtol=0, atol=1e-12)
    for row, token, total in zip(rows, tokens, sums, strict=True):
        alive = total > -np.inf
        assert len(set(zip(row[alive], token[alive], strict=True))) == alive.sum()


@pytest.mark.parametrize("enough", [1, 256])
def test_what_is_no_number_comes_last(monkeypatch, enough):
    monkeypatch.setattr(module, "ENOUGH", enough)
    logits, totals = np.zeros((1, 3, 8)), np.array([[-1.0, -2.0, -3.0]])
    logits[0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        rows, _, sums = Candidates(Projecting(8), ()).continuations(logits, totals, 2)
    np.testing.assert_array_equal(rows, 1)
    np.testing.assert_allclose(sums, -2 - np.log(8), rtol=1e-13)


def test_rows_that_cannot_come_among_the_best_are_not_looked_at(monkeypatch):
    """Here the first row of both sentences has two continuations above all that the others have already."""
    monkeypatch.setattr(module, "ENOUGH", 1)
    logits = np.zeros((2, 4, 8))
    totals = np.array([[-1.0, -2.0, -4.0, -np.inf], [-1.0, -3.5, -3.6, -3.7]])
    candidates = Noting(Projecting(8), ())
    rows, _, sums = candidates.continuations(logits, totals, 2)
    # ln(1/8) = -2.08: the first rows come to -3.08, and the second one of the first sentence could still be better
    assert candidates.rows == [2, 1]
    np.testing.assert_array_equal(rows, 0)
    np.testing.assert_allclose(sums, -1 - np.log(8), rtol=1e-13)


@pytest.mark.parametrize("enough", [1, 256])
def test_a_device_that_waits_for_calls_is_asked_once(monkeypatch, enough):
    monkeypatch.setattr(module, "ENOUGH", enough)
    logits, totals = np.random.default_rng(0).normal(size=(3, 4, 20)), -np.arange(12.0).reshape(3, 4)
    candidates = Noting(Projecting(20), ())
    expected = candidates.continuations(logits, totals, 4)
    candidates.rows.clear()
    monkeypatch.setattr(candidates, "on_cpu", False)
    assert candidates.parts(1_000_000_000) == [slice(0, 1_000_000_000)]
    for one, other in zip(expected, candidates.continuations(logits, totals, 4), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)
    assert candidates.rows == [12]


# --- Shortlists


LISTS = [np.array([9, 2, 5]), np.arange(20), np.array([7]), np.array([0, 1, 2, 3, 4, 5, 6])]


def of_lists(logits, lists, forbidden=()):
    """(S, K, V) -> log-probabilities, -inf for what is not on the list of the sentence."""
    result = np.full(logits.shape, -np.inf)
    for i, ids in enumerate(lists):
        allowed = np.setdiff1d(ids, forbidden)
        result[i][:, allowed] = log_probabilities(logits[i][:, allowed], ())
    return result


@pytest.mark.parametrize("count", [1, 2, 5, 40])
@pytest.mark.parametrize("forbidden", [(), (0, 9, 19)], ids=str)
def test_continuations_from_shortlists_are_those_of_a_sort(count, forbidden):
    logits = 3 * np.random.default_rng(1).normal(size=(4, 3, 20))
    totals = np.array([[0.0, -1.0, -2.0], [0.0, -3.0, -np.inf], [-1.0, -np.inf, -np.inf], [0.0, -0.5, -9.0]])
    found = Shortlisted(Projecting(20), forbidden, LISTS).continuations(logits.copy(), totals, count)
    sums = (totals[..., None] + of_lists(logits, LISTS, forbidden)).reshape(4, -1)
    best = -np.sort(-sums, axis=1)[:, :count]
    row, token, total = found
    np.testing.assert_allclose(total, best[:, : total.shape[1]], rtol=0, atol=1e-12)
    assert np.all(best[:, total.shape[1] :] == -np.inf)
    reached = np.take_along_axis(sums, row * 20 + token, axis=1)
    np.testing.assert_allclose(np.where(total > -np.inf, reached, -np.inf), total, rtol=0, atol=1e-12)
    for i in range(4):
        pairs = list(zip(row[i][total[i] > -np.inf], token[i][total[i] > -np.inf], strict=True))
        assert len(set(pairs)) == len(pairs)


def test_each_sentence_that_goes_on_keeps_its_shortlist_and_its_rest():
    logits, order, model = np.random.default_rng(2).normal(size=(4, 20)), np.arange(4), Projecting(20)
    candidates, rest = Shortlisted(model, (), LISTS, Rest(model)), Rest(model)
    for staying in ([True, False, True, True], [False, True, True]):
        remaining = Remaining(np.array(staying))
        candidates.keep(remaining)
        logits, order = logits[remaining.order], order[remaining.order]
        tokens, logs = candidates.best(logits, 1)
        for row, i in enumerate(order.tolist()):
            token, log = Shortlisted(model, (), [LISTS[i]], rest).best(logits[row : row + 1], 1)
            assert tokens[row] == token
            np.testing.assert_allclose(logs[row], log[0], rtol=0, atol=1e-12)


def test_logits_from_shortlists_may_be_large_and_what_is_no_number_comes_last():
    logits = np.array([[[10_000.0, 9_999.0, -10_000.0], [0.0, np.nan, 1.0]]])
    totals = np.array([[-50.0, 0.0]])
    found = Shortlisted(Projecting(3), (), [np.arange(3)]).continuations(logits, totals, 3)
    row, token, total = found
    assert (row[0, :2].tolist(), token[0, :2].tolist()) == ([0, 0], [0, 1])
    np.testing.assert_allclose(total[0, :2], [-50.31326169, -51.31326169], rtol=1e-8)
    assert not np.isnan(total).any()


def test_what_one_of_the_rest_adds_follows_from_mean_and_variance_of_the_logits():
    random = np.random.default_rng(3)
    projection, features = random.normal(size=(4, 30)) + random.normal(size=(4, 1)), random.normal(size=(2, 3, 4)) / 2
    logits = features @ projection
    expected = logits.mean(axis=-1) + logits.var(axis=-1) / 2
    np.testing.assert_allclose(Rest(Model(projection)).of_one(features)[..., 0], expected, rtol=0, atol=1e-12)


def test_the_rest_of_normal_logits_is_their_sum():
    random = np.random.default_rng(4)
    projection, features = random.normal(size=(8, 50_000)), random.normal(size=(5, 8)) / 3
    sums = np.log(np.exp(features @ projection).sum(axis=1))
    found = np.log(50_000) + Rest(Model(projection)).of_one(features)[:, 0]
    assert features.std() > 0.2
    np.testing.assert_allclose(found, sums, rtol=0, atol=0.03)


def test_the_rest_is_no_more_than_the_largest_of_so_many_can_add():
    projection = np.random.default_rng(6).normal(size=(4, 50))
    far = Rest(Model(projection)).of_one(np.full((1, 4), 1e3))
    np.testing.assert_allclose(far, 1e3 * projection.mean(axis=1).sum() + np.log(50), rtol=1e-12)
    with np.errstate(over="ignore"):
        huge = Rest(Model(projection.astype(np.float32))).of_one(np.full((1, 4), 1e30, np.float32))
    assert np.isfinite(huge).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_promoted(dtype):
    model = Model(np.random.default_rng(7).normal(size=(4, 20)).astype(dtype))
    candidates = Shortlisted(model, (0,), LISTS, Rest(model))
    features = np.ones((4, 2, 4), dtype)
    assert candidates.rest.of_one(features).dtype == dtype
    assert {x.dtype for x in (candidates.projection, candidates.hidden, candidates.others)} == {np.dtype(dtype)}
    assert candidates.best(features[:, 0], 1)[1].dtype == dtype


@pytest.mark.parametrize("ids", [[-1], [3, 20]])
def test_what_is_no_id_is_refused(ids):
    with pytest.raises(IndexError, match=rf"^shortlist: id {ids[-1]} is outside \[0, 20\)"):
        Shortlisted(Projecting(20), (), [[3], ids])


@pytest.mark.parametrize("forbidden", [(), (0, 9)], ids=str)
def test_the_rest_has_its_part_in_the_probabilities(forbidden):
    """For as many tokens as are not on the list or are forbidden; where there are none, none."""
    random = np.random.default_rng(5)
    model = Model(random.normal(size=(4, 20)))
    features, rest = random.normal(size=(4, 1, 4)), Rest(model)
    _, token, log = Shortlisted(model, forbidden, LISTS, rest).continuations(features, np.zeros((4, 1)), 1)
    for i, ids in enumerate(LISTS):
        allowed = np.setdiff1d(ids, forbidden)
        logits = (features[i, 0] @ model.matrix)[allowed]
        others = (20 - len(allowed)) * np.exp(rest.of_one(features[i, 0]))
        assert token[i, 0] == allowed[logits.argmax()]
        np.testing.assert_allclose(log[i], logits.max() - np.log(np.exp(logits).sum() + others), rtol=0, atol=1e-12)
