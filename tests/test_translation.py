"""Lines in, lines out: one for one, in order, whatever the lines hold and however they are batched."""

import math
import threading
import time

import numpy as np
import pytest
from test_workers import KINDS

from tinytransformer.backend import shared
from tinytransformer.candidates import Rest
from tinytransformer.checkpoint import RunConfig, save_config, save_weights
from tinytransformer.data import encode_corpus
from tinytransformer.decoding import Sampling, beam_search, greedy
from tinytransformer.shortlist import learn
from tinytransformer.transformer import BEGIN, END, PAD, UNKNOWN
from tinytransformer.translation import Search, Translator
from tinytransformer.workers import Process

LINES = [
    "The old man sees the dog.",
    "",
    "Dog.",
    "   ",
    "In the evening a tired girl must play loudly in front of the station and the old man sees her.",
    "\t",
    "Is she ill?",
    "The old man sees the dog.",
    "\u2028\x85",
    "犬 \U0001f415",
]
BLANK = [1, 3, 5, 8]


@pytest.fixture(scope="module")
def translator(make_model, tokenizer):
    return Translator(make_model(len(tokenizer)), tokenizer, 0.5)


@pytest.fixture(scope="module")
def shortlist(toy_text, tokenizer):
    return learn(encode_corpus(tokenizer, *toy_text, 256).pairs, len(tokenizer), np.random.default_rng(0))


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("with_shortlist", [False, True])
def test_every_line_is_translated_in_its_place(translator, shortlist, beam, with_shortlist):
    """As alone, so in any batch; nothing comes of nothing."""
    search = Search(beam=beam)
    if with_shortlist:
        translator = Translator(translator.model, translator.tokenizer, 0.5, shortlist)
    translations = translator.translate(LINES, search)
    assert translations == [translator.translate([line], search)[0] for line in LINES]
    assert [i for i, line in enumerate(translations) if line == ""] == BLANK
    assert translations[0] == translations[7]
    assert len(set(translations)) == len(LINES) - len(BLANK)
    backward = translator.translate(LINES[::-1], search)
    assert backward == translations[::-1]


@pytest.mark.parametrize("batch_tokens", [1, 40, 100])
@pytest.mark.parametrize("beam", [1, 3])
def test_the_size_of_batches_does_not_matter(translator, monkeypatch, batch_tokens, beam):
    """It bounds what is decoded together, padding and beam included; a longer line goes alone."""
    expected, sizes, search = translator.translate(LINES, Search(beam=beam)), [], translator._search

    def spy(batch, sources, how):
        sizes.append((len(batch), max(len(sources[i]) for i in batch) + 1))
        return search(batch, sources, how)

    monkeypatch.setattr(translator, "_search", spy)
    monkeypatch.setattr("tinytransformer.translation.BATCH_TOKENS", batch_tokens)
    monkeypatch.setattr("tinytransformer.translation.cores", lambda x: 1)
    assert translator.translate(LINES, Search(beam=beam)) == expected
    assert all(count * longest * (1 + beam) <= batch_tokens or count == 1 for count, longest in sizes)
    counts = [count for count, _ in sizes]
    assert sum(counts) == len(LINES) - len(BLANK)
    assert batch_tokens < 100 or beam > 1 or max(counts) > 1


def test_where_there_are_shortlists_batches_of_greedy_search_are_smaller(translator, shortlist, monkeypatch):
    """For each shortlist columns of the projection are kept, whatever the beam."""
    restricted, sizes = Translator(translator.model, translator.tokenizer, 0.5, shortlist), []
    monkeypatch.setattr(restricted, "_search", lambda batch, *_: sizes.append(len(batch)) or [[] for _ in batch])
    monkeypatch.setattr("tinytransformer.translation.BATCH_TOKENS", 120)
    monkeypatch.setattr("tinytransformer.translation.cores", lambda x: 1)
    for search in (Search(), Search(beam=5), Search(beam=29)):
        restricted.translate(["Dog."] * 20, search)
        sizes.append(0)
    length = len(translator.tokenizer.encode("Dog.")) + 1
    assert sizes[0] == 120 // 6 // length
    greedy_sizes, rest = sizes[: sizes.index(0)], sizes[sizes.index(0) + 1 :]
    assert greedy_sizes == rest[: rest.index(0)]
    assert rest[-2] == max(1, 120 // 30 // length)


@pytest.mark.parametrize("how", [Search(beam=2), Search(sampling=Sampling(seed=3))], ids=["beam", "sampling"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_cores_does_not_matter(translator, monkeypatch, kind, how):
    """They share the batches, however many they are; each has its own, and every line its place."""
    monkeypatch.setattr("tinytransformer.translation.BATCH_TOKENS", 1)
    monkeypatch.setattr("tinytransformer.translation.WORTH_A_CORE", 1)
    monkeypatch.setattr("tinytransformer.backend.sys.platform", "linux" if kind is Process else "elsewhere")
    found = []
    for cores in (1, 3):
        monkeypatch.setattr("tinytransformer.translation.cores", lambda x, cores=cores: cores)
        another, who = Translator(translator.model, translator.tokenizer, 0.5), shared(np.zeros(len(LINES)))

        def spy(batch, *arguments, search=another._search, who=who, cores=cores):
            who[batch[0]] = threading.get_native_id()
            until = time.monotonic() + 60
            while len(set(who.tolist()) - {0}) < cores:
                assert time.monotonic() < until, "not all take part"
                time.sleep(0.001)
            return search(batch, *arguments)

        monkeypatch.setattr(another, "_search", spy)
        found.append(another.hypotheses(LINES, how))
        assert len(set(who.tolist()) - {0}) == cores
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["here", "in the worker"])
def test_an_error_in_a_batch_ends_the_translation(translator, monkeypatch, kind, where):
    """Whoever has not failed stops after the batch at hand."""
    monkeypatch.setattr("tinytransformer.translation.BATCH_TOKENS", 1)
    monkeypatch.setattr("tinytransformer.translation.WORTH_A_CORE", 1)
    monkeypatch.setattr("tinytransformer.translation.cores", lambda x: 2)
    monkeypatch.setattr("tinytransformer.backend.sys.platform", "linux" if kind is Process else "elsewhere")
    begun, here = shared(np.zeros(1000)), threading.get_native_id()

    def fail(batch, *_):
        begun[batch[0]] = 1
        if (threading.get_native_id() == here) == (where == "here"):
            raise MemoryError
        time.sleep(0.01 if where == "here" else 0)
        return [[] for _ in batch]

    monkeypatch.setattr(translator, "_search", fail)
    with pytest.raises(MemoryError):
        translator.translate(["a"] * 1000)
    assert begun.sum() < (100 if where == "here" else 502)


@pytest.mark.parametrize("lines", [[], [""], ["", " "]])
def test_nothing_to_translate(translator, lines):
    assert translator.translate(lines) == [""] * len(lines)
    assert translator.hypotheses(lines) == [[] for _ in lines]


def test_what_is_searched_is_what_is_said(translator, tokenizer):
    """The ids of the line, the limit, the forbidden ids, beam and alpha reach the search; the best is decoded."""
    line = LINES[0]
    source = tokenizer.encode(line)
    limits, forbidden = [translator.limit(len(source))], tokenizer.forbidden()
    best = greedy(translator.model, [source], limits, forbidden=forbidden)[0]
    assert translator.translate([line]) == [tokenizer.decode(best.ids)]
    for alpha in (0.0, 3.0):
        for most in (None, 3, 50):
            limits = [most or translator.limit(len(source))]
            options = {"beam": 4, "count": 4, "alpha": alpha}
            (found,) = beam_search(translator.model, [source], limits, forbidden=forbidden, **options)
            search = Search(max_length=most, **options)
            assert translator.translate([line], search) == [tokenizer.decode(found[0].ids)]
            ((*translations,),) = translator.hypotheses([line], search)
            assert [(t.text, t.score) for t in translations] == [(tokenizer.decode(h.ids), h.score) for h in found]
            assert len(translations) == 4


def test_shortlists_are_those_of_the_lines(translator, shortlist, tokenizer):
    """Searches look at nothing else; what is drawn may be any token."""
    restricted = Translator(translator.model, tokenizer, 0.5, shortlist)
    lines = [LINES[0], LINES[6]]
    sources = [tokenizer.encode(line) for line in lines]
    lists = [shortlist.of(source) for source in sources]
    options = {"forbidden": tokenizer.forbidden(), "shortlists": lists, "rest": Rest(translator.model)}
    limits = [restricted.limit(len(source)) for source in sources]
    beam = beam_search(translator.model, sources, limits, beam=3, **options)
    plain = [[h] for h in greedy(translator.model, sources, limits, **options)]
    for search, found in ((Search(beam=3), beam), (Search(), plain)):
        expected = [[(tokenizer.decode(h.ids), h.score) for h in hypotheses] for hypotheses in found]
        assert [[(t.text, t.score) for t in found] for found in restricted.hypotheses(lines, search)] == expected
        assert restricted.translate(lines, search) != translator.translate(lines, search)
    drawn = Search(sampling=Sampling(seed=3))
    assert restricted.translate(lines, drawn) == translator.translate(lines, drawn)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_greedy_search_scores_as_a_beam_of_one_would(translator, tokenizer, alpha):
    """And as sampling would that has nothing to choose from."""
    (found,) = translator.hypotheses([LINES[0]], Search(alpha=alpha))
    (drawn,) = translator.hypotheses([LINES[0]], Search(alpha=alpha, sampling=Sampling(top_k=1)))
    assert [(t.text, pytest.approx(t.score)) for t in drawn] == [(t.text, t.score) for t in found]
    source = tokenizer.encode(LINES[0])
    limits, forbidden = [translator.limit(len(source))], tokenizer.forbidden()
    ((best,),) = beam_search(translator.model, [source], limits, beam=1, forbidden=forbidden, alpha=alpha)
    assert [t.text for t in found] == [tokenizer.decode(best.ids)]
    assert found[0].score == pytest.approx(best.score, rel=1e-9)


def wishing_model(make_model, wishes, vocabulary):
    """A model that wants the ids of `wishes` at every step, the first most, and never to end."""
    model = make_model(vocabulary)
    norm = model.decoder.norm
    norm.gain.data[...] = 0
    norm.bias.data[...] = np.arange(len(norm.bias.data)) == 0  # so the logits are the first row of the output weights
    row = model.output.weight.data[0]
    row[...] = -np.arange(vocabulary)
    row[list(wishes)] = 1000 - 10 * np.arange(len(wishes))
    row[END] = -10_000
    return model


@pytest.mark.parametrize("beam", [1, 2, 4])
def test_no_translation_breaks_its_line(make_model, tokenizer, beam):
    """A model that wants nothing but line breaks and special ids has to say the next best thing."""
    breaks = [i for i in range(len(tokenizer)) if {"\n", "\r"} & set(tokenizer.decode([i]))]
    word = tokenizer.encode("Mann")[-1]
    model = wishing_model(make_model, [*breaks, UNKNOWN, PAD, BEGIN, word], len(tokenizer))
    translator = Translator(model, tokenizer, 1.5)
    for line, translation in zip(LINES, translator.translate(LINES, Search(beam=beam)), strict=True):
        count = 0 if not line.strip() else math.ceil(1.5 * len(tokenizer.encode(line))) + 10
        if beam == 1:
            assert translation == tokenizer.decode([word] * count)  # until the limit
        assert not {"\n", "\r"} & set(translation)
        assert bool(translation) == bool(count)


@pytest.mark.parametrize(("length", "limit"), [(0, 10), (1, 12), (4, 16), (10, 25)])
def test_the_limit_follows_the_length_ratio(make_model, tokenizer, length, limit):
    assert Translator(make_model(9), tokenizer, 1.5).limit(length) == limit


@pytest.mark.parametrize("longest", [1, 2, 8])
@pytest.mark.parametrize("beam", [1, 3])
def test_of_a_line_longer_than_the_positions_the_beginning_is_translated(make_model, tokenizer, longest, beam):
    """The source with END and the translation with BEGIN have as many tokens as there are positions."""
    model = make_model(len(tokenizer), positions="learned", max_length=longest)
    translator = Translator(model, tokenizer, 2.0)
    assert translator.longest == longest
    assert translator.is_too_long(LINES[4])
    assert not translator.is_too_long("")
    source = tokenizer.encode(LINES[4])[: longest - 1]
    best = beam_search(model, [source], [longest], beam=beam, forbidden=tokenizer.forbidden())[0][0]
    for most in (None, 400):  # what is asked for cannot go beyond it
        search = Search(beam=beam, max_length=most)
        assert translator.translate(["", LINES[4]], search) == ["", tokenizer.decode(best.ids)]


def test_a_line_is_too_long_from_as_many_subwords_as_there_are_positions(make_model, tokenizer):
    """Since END stands behind it."""
    length = len(tokenizer.encode(LINES[4]))
    cases = (("learned", length, True), ("learned", length + 1, False), ("sinusoidal", 4, False))
    for positions, longest, too_long in cases:
        model = make_model(len(tokenizer), positions=positions, max_length=longest)
        assert Translator(model, tokenizer, 1.0).is_too_long(LINES[4]) == too_long


def test_sinusoidal_positions_reach_beyond_those_of_the_training(make_model, tokenizer):
    translator = Translator(make_model(len(tokenizer), max_length=4), tokenizer, 0.01)
    assert translator.limit(5000) == 60
    short, long = translator.translate([LINES[4], LINES[4] * 3])
    assert short
    assert long


@pytest.mark.parametrize(("trained", "longest"), [(4, 1024), (1024, 1024), (1500, 1500)])
def test_of_a_line_of_a_megabyte_the_beginning_is_translated(make_model, tokenizer, trained, longest):
    """Where positions set no end, as many tokens as attention has memory for, or as were trained."""
    translator = Translator(make_model(len(tokenizer), max_length=trained), tokenizer, 0.001)
    assert translator.longest == longest
    line = "The old man sees the dog. " * 40_000
    assert len(line) > 1_000_000
    ids = tokenizer.encode(line)
    beginning = tokenizer.decode(ids[: longest - 1])
    assert tokenizer.encode(beginning) == ids[: longest - 1]
    assert translator.is_too_long(line)
    assert not translator.is_too_long(beginning)
    assert translator.translate([line, beginning, "Dog."])[:2] == translator.translate([beginning]) * 2


def test_a_translator_is_loaded_from_a_run(make_model, tokenizer, tmp_path):
    model = make_model(len(tokenizer), dtype=np.float32)
    save_config(tmp_path, RunConfig(model.config, 0.75, {}))
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    save_weights(tmp_path / "model.safetensors", model)
    translator = Translator.load(tmp_path)
    assert translator.length_ratio == 0.75
    assert translator.translate(LINES) == Translator(model, tokenizer, 0.75).translate(LINES)
