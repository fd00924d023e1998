"""Sampling: every token is drawn from what the model holds probable, cut and warmed as asked for."""

import itertools
import math

import numpy as np
import pytest

from tinytransformer.candidates import Candidates
from tinytransformer.decoding import Sampling, greedy, sample
from tinytransformer.tape import recording
from tinytransformer.transformer import BEGIN, END, PAD, UNKNOWN
from tinytransformer.translation import Search, Translator

V = 8  # the four special tokens and four more
SPECIAL = (PAD, UNKNOWN, BEGIN)
SOURCES = [[4, 5, 6, 4], [7], [], [4, 4, 5, 5, 7, 5, 6], [5, 4]]
DRAWS, LIMIT = 6000, 2
SAMPLINGS = {
    "as it is": Sampling(),
    "warm": Sampling(temperature=2.0),
    "cool": Sampling(temperature=0.4),
    "top_k": Sampling(top_k=3),
    "top_k of more than there are": Sampling(top_k=99),
    "top_p": Sampling(top_p=0.7),
    "all at once": Sampling(temperature=1.5, top_k=4, top_p=0.8),
}


def test_without_a_wish_the_model_s_own_probabilities_are_drawn_from():
    assert Sampling() == Sampling(seed=1, temperature=1.0, top_k=None, top_p=1.0)


def generators(count, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(count)]


def next_log_probabilities(model, source, beginning, forbidden):
    """ln p of every token after `beginning`, by the whole model, without a cache."""
    logits = model(np.array([[*source, END]]), np.array([[BEGIN, *beginning]])).data[0, -1].tolist()
    total = math.log(math.fsum(map(math.exp, logits)))
    return [-math.inf if i in forbidden else logits[i] - total for i in range(len(logits))]


def chances(log_p, sampling):
    """The chance of each token, by a plain loop: cool or warm, keep the best k, keep the fewest that reach p."""
    weights = [math.exp(x / sampling.temperature) for x in log_p]
    ranking = sorted(range(len(weights)), key=lambda i: -weights[i])[: sampling.top_k]
    total = sum(weights[i] for i in ranking)
    kept, reached = [], 0.0
    for i in ranking:
        kept.append(i)
        reached += weights[i] / total
        if reached >= sampling.top_p:
            break
    total = sum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


def outcomes(model, source, sampling, forbidden, beginning=()):
    """Return the chance of everything that can be drawn: {(ids, finished): chance}."""
    if len(beginning) == LIMIT:
        return {(beginning, False): 1.0}
    found = {}
    for token, chance in enumerate(chances(next_log_probabilities(model, source, beginning, forbidden), sampling)):
        if token == END:
            found[beginning, True] = chance
        elif chance:
            rest = outcomes(model, source, sampling, forbidden, (*beginning, token))
            found |= {what: chance * part for what, part in rest.items()}
    return found


def surprise(counts, expected):
    """Pearson's chi-square, by how many of its standard deviations it lies above its mean; rare outcomes together."""
    pairs = [(counts.get(what, 0), DRAWS * chance) for what, chance in expected.items()]
    rare = [pair for pair in pairs if pair[1] < 5]
    pairs = [pair for pair in pairs if pair[1] >= 5] + ([tuple(map(sum, zip(*rare, strict=True)))] if rare else [])
    freedom = max(len(pairs) - 1, 1)
    chi_square = sum((found - wanted) ** 2 / wanted for found, wanted in pairs if wanted)
    return (chi_square - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("forbidden", [(), SPECIAL], ids=["all", "forbidden"])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_tokens_are_drawn_from_the_distribution_that_is_asked_for(make_model, sampling, forbidden, dtype):
    """Every sequence comes as often as it should, within six standard deviations; what has no chance never comes."""
    model = make_model(V, dtype=dtype, scale=1.0)
    source, counts = SOURCES[0], {}
    drawn = sample(model, [source] * DRAWS, [LIMIT] * DRAWS, generators(DRAWS), sampling, forbidden=forbidden)
    for h in drawn:
        counts[tuple(h.ids), h.finished] = counts.get((tuple(h.ids), h.finished), 0) + 1
    expected = outcomes(model, source, sampling, forbidden)
    assert sum(expected.values()) == pytest.approx(1)
    assert len(expected) > 3
    assert set(counts) <= {what for what, chance in expected.items() if chance}
    assert surprise(counts, expected) < 6
    others = [outcomes(model, source, other, forbidden) for other in (Sampling(), Sampling(temperature=3.0))]
    assert max(surprise(counts, other) for other in others) > 6  # another distribution would be noticed


def test_the_log_probability_is_the_models_own(make_model):
    """Whatever the temperature, and over all that may be said: as for greedy search."""
    model = make_model(V)
    sampling = Sampling(temperature=3.0, top_k=5)
    drawn = sample(model, SOURCES * 4, [6] * 20, generators(20), sampling, forbidden=SPECIAL, alpha=1.0)
    assert {h.finished for h in drawn} == {True, False}
    for h, source in zip(drawn, SOURCES * 4, strict=True):
        said = [*h.ids, END] if h.finished else h.ids
        total = sum(next_log_probabilities(model, source, said[:i], SPECIAL)[said[i]] for i in range(len(said)))
        assert h.log_probability == pytest.approx(total, abs=1e-10)
        assert h.score == pytest.approx(total * 6 / (5 + len(said)), abs=1e-10)
        assert len(said) <= 6


def same(drawn, hypotheses):
    pairs = zip(drawn, hypotheses, strict=True)
    return [x.ids == y.ids and abs(x.log_probability - y.log_probability) < 1e-10 for x, y in pairs]


@pytest.mark.parametrize("only", [{"top_k": 1}, {"top_k": 1, "temperature": 5.0}, {"top_p": 1e-9}], ids=str)
def test_a_draw_from_one_token_is_greedy(make_model, only):
    """The same tokens, and their log-probabilities, which are not those of the one that was left."""
    for seed in range(4):
        model = make_model(V, seed=seed)
        best = greedy(model, SOURCES, [9] * 5, forbidden=SPECIAL)
        drawn = sample(model, SOURCES, [9] * 5, generators(5), Sampling(**only), forbidden=SPECIAL)
        assert all(same(drawn, best))
        assert all(h.log_probability < -1e-6 for h in drawn)


def test_the_colder_the_more_greedy(make_model):
    shares = []
    for temperature in (3.0, 1.0, 0.3, 1e-3, 1e-6):
        agreeing = []
        for seed in range(8):
            model = make_model(V, seed=seed)
            best = greedy(model, SOURCES * 4, [9] * 20, forbidden=SPECIAL)
            cold = Sampling(temperature=temperature)
            drawn = sample(model, SOURCES * 4, [9] * 20, generators(20), cold, forbidden=SPECIAL)
            agreeing += same(drawn, best)
        shares.append(np.mean(agreeing))
    assert shares == sorted(shares)
    assert shares[0] < 0.2
    assert shares[-1] == 1


def test_what_is_drawn_comes_from_the_generator_alone(make_model):
    """The same again, another with another seed; alone, in any batch and in any order."""
    model, limits = make_model(V), [9, 12, 5, 7, 1]

    def draw(order, seed=0):
        own = [generators(5, seed)[i] for i in order]
        texts, most = [SOURCES[i] for i in order], [limits[i] for i in order]
        return [(h.ids, h.finished) for h in sample(model, texts, most, own, Sampling(temperature=2.0))]

    together = draw(range(5))
    assert draw(range(5)) == together
    assert draw(range(5), seed=1) != together
    for order in ([0], [1], [2], [3], [4], [4, 3, 2, 1, 0], [2, 0, 0, 3]):
        assert draw(order) == [together[i] for i in order]


def test_forbidden_ids_are_never_drawn(make_model):
    free, bound = set(), set()
    hot = Sampling(temperature=100.0)
    for found, forbidden in ((free, ()), (bound, (*SPECIAL, 5))):
        drawn = sample(make_model(V), SOURCES * 100, [5] * 500, generators(500), hot, forbidden=forbidden)
        found |= set(itertools.chain.from_iterable(h.ids for h in drawn))
    assert free == {*SPECIAL, 4, 5, 6, 7}
    assert bound == {4, 6, 7}


def test_nothing_is_recorded(make_model):
    model = make_model(V, dropout=0.5, attention_dropout=0.5)
    first, again = (sample(model, SOURCES, [5] * 5, generators(5), Sampling()) for _ in range(2))
    assert first == again
    assert recording.get()


LINES = ["The old man sees the dog.", "", "Dog.", "Is she ill?", "Dog.", "The old man sees the dog.", "Dog."]


def test_a_line_draws_by_its_number_in_the_text(make_model, tokenizer, monkeypatch):
    """From (seed, number), so a text may be cut anywhere, and batches have any size."""
    translator = Translator(make_model(len(tokenizer)), tokenizer, 0.5)
    whole = translator.translate(LINES, Search(sampling=Sampling(seed=3)))
    assert len(set(whole)) == len(LINES)
    for cut in (1, 3, 6):
        rest = Search(sampling=Sampling(seed=3), first_line=cut)
        assert translator.translate(LINES[cut:], rest) == whole[cut:]
    monkeypatch.setattr("tinytransformer.translation.BATCH_TOKENS", 1)
    assert translator.translate(LINES, Search(sampling=Sampling(seed=3))) == whole
    assert translator.translate(LINES, Search(sampling=Sampling(seed=4))) != whole
    assert all(len(found) == 1 for found in translator.hypotheses(LINES[2:], Search(sampling=Sampling())))


@pytest.mark.parametrize("shift", [10_000.0, -10_000.0])
def test_logits_that_are_all_moved_alike_change_no_draw(make_model, monkeypatch, shift):
    """However large they are: e to the power of them is beyond float64."""
    model, logits, warm = make_model(V), Candidates.logits, Sampling(temperature=3.0)
    expected = sample(model, SOURCES * 20, [9] * 100, generators(100), warm)
    monkeypatch.setattr(Candidates, "logits", lambda *arguments: tuple(x + shift for x in logits(*arguments)))
    found = sample(model, SOURCES * 20, [9] * 100, generators(100), warm)
    assert [h.ids for h in found] == [h.ids for h in expected]


@pytest.mark.filterwarnings("error")
def test_the_smallest_temperature_is_greedy_without_a_word(make_model):
    model = make_model(V)
    drawn = sample(model, SOURCES, [9] * 5, generators(5), Sampling(temperature=5e-324))
    assert [h.ids for h in drawn] == [h.ids for h in greedy(model, SOURCES, [9] * 5)]


def test_what_is_drawn_is_scored_as_what_is_found(make_model):
    """With the same alpha where nothing else is asked for."""
    model, sure = make_model(V), Sampling(top_k=1)
    drawn = sample(model, SOURCES, [9] * 5, generators(5), sure)
    assert [h.score for h in drawn] == pytest.approx([h.score for h in greedy(model, SOURCES, [9] * 5)])
