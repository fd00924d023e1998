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


def learned(pairs, vocabulary, seed=0):
    return learn(pairs, vocabulary, np.random.default_rng(seed))


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
    found = learned(LESSON, 12)
    assert [found.translations[e, 0] for e in (THE, A, HOUSE, BOOK)] == [DAS, EIN, HAUS, BUCH]


@pytest.mark.parametrize("seed", range(5))
def test_translations_are_the_likeliest_of_model_1(seed, monkeypatch):
    monkeypatch.setattr(module, "TRANSLATIONS", 3)
    pairs = random_pairs(seed)
    t = model_1(pairs, module.ROUNDS)
    found = learned(pairs, 20).translations
    assert found.shape == (20, 3)
    for e in range(20):
        likeliest = sorted((value for (source, _), value in t.items() if source == e), reverse=True)[:3]
        chosen = [t[e, f] for f in found[e].tolist() if (e, f) in t]
        np.testing.assert_allclose(chosen, likeliest, rtol=1e-12)
        assert len(set(found[e].tolist())) == min(3, len(likeliest) + 1)  # each once; what is left is END
        assert found[e, len(likeliest) :].tolist() == [END] * (3 - len(likeliest))


def test_the_likeliest_translation_is_the_right_one():
    found = learned(random_pairs(7, count=400), 20).translations
    assert found[4:10, 0].tolist() == list(range(14, 20))


def test_frequent_are_the_target_tokens_that_occur_most(monkeypatch):
    monkeypatch.setattr(module, "FREQUENT", 3)
    pairs = [([4], [9, 9, 8]), ([5, 5, 5, 5], [7, 9, 8]), ([6], [6])]
    assert learned(pairs, 12).frequent.tolist() == [9, 8, 6]  # of equal ones the first


def test_a_shortlist_is_what_is_frequent_what_stands_there_and_what_translates_that():
    translations = np.full((12, 2), END)
    translations[THE], translations[BOOK] = [DAS, EIN], [BUCH, END]
    shortlist = Shortlist(translations, np.array([DAS, 0]))
    assert shortlist.of([BOOK, THE, BOOK]).tolist() == [END, DAS, 0, BOOK, THE, BUCH, EIN]
    assert shortlist.of([A]).tolist() == [END, DAS, 0, A]
    assert shortlist.of([]).tolist() == [END, DAS, 0]


def test_on_a_shortlist_what_is_likeliest_comes_first(monkeypatch):
    monkeypatch.setattr(module, "ROOM", 3)
    translations = np.arange(4, 34).reshape(3, 10)
    shortlist = Shortlist(translations, np.array([33]))
    assert shortlist.of([0, 2]).tolist() == [END, 33, 0, 2, 4, 24, 5, 25]
    assert shortlist.of([1]).tolist() == [END, 33, 1, 14, 15]
    assert shortlist.of([1, 1]).tolist() == [END, 33, 1, 14, 15, 16, 17, 18]


@pytest.mark.parametrize("most", [9, 30, 100, 250])
def test_of_a_large_corpus_a_part_is_learned_from(monkeypatch, most):
    """So many meetings at most, also where long and short pairs take turns, and of any pair the beginning."""
    pairs = [pair for i in range(20) for pair in (([4] * 3 + [2] * 6, [5] * 3 + [1] * 6), ([6], [7]))]
    monkeypatch.setattr(module, "LONGEST", 3)
    monkeypatch.setattr(module, "MOST", most)
    seen = []
    for seed in range(5):
        meetings, lengths = module._meetings(pairs, 8, np.random.default_rng(seed))
        assert len(meetings) == lengths.sum() <= most
        assert set(meetings.tolist()) <= {8 * 4 + 5, 8 * 6 + 7}
        assert set(lengths.tolist()) <= {1, 3}
        seen.append(len(meetings))
    assert max(seen) > min(most, 20 * 9 + 20) - 9
    assert len(set(seen)) > 1 or most == 250


def test_what_is_frequent_is_counted_in_the_whole_corpus(monkeypatch):
    monkeypatch.setattr(module, "MOST", 2)
    assert learned([([4], [5])] + [([6], [7, 7])] * 3, 8).frequent[:2].tolist() == [7, 5]


def test_a_single_pair_without_end_takes_little_memory():
    found = learned([([4, 5] * 50_000, [6, 7] * 50_000)], 8)
    assert set(found.translations[4, :2].tolist()) == {6, 7}


@pytest.mark.parametrize("pairs", [[], [([], [4])], [([4], []), ([], [])]])
def test_of_nothing_nothing_is_learned(pairs):
    with pytest.raises(ValueError, match=r"^no pair has tokens on both sides$"):
        learned(pairs, 8)


def test_an_empty_side_is_passed_over():
    whole = learned(LESSON, 12)
    found = learned([([], [4]), *LESSON, ([4], [])], 12)
    np.testing.assert_array_equal(found.translations, whole.translations)


# --- The file


class Vocabulary:
    """Twelve tokens; stands for a Tokenizer."""

    def __init__(self, name="a"):
        self.digest = lambda: name

    def __len__(self):
        return 12


@pytest.fixture
def kept(tmp_path):
    """A shortlist, and the directory that it was saved in."""
    shortlist = learned(LESSON, 12)
    shortlist.save(tmp_path, Vocabulary())
    return shortlist, tmp_path


def test_a_shortlist_is_read_back(kept):
    shortlist, directory = kept
    again = Shortlist.load(directory, Vocabulary())
    for array, same in zip(vars(shortlist).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(array, same)
        assert array.dtype == same.dtype == np.int32
    before = (directory / NAME).read_bytes()
    again.save(directory, Vocabulary())
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
    safetensors.numpy.save_file(content, tmp_path / NAME, metadata={"sha256": digest(content, "a")})
    with pytest.raises(CheckpointError) as caught:
        Shortlist.load(tmp_path, Vocabulary())
    assert str(caught.value).startswith(f"{tmp_path / NAME}: ")
    assert words in str(caught.value)


def test_a_missing_or_damaged_file_is_named(kept):
    _, directory = kept
    path, whole = directory / NAME, (directory / NAME).read_bytes()
    content = bytearray(whole)
    content[-1] ^= 1
    for damaged, words in ((bytes(content), "its content has changed"), (bytes(content[:50]), "Error"), (b"", "Error")):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=words) as caught:
            Shortlist.load(directory, Vocabulary())
        assert str(caught.value).startswith(f"{path}: ")
    path.write_bytes(whole)
    with pytest.raises(
        CheckpointError, match=r"or it belongs to another vocabulary; train\.py --resume makes it again"
    ):
        Shortlist.load(directory, Vocabulary("b"))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"does not exist; train\.py writes it, also with --resume"):
        Shortlist.load(directory, Vocabulary())


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
