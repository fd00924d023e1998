"""The search, held against searches that are too slow to use: every hypothesis there is, by the whole model."""

import numpy as np
import pytest
from slow_searches import (
    SHORTLISTS,
    SOURCES,
    SPECIAL,
    V,
    assert_same,
    every_hypothesis,
    next_log_probabilities,
    plain_beam_search,
    score,
)

from tinytransformer.candidates import Candidates, Rest
from tinytransformer.decoding import beam_search, greedy, length_penalty
from tinytransformer.ops import softmax
from tinytransformer.tape import recording
from tinytransformer.transformer import END, PAD, Transformer

SHAPES = {
    "plain": {},
    "post-norm, learned": {"norm": "post", "positions": "learned", "max_length": 16},
    "tied": {"tied_embeddings": True},
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def model(request, make_model):
    return make_model(V, **request.param)


@pytest.mark.parametrize(("alpha", "forbidden"), [(0.6, ()), (0.0, SPECIAL), (1.0, SPECIAL), (2.5, SPECIAL)])
def test_a_beam_wide_enough_finds_every_hypothesis_in_order(model, alpha, forbidden):
    """So the first is the best of all. Sentences of other lengths and limits in the batch change nothing."""
    limits = [4, 2, 1, 3, 4]
    beam = 800 if not forbidden else 32  # 156 finished and 625 cut hypotheses, or 15 and 16
    results = beam_search(model, SOURCES, limits, beam=beam, count=beam, forbidden=forbidden, alpha=alpha)
    for hypotheses, source, limit in zip(results, SOURCES, limits, strict=True):
        rows = every_hypothesis(model, source, limit, alpha, forbidden)
        assert len(rows) <= beam
        assert_same(hypotheses, rows)


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
@pytest.mark.parametrize("forbidden", [(), SPECIAL, (END, PAD)], ids=str)
def test_a_narrow_beam_follows_the_best_beginnings(model, beam, forbidden):
    """The search that ends early finds what the search to the limit finds."""
    limits = [9, 12, 5, 7, 1]
    for count, alpha in ((1, 0.6), (beam, 0.6), (1, 0.0), (2, 2.5)):
        options = {"beam": beam, "forbidden": forbidden, "alpha": alpha}
        results = beam_search(model, SOURCES, limits, count=count, **options)
        for hypotheses, source, limit in zip(results, SOURCES, limits, strict=True):
            assert_same(hypotheses, plain_beam_search(model, source, limit, **options)[0][:count])


def decoded(model, monkeypatch):
    """Return a list that every step of decoding extends: by the shape of what it is given, its position, the result."""
    steps, decode = [], model.decode

    def spy(target, *args, cache):
        position, output = cache.tree.length, decode(target, *args, cache=cache)
        steps.append((target.shape, position, output))
        return output

    monkeypatch.setattr(model, "decode", spy)
    return steps


def steps_needed(model, source, limit, count, alpha):
    """How many steps it takes until the best that is left cannot be among the best, were all that follows certain."""
    rows, best = plain_beam_search(model, source, limit, 3, alpha, SPECIAL)
    for steps, left in enumerate(best, start=1):
        to_beat = [row[2] for row in rows if row[3] and len(row[0]) < steps][count - 1 :]
        if to_beat and score(left, limit, alpha) <= to_beat[0]:
            return steps
    return len(best)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_search_ends_as_soon_as_no_beginning_can_come_among_the_best(make_model, monkeypatch, count, alpha):
    """Each sentence of a batch by its own limit: it is in as many steps as it must be."""
    limits, early = [20, 4, 9, 3, 15], 0
    for seed in range(4):
        model = make_model(V, seed=seed)
        needed = [steps_needed(model, *each, count, alpha) for each in zip(SOURCES, limits, strict=True)]
        steps = decoded(model, monkeypatch)
        beam_search(model, SOURCES, limits, beam=3, count=count, forbidden=SPECIAL, alpha=alpha)
        monkeypatch.undo()
        sentences = [shape[0] for shape, _, _ in steps]
        assert sentences == [sum(n > done for n in needed) for done in range(max(needed))]
        early += sum(n < limit for n, limit in zip(needed, limits, strict=True))
    assert early > 4


def test_a_sure_model_is_followed_past_improbable_ends(make_model, monkeypatch):
    """Where one beginning has nearly all of the probability, END is among the best of each step, and far behind.

    A search that ended when as many as `beam` had ended would return one of those.
    """
    model, wanted = make_model(V), [4, 5, 5, 4, 4, 5, 4, 5]
    steps = decoded(model, monkeypatch)

    def sure(candidates, features, count):
        logits = np.zeros((len(features), V))
        logits[:, END] = 2
        logits[:, [*wanted, END][len(steps) - 1]] = 20
        logs = np.log(softmax(logits).data)
        order = np.argsort(-logs, axis=1, kind="stable")[:, :count]
        return order, np.take_along_axis(logs, order, axis=1)

    monkeypatch.setattr(Candidates, "best", sure)
    ((best,),) = beam_search(model, [[4]], [20], beam=5)
    assert best.ids == wanted
    assert best.log_probability > -1e-6


def test_a_beginning_that_can_win_no_more_is_not_continued(make_model, monkeypatch):
    """END comes first with ln p = -1; over the longest translation that is as good as -2.4, and -3 is worse."""
    asked = []

    def best(candidates, features, count):
        asked.append(len(features))
        first = len(asked) == 1
        row = [END, 4, 5], [-1.0, -2.0, -3.0] if first else [-0.5, -9.0, -9.0]
        return (np.tile(part, (len(features), 1)) for part in row)

    monkeypatch.setattr(Candidates, "best", best)
    ((winner, second),) = beam_search(make_model(V), [[4]], [20], beam=3, count=2)
    assert asked == [1, 2]  # for the second best, -3 is still of use
    asked.clear()
    ((winner,),) = beam_search(make_model(V), [[4]], [20], beam=3)
    assert asked == [1, 1]
    assert (winner.ids, second.ids) == ([], [4])


@pytest.mark.parametrize("forbidden", [(), SPECIAL, (END,)], ids=str)
def test_greedy_search_takes_the_most_probable_token_each_time(model, forbidden):
    limits = [9, 12, 5, 7, 1]
    results = greedy(model, SOURCES, limits, forbidden=forbidden)
    for hypothesis, source, limit in zip(results, SOURCES, limits, strict=True):
        ids, total, finished = [], 0.0, False
        while len(ids) < limit and not finished:
            log_p = next_log_probabilities(model, source, [ids], forbidden)[0, -1]
            total += log_p.max()
            finished = log_p.argmax() == END
            ids += [] if finished else [log_p.argmax()]
        assert_same([hypothesis], [(ids, total, score(total, len(ids) + finished, 0.6), finished)])


def test_a_beam_of_one_is_greedy(make_model):
    ends = set()
    for seed in range(8):
        model = make_model(V, seed=seed)
        for alpha in (0.0, 0.6):
            one = beam_search(model, SOURCES, [10] * 5, beam=1, forbidden=SPECIAL, alpha=alpha)
            plain = greedy(model, SOURCES, [10] * 5, forbidden=SPECIAL, alpha=alpha)
            assert [len(hypotheses) for hypotheses in one] == [1] * 5
            assert_same([h for (h,) in one], [(h.ids, h.log_probability, h.score, h.finished) for h in plain])
            ends |= {h.finished for h in plain}
    assert ends == {True, False}  # the models end some sentences and run on in others


def searches(model, sources, limits, **options):
    return [
        [[h] for h in greedy(model, sources, limits, **options)],
        beam_search(model, sources, limits, beam=3, count=3, **options),
    ]


@pytest.mark.parametrize("shortlists", [None, SHORTLISTS], ids=["all tokens", "shortlists"])
def test_no_sentence_feels_the_others(model, shortlists):
    """Alone, in a batch, in another order, twice: the same hypotheses and probabilities."""
    limits = [9, 12, 5, 7, 1]
    rest = Rest(model)
    for kind, together in enumerate(searches(model, SOURCES, limits, shortlists=shortlists, rest=rest)):
        rows = [[(h.ids, h.log_probability, h.score, h.finished) for h in hypotheses] for hypotheses in together]
        orders = [[0], [1], [2], [3], [4], [4, 3, 2, 1, 0], [2, 0, 0, 3, 2, 1]]
        for order in orders:
            lists = shortlists and [shortlists[i] for i in order]
            sources, at_most = [SOURCES[i] for i in order], [limits[i] for i in order]
            again = searches(model, sources, at_most, shortlists=lists, rest=rest)[kind]
            for hypotheses, i in zip(again, order, strict=True):
                assert_same(hypotheses, rows[i])


@pytest.mark.parametrize("wrong", [{"count": 0}, {"alpha": -0.5}])
def test_a_search_for_none_or_for_the_shortest_is_refused(make_model, wrong):
    with pytest.raises(ValueError, match="expected at least 1 and 0"):
        beam_search(make_model(V), SOURCES, [5] * 5, beam=3, **wrong)


@pytest.mark.parametrize("limits", [[1, 1, 1, 1, 1], [3, 1, 7, 2, 5]])
def test_limits_hold(model, limits):
    """A translation that cannot end has exactly as many tokens as it may; one that can has at most as many."""
    for results in searches(model, SOURCES, limits, forbidden=(END,)):
        for hypotheses, limit in zip(results, limits, strict=True):
            assert all(len(h.ids) == limit and not h.finished for h in hypotheses)
    for results in searches(model, SOURCES, limits):
        for hypotheses, limit in zip(results, limits, strict=True):
            assert all(len(h.ids) + 1 <= limit if h.finished else len(h.ids) == limit for h in hypotheses)


def test_forbidden_ids_are_not_produced(make_model):
    free, bound = set(), set()
    for seed in range(8):
        model = make_model(V, seed=seed)
        for found, forbidden in ((free, ()), (bound, (*SPECIAL, 5))):
            for results in searches(model, SOURCES, [6] * 5, forbidden=forbidden):
                found |= {i for hypotheses in results for h in hypotheses for i in h.ids}
    assert free == {*SPECIAL, 4, 5}  # what is forbidden would have been produced
    assert bound == {4}


@pytest.mark.parametrize(
    ("length", "alpha", "value"),
    [(1, 0.6, 1), (7, 1, 2), (13, 1, 3), (7, 0.6, 2**0.6), (19, 0.5, 2), (19, 2, 16), (400, 0, 1)],
)
def test_the_length_penalty_is_that_of_equation_14(length, alpha, value):
    """lp(Y) = (5 + |Y|)^alpha / (5 + 1)^alpha"""
    assert length_penalty(length, alpha) == pytest.approx(value, rel=1e-14)
    assert length_penalty(length, alpha) == pytest.approx((5 + length) ** alpha / 6**alpha, rel=1e-14)


def test_without_a_length_penalty_the_score_is_the_log_probability(model):
    for results in searches(model, SOURCES, [6] * 5, alpha=0.0):
        assert all(h.score == h.log_probability for hypotheses in results for h in hypotheses)


def test_a_larger_alpha_favours_longer_translations(make_model):
    """Every log-probability is negative, and divided by more the longer the translation is."""
    lengths = []
    for alpha in (0.0, 0.6, 3.0):
        results = [beam_search(make_model(V, seed=s), SOURCES, [8] * 5, beam=4, alpha=alpha) for s in range(6)]
        lengths.append(sum(len(hypotheses[0].ids) for result in results for hypotheses in result))
    assert lengths[0] < lengths[1] < lengths[2]


@pytest.mark.parametrize("search", [greedy, lambda *args: beam_search(*args, beam=3)], ids=["greedy", "beam"])
def test_nothing_is_recorded_and_nothing_is_dropped(make_model, monkeypatch, search):
    """No step leaves a node on the tape or draws from a generator, and recording goes on afterwards."""
    model = make_model(V, dropout=0.5, attention_dropout=0.5)
    steps = decoded(model, monkeypatch)
    assert search(model, SOURCES, [5] * 5) == search(model, SOURCES, [5] * 5)
    assert steps
    assert not any(output.requires_grad for _, _, output in steps)
    assert not model.parameters.grad.any()
    assert recording.get()


def test_every_step_computes_one_position(make_model, monkeypatch):
    """The cache holds what was decoded before: the decoder is given one token at a time, at its place."""
    model = make_model(V)
    steps = decoded(model, monkeypatch)
    beam_search(model, SOURCES, [4] * 5, beam=2, forbidden=(END,))
    assert [step[:2] for step in steps] == [
        ((5, 1), 0),
        ((5, 2), 1),
        ((5, 2), 2),
        ((5, 2), 3),
    ]  # one beginning of each sentence, then the beam


def random_sources(count):
    random = np.random.default_rng(1)
    return [random.integers(4, V, size).tolist() for size in random.integers(1, 12, count)]


def said_by(model, source, hypothesis):
    """ln p of a hypothesis, by the whole model at once, without padding and without a cache."""
    said = [*hypothesis.ids, END] if hypothesis.finished else hypothesis.ids
    table = next_log_probabilities(model, source, [said[:-1]], SPECIAL)[0]
    return sum(table[t, token] for t, token in enumerate(said))


def test_float32_decodes_as_float64_does(model):
    """The same weights: the same log-probabilities to 1e-4, and but for near ties the same translations."""
    single = Transformer(model.config, np.random.default_rng(0), dtype=np.float32)
    single.parameters.data[...] = model.parameters.data
    model.parameters.data[...] = single.parameters.data  # rounded alike
    sources, different = random_sources(60), 0
    limits = [8] * len(sources)
    pairs = zip(*(searches(m, sources, limits, forbidden=SPECIAL) for m in (single, model)), strict=True)
    for found, exact in pairs:  # greedy search, and then a beam of three
        different += sum(h[0].ids != other[0].ids for h, other in zip(found, exact, strict=True))
        for source, hypotheses in zip(sources, found, strict=True):
            for h in hypotheses:
                assert h.log_probability == pytest.approx(said_by(model, source, h), abs=1e-4)
                assert h.log_probability == pytest.approx(said_by(single, source, h), abs=1e-4)  # without a cache
    print(f"\n{different} of {2 * len(sources)} translations in float32 differ from those in float64")
    assert different <= len(sources) // 20
