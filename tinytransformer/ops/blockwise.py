"""Attention over long sequences: the same function, block by block, and never a matrix of all queries by all keys."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from functools import partial

from tinytransformer.backend import Array, array_module
from tinytransformer.ops.attention import require_attention_shapes
from tinytransformer.ops.checks import require_rate
from tinytransformer.ops.dropout import dropout_mask
from tinytransformer.ops.sums import max_last, sum_last, sum_of_products
from tinytransformer.tensor import op

BLOCK = 256  # queries, and keys, in a block: what is computed from its scores stays in the cache of one core
LONG = 512 * 512  # queries times keys, from which on it pays to go block by block: see docs/performance.md
# On a GPU a block is a dozen launches, for what may be a moment's work. There it is for memory alone: how many scores a
# layer has to have, those of all sentences and heads, a gigabyte in float32.
MANY_ON_A_GPU = 1 << 28


@op
def blockwise_attention(query, key, value, *, mask=None, causal=False, rate=0.0, generator=None, block=BLOCK):
    """Compute what `attention` computes, in memory that grows with T and not with T^2.

    `attention` keeps P, T_query * T_key numbers for every head: 2 GB for 8 heads of 8,192 positions. This keeps nothing
    of P. Backward computes each block of it once more, which costs one matrix product on top of six.

    Forward, for one head, in the letters of `attention`: Q is a block of queries, and K_1, V_1, K_2, V_2, ... are the
    blocks of keys and values. Softmax needs the largest score of a query, and a sum, over all keys, and a block shows
    only some of them. So three things are kept for each query. With S and V of all blocks seen so far, over whose keys
    max and sum go, they are

        t = max(S)      s = sum(e^(S - t))      Z = (m * e^(S - t)) @ V

    Before the first block s = 0, Z = 0, and t is the least finite number, since -inf - (-inf) is not a number. From
    here on S is that of one block. Another, S = c * Q @ K_j^T, may raise the largest score, from t to t_new. Since

        e^(S - t_new) = e^(t - t_new) * e^(S - t)

    one factor brings all that was summed below t to what it would have been below t_new:

        t_new = max(t, max(S))
        E     = e^(S - t_new)               a key that is hidden has S = -inf, hence E = 0
        s_new = e^(t - t_new) * s + sum(E)
        Z_new = e^(t - t_new) * Z + (m * E) @ V_j

    After the last block, with its t and s, P = e^(S - t) / s in every block, so that Y = Z / s. Where a key is visible
    s is at least 1, as one of the scores is t. A query that sees no key at all has s = 0 and Z = 0; s then counts
    as 1. Blocks that `causal` hides as a whole are left out: nearly half of them.

    Backward. Y is that of `attention`, and so are its gradients. There all lines but one hold for every block by
    itself: the blocks of dQ add up over the keys, those of dK and dV over the queries. The one line is

        dS = P * (dP - sum(dP * P) over the keys)

    whose sum runs over all blocks, and is known without any of them. With dP = m * dA,

        sum(dP * P) over the keys = sum(dA * A) over the keys             from A = m * P
                                  = sum(dY * (A @ V)) over the features     from dA = dY @ V^T
                                  = sum(dY * Y) over the features

    P = E / s would cost a division for every query and key. It is enough to divide dY once: with G = dY / s,

        E     = e^(c * Q @ K_j^T - t)       once more, now with the t and s of all keys
        dV_j += (m * E)^T @ G                                           = A^T @ dY
        dS    = E * (m * (G @ V_j^T) - sum(G * Y) over the features)
        dQ   += c * dS @ K_j
        dK_j += c * dS^T @ Q

    in which Q, dQ, Y, dY, G, t and s are those of one block of queries.

    m is not kept either: a copy of the generator, made before it drew, draws it again in the same order.

    mask, causal, rate, generator: as in `attention`, but that m is drawn block by block.
    block: how many queries, and how many keys, make a block.

    Shapes and errors: as `attention`. Also ValueError unless block is at least 1.
    Source: Rabe and Staats 2021, arXiv:2112.05682, sections 2, 3; Dao et al. 2022, arXiv:2205.14135, algorithms 1, 4.
    """
    require_attention_shapes("blockwise_attention", query, key, value, mask)
    require_rate("blockwise_attention", rate)
    if block < 1:
        raise ValueError(f"blockwise_attention: block is {block}, expected at least 1")
    xp = array_module(query)
    scale = 1 / math.sqrt(query.shape[-1])
    scaled_query = query * scale
    blocks = list(_blocks((*query.shape[:3], key.shape[2]), causal, block))
    y = xp.zeros((*query.shape[:3], value.shape[-1]), query.dtype)  # Z, until all blocks have been seen
    largest = xp.full((*query.shape[:3], 1), xp.finfo(query.dtype).min, query.dtype)  # t; finite, so that t - t is 0
    total = xp.zeros_like(largest)  # s
    dropping, replay = generator is not None and rate > 0, copy.deepcopy(generator)
    scores_of = partial(_scores, scaled_query, key, mask, causal)  # of a block: where its queries and its keys lie

    for q, k in blocks:  # each of the two picks a sentence, a head and a slice of positions: all below is 2-D
        exps = scores_of(q, k)  # S; from here on E is computed in its place
        raised = xp.maximum(largest[q], max_last(exps))
        exps -= raised
        xp.exp(exps, out=exps)
        shrink = xp.exp(largest[q] - raised)
        total[q] = shrink * total[q] + sum_last(exps)
        if dropping:
            exps *= dropout_mask(exps, rate, generator)
        y[q] = shrink * y[q] + exps @ value[k]
        largest[q] = raised
    xp.maximum(total, 1, out=total)  # it is at least e^0 = 1, or 0 where all is hidden
    y /= total

    def backward(dy):
        scaled_dy = dy / total  # G
        sums = sum_of_products(scaled_dy, y)
        dquery, dkey, dvalue = xp.zeros_like(query), xp.zeros_like(key), xp.zeros_like(value)
        for q, k in blocks:
            exps = scores_of(q, k)
            exps -= largest[q]
            xp.exp(exps, out=exps)
            weights = exps  # m * E, in a moment
            dscores = scaled_dy[q] @ value[k].T
            if dropping:
                kept = dropout_mask(exps, rate, replay)
                weights = exps * kept
                dscores *= kept
            dscores -= sums[q]
            dscores *= exps
            dquery[q] += dscores @ key[k]
            dkey[k] += dscores.T @ scaled_query[q]
            dvalue[k] += weights.T @ scaled_dy[q]
        dquery *= scale
        return dquery, dkey, dvalue

    return y, backward


Place = tuple[int, int, slice]  # a sentence, a head, and some of its positions


def _blocks(shape: tuple[int, ...], causal: bool, size: int) -> Iterator[tuple[Place, Place]]:
    """Yield where the queries and the keys of each block lie; under `causal`, of those that some query may see."""
    sentences, heads, queries, keys = shape
    for b, h in itertools.product(range(sentences), range(heads)):
        for i in range(0, queries, size):
            end = min(i + size, queries)
            seen = min(end + keys - queries, keys) if causal else keys  # aligned at the last query and the last key
            for j in range(0, seen, size):
                yield (b, h, slice(i, end)), (b, h, slice(j, min(j + size, seen)))


def _scores(scaled_query: Array, key: Array, mask: Array | None, causal: bool, q: Place, k: Place) -> Array:
    """Return the block S of the scores of the queries at `q` on the keys at `k`, -inf where a key is hidden."""
    xp, shape = array_module(key), (*scaled_query.shape[:3], key.shape[2])
    scores = scaled_query[q] @ key[k].T
    if mask is not None:
        visible = xp.broadcast_to(mask, shape)[(*q, k[-1])]  # a view: no matrix of the whole shape is made
        xp.copyto(scores, -math.inf, where=~visible)
    queries, keys = shape[2:]
    first, start = q[-1].start + keys - queries, k[-1].start  # the first query of the block stands at the key `first`
    if causal and k[-1].stop > first + 1:
        past = xp.tri(*scores.shape, first - start, dtype=bool)
        xp.copyto(scores, -math.inf, where=~past)
    return scores
