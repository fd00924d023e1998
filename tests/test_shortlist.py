"""What translates what, held against model 1 in plain dictionaries; and the file that keeps it."""

from collections import defaultdict

import numpy as np
import pytest
import safetensors.numpy
from slow_searches import SHORTLISTS, SOURCES, SPECIAL, V, assert_same, plain_beam_search

from tinytransformer import shortlist as module
from tinytransformer.checkpoint import CheckpointError
from tinytransformer.decoding import beam_search, greedy
from tinytransformer.reading import digest
from tinytransformer.shortlist import NAME, Shortlist, learn
from tinytransformer.tensor import Tensor
from tinytransformer.transformer import BEGIN, END, PAD

THE, A, HOUSE, BOOK = 4, 5, 6, 7
DAS, EIN, HAUS, BUCH = 8, 9, 10, 11
LESSON = [([THE, HOUSE], [DAS, HAUS]), ([THE, BOOK], [DAS, BUCH]), ([A, BOOK], [EIN, BUCH])]


def model_1(pairs, rounds):
    """Return t(f | e) by (e, f)."""
    t = defaultdict(lambda: 1.0)
    for _ in range(rounds):
        counts, sums = defaultdict(float), defaultdict(float)
        for source, target in pairs:
            for f in target:
                whole = sum(t[e, f] for e in source)
                for e in source:
                    counts[e, f] += t[e, f] / whole
                    sums[e] += t[e, f] / whole
        t = {(e, f): count / sums[e] for (e, f), count in counts.items()}
    return t


def random_pairs(seed, count=40, vocabulary=20):
    """Tokens mean the token ten above them, now and then another; and some stand twice in a sentence."""
    random = np.random.default_rng(seed)
    pairs = []
    for length in random.integers(1, 7, count):
        source = random.integers(4, vocabulary // 2, length)
        target = np.where(random.random(length) < 0.8, source + 10, random.integers(4, vocabulary, length))
        pairs.append((source.tolist(), random.permutation(target)[: random.integers(1, length + 1)].tolist()))
    return pairs


def test_what_occurs_together_is_told_from_what_translates():
    """DAS stands beside BOOK as often as BUCH beside THE; the other sentences tell."""
    found = learn(LESSON, 12)
    assert [found.translations[e, 0] for e in (THE, A, HOUSE, BOOK)] == [DAS, EIN, HAUS, BUCH]


@pytest.mark.parametrize("seed", range(5))
def test_translations_are_the_likeliest_of_model_1(seed, monkeypatch):
    monkeypatch.setattr(module, "TRANSLATIONS", 3)
    pairs = random_pairs(seed)
    t = model_1(pairs, module.ROUNDS)
    found = learn(pairs, 20).translations
    assert found.shape == (20, 3)
    for e in range(20):
        likeliest = sorted((value for (source, _), value in t.items() if source == e), reverse=True)[:3]
        chosen = [t[e, f] for f in found[e].tolist() if (e, f) in t]
        np.testing.assert_allclose(chosen, likeliest, rtol=1e-12)
        assert len(set(found[e].tolist())) == min(3, len(likeliest) + 1)  # each once; what is left is END
        assert found[e, len(likeliest) :].tolist() == [END] * (3 - len(likeliest))


def test_the_likeliest_translation_is_the_right_one():
    found = learn(random_pairs(7, count=400), 20).translations
    assert found[4:10, 0].tolist() == list(range(14, 20))


def test_frequent_are_the_target_tokens_that_occur_most(monkeypatch):
    monkeypatch.setattr(module, "FREQUENT", 3)
    pairs = [([4], [9, 9, 8]), ([5, 5, 5, 5], [7, 9, 8]), ([6], [6])]
    assert learn(pairs, 12).frequent.tolist() == [9, 8, 6]  # of equal ones the first


def test_a_shortlist_is_what_is_frequent_what_stands_there_and_what_translates_that():
    translations = np.full((12, 2), END)
    translations[THE], translations[BOOK] = [DAS, EIN], [BUCH, END]
    shortlist = Shortlist(translations, np.array([DAS, 0]))
    assert shortlist.of([BOOK, THE, BOOK]).tolist() == [END, DAS, 0, BOOK, THE, BUCH, EIN]
    assert shortlist.of([A]).tolist() == [END, DAS, 0, A]
    assert shortlist.of([]).tolist() == [END, DAS]  # there is room for as many as are frequent


def test_on_a_shortlist_what_is_likeliest_comes_first(monkeypatch):
    monkeypatch.setattr(module, "ROOM", 3)
    translations = np.arange(4, 34).reshape(3, 10)
    shortlist = Shortlist(translations, np.array([3]))
    assert shortlist.of([0, 2]).tolist() == [END, 0, 2, 4, 24, 5, 25]
    assert shortlist.of([1]).tolist() == [END, 1, 14, 15]


def test_of_a_large_corpus_a_part_is_learned_from(monkeypatch):
    """Every n-th pair, and of long ones the beginning; what is frequent is counted in all."""
    pairs = [pair for pair in random_pairs(1, count=60) if len(pair[0]) > 2]
    monkeypatch.setattr(module, "LONGEST", 3)
    cut = [(source[:3], target[:3]) for source, target in pairs]
    meetings = sum(len(source) * len(target) for source, target in cut)
    for share in (1, 2, 3, 7):
        monkeypatch.setattr(module, "MOST", -(-meetings // share))
        found = learn(pairs, 20)
        monkeypatch.setattr(module, "MOST", meetings)
        np.testing.assert_array_equal(found.translations, learn(cut[::share], 20).translations)
        np.testing.assert_array_equal(found.frequent, learn(pairs, 20).frequent)


def test_a_single_pair_without_end_takes_little_memory():
    found = learn([([4, 5] * 50_000, [6, 7] * 50_000)], 8)
    assert set(found.translations[4, :2].tolist()) == {6, 7}


# --- The file


@pytest.fixture
def kept(tmp_path):
    """A shortlist, and the directory that it was saved in."""
    shortlist = learn(LESSON, 12)
    shortlist.save(tmp_path)
    return shortlist, tmp_path


def test_a_shortlist_is_read_back(kept):
    shortlist, directory = kept
    again = Shortlist.load(directory, 12)
    for array, same in zip(vars(shortlist).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(array, same)
        assert array.dtype == same.dtype == np.int32
    before = (directory / NAME).read_bytes()
    again.save(directory)
    assert (directory / NAME).read_bytes() == before


def arrays(**changes):
    return {"translations": np.zeros((12, 2), np.int32), "frequent": np.zeros(3, np.int32), **changes}


WRONG = [
    (arrays(translations=np.zeros((11, 2), np.int32)), "translations has shape (11, 2), expected (12, 2)"),
    (arrays(translations=np.zeros(12, np.int32)), "translations has shape (12,), expected (12, 2)"),
    (arrays(frequent=np.zeros(4, np.int32)), "frequent has shape (4,), expected (3,)"),
    (arrays(translations=np.zeros((12, 2), np.float32)), "translations has elements of type F32, expected int32"),
    (arrays(frequent=np.full(3, 12, np.int32)), "frequent holds 12, which is no id of 12 tokens"),
    (arrays(translations=np.full((12, 2), -1, np.int32)), "translations holds -1, which is no id of 12 tokens"),
    ({"translations": np.zeros((12, 2), np.int32)}, "frequent is missing"),
    (arrays(more=np.zeros(2, np.int32)), "more is unknown"),
]


@pytest.mark.parametrize(("content", "words"), WRONG)
def test_a_file_that_is_no_shortlist_of_this_vocabulary_is_refused(tmp_path, monkeypatch, content, words):
    monkeypatch.setattr(module, "TRANSLATIONS", 2)
    monkeypatch.setattr(module, "FREQUENT", 3)
    safetensors.numpy.save_file(content, tmp_path / NAME, metadata={"sha256": digest(content)})
    with pytest.raises(CheckpointError) as caught:
        Shortlist.load(tmp_path, 12)
    assert str(caught.value).startswith(f"{tmp_path / NAME}: ")
    assert words in str(caught.value)


def test_a_missing_or_damaged_file_is_named(kept):
    _, directory = kept
    path, content = directory / NAME, bytearray((directory / NAME).read_bytes())
    content[-1] ^= 1
    for damaged, words in ((bytes(content), "its content has changed"), (bytes(content[:50]), "Error"), (b"", "Error")):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=words) as caught:
            Shortlist.load(directory, 12)
        assert str(caught.value).startswith(f"{path}: ")
    path.unlink()
    with pytest.raises(CheckpointError, match=r"does not exist; train\.py writes it, also with --resume"):
        Shortlist.load(directory, 12)


# --- Searches


def limited_to(model, ids):
    """As a model whose vocabulary is these ids."""

    def logits(sources, targets):
        of_all = model(sources, targets).data
        of_all[..., np.setdiff1d(range(V), ids)] = -np.inf
        return Tensor(of_all)

    return logits


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_search_over_shortlists_is_that_of_a_model_that_has_no_other_tokens(make_model, beam):
    """Each sentence has its own; what is forbidden has no part in the probabilities either."""
    model, limits = make_model(V), [9, 12, 5, 7, 4]
    for options in ({"alpha": 0.6, "forbidden": SPECIAL}, {"alpha": 0.0, "forbidden": ()}):
        found = beam_search(model, SOURCES, limits, beam=beam, count=beam, shortlists=SHORTLISTS, **options)
        for i, (source, limit, ids) in enumerate(zip(SOURCES, limits, SHORTLISTS, strict=True)):
            alone = limited_to(model, np.setdiff1d(ids, options["forbidden"]))
            expected = plain_beam_search(alone, source, limit, beam=beam, alpha=options["alpha"], forbidden=())
            assert_same(found[i], expected[0][:beam])
        if beam == 1:
            one = greedy(model, SOURCES, limits, shortlists=SHORTLISTS, **options)
            assert_same(one, [(h.ids, h.log_probability, h.score, h.finished) for (h,) in found])


def test_a_shortlist_of_nothing_is_refused(make_model):
    for search in (greedy, lambda *args, **options: beam_search(*args, beam=2, **options)):
        with pytest.raises(ValueError, match=r"^shortlist 1 holds no id that is not forbidden$"):
            search(make_model(V), [[4], [5]], [3, 3], shortlists=[[END], [PAD, BEGIN]], forbidden=SPECIAL)
