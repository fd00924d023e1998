"""What a decoder keeps: whatever is followed, given up or moved, every beginning sees its own past and nothing else."""

import numpy as np
import pytest

from tinytransformer.cache import ROOM, AttentionCache, DecoderCache, Remaining, Tree
from tinytransformer.tape import no_grad
from tinytransformer.tensor import ShapeError, Tensor

H, D = 2, 3


def keys_of(tokens):
    """(S, K) of numbers -> (S, H, K, D), in which each stands for its token."""
    return Tensor(np.broadcast_to(tokens[:, None, :, None].astype(np.float64), (len(tokens), H, tokens.shape[1], D)))


def pasts(cache):
    """Return what each beginning sees, its tokens from the oldest, (S, K) of lists: they are numbered as they came."""
    key, value, paths = cache.key, cache.value, cache.tree.paths
    assert key.shape[:2] == (len(paths), H)
    for array in (key, -value):  # all heads and features of a place stand for the same
        np.testing.assert_array_equal(array, np.broadcast_to(key[:, :1, :, :1], key.shape))
    return [[sorted(key[s, 0, : paths.shape[2], 0][path]) for path in paths[s]] for s in range(len(paths))]


@pytest.mark.parametrize("beam", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_every_beginning_sees_its_own_past(beam, seed):
    """Beginnings go on from any others, sentences leave and move, and more tokens come than there was room for."""
    generator = np.random.default_rng(seed)
    tree = Tree(6)
    cache, histories, newest = AttentionCache(tree), [[[]] for _ in range(6)], 1.0
    for step in range(2 * ROOM):
        tree.grow()
        shape = tree.paths.shape[:2]
        tokens = newest + np.arange(np.prod(shape)).reshape(shape)
        newest += tokens.size
        key, value = cache.extend(keys_of(tokens), keys_of(-tokens))
        assert key.shape == value.shape == (len(histories), H, tree.paths.shape[2], D)
        histories = [[[*h, t] for h, t in zip(*each, strict=True)] for each in zip(histories, tokens, strict=True)]
        assert pasts(cache) == histories
        parents = generator.integers(0, tree.paths.shape[1], (len(histories), beam))
        tree.follow(parents)
        histories = [[h[p] for p in row] for h, row in zip(histories, parents, strict=True)]
        if step % 7 == 3:
            remaining = Remaining(generator.random(len(histories)) < 0.8)
            tree.keep(remaining)
            cache.keep(remaining)
            histories = [histories[i] for i in remaining.order]
        assert pasts(cache) == histories
    assert tree.length == 2 * ROOM


def test_a_place_is_used_again_as_soon_as_no_beginning_goes_through_it():
    tree = Tree(1)
    for _ in range(50):  # of three beginnings, the first goes on in three ways each time
        tree.grow()
        tree.follow(np.zeros((1, 3), dtype=int))
    tree.grow()
    assert tree.paths.shape == (1, 3, 50 + 3)
    assert tree.paths.sum(axis=2).tolist() == [[51, 51, 51]]
    assert len(np.unique(tree.newest[1])) == 3


def test_what_was_never_written_is_a_number():
    """A mask hides it by a weight of 0, and 0 * nan would be nan."""
    tree = Tree(2)
    cache = AttentionCache(tree)
    for _ in range(ROOM + 1):
        tree.grow()
        cache.extend(keys_of(np.ones((2, 1))), keys_of(np.ones((2, 1))))
    assert np.isfinite(cache.key).all()
    assert np.isfinite(cache.value).all()


def test_all_is_seen_until_beginnings_differ():
    """Then nothing has to be masked, which greedy search owes its speed."""
    cache = DecoderCache(1, 2)
    for _ in range(3):
        assert cache.grow(np.zeros((2, 1), dtype=int)) is None
    cache.follow(np.array([[0, 0], [0, 0]]))
    mask = cache.grow(np.zeros((2, 2), dtype=int))
    np.testing.assert_array_equal(mask[:, 0], [[[True] * 3 + [True, False], [True] * 3 + [False, True]]] * 2)


class Noting(np.ndarray):
    """Notes which rows are written."""

    def __setitem__(self, key, value):
        self.written = key.tolist()
        super().__setitem__(key, value)


@pytest.mark.parametrize(
    ("staying", "order", "written"),
    [("11111", [0, 1, 2, 3, 4], None), ("01101", [4, 1, 2], [0]), ("00110", [2, 3], [0, 1]), ("00000", [], None)],
)
def test_only_what_fills_a_gap_is_copied(staying, order, written):
    remaining, x = Remaining(np.array([c == "1" for c in staying])), np.arange(10.0).reshape(5, 2).view(Noting)
    kept = remaining.of(x)
    assert remaining.order.tolist() == order
    assert kept.tolist() == [[2 * i, 2 * i + 1] for i in order]
    assert getattr(x, "written", None) == written
    assert np.shares_memory(kept, x) == bool(order)


def test_an_empty_cache_has_nothing_to_keep():
    cache = DecoderCache(2, 3)
    cache.keep(Remaining(np.array([False, True, True])))
    assert cache.tree.paths.shape == (2, 1, 0)
    assert cache.blocks[0].self_attention.key is None


def test_ids_have_to_be_one_for_each_beginning():
    """Two of one sentence would be taken for two beginnings, one for both sentences would be spread over them."""
    for wrong in ((2, 2), (1, 1), (2,)):
        cache = DecoderCache(1, 2)
        with pytest.raises(
            ShapeError, match=r"^decode: ids of shape \(.*\) do not fit the beginnings in the cache, \(2, 1\)$"
        ):
            cache.grow(np.zeros(wrong, dtype=int))
        assert cache.tree.length == 0


@pytest.mark.parametrize("shape", [{}, {"norm": "post", "positions": "learned", "max_length": 16}], ids=str)
def test_beginnings_side_by_side_are_decoded_as_each_alone(make_model, shape):
    """Three of each sentence, which go on from one another as it comes: the logits of each are those of its tokens."""
    model, generator, source = make_model(9, **shape), np.random.default_rng(3), np.array([[4, 5, 6, 3], [7, 3, 0, 0]])
    histories = np.zeros((2, 1, 0), dtype=int)
    with no_grad():
        memory, mask = model.encode(source)
        cache = model.new_cache(2)
        for _ in range(6):
            tokens = generator.integers(1, 9, histories.shape[:2])
            histories = np.concatenate([histories, tokens[..., None]], axis=2)
            logits = model.project(model.decode(tokens, memory, mask, cache=cache)).data
            for i in range(histories.shape[1]):
                alone = model(source, histories[:, i]).data[:, -1]
                np.testing.assert_allclose(logits[:, i], alone, rtol=0, atol=1e-12)
            parents = generator.integers(0, histories.shape[1], (2, 3))
            cache.follow(parents)
            histories = np.take_along_axis(histories, parents[..., None], axis=1)
