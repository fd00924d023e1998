#!/usr/bin/env python3
"""One training step of a Transformer by hand: NumPy arrays, no tape, and every gradient written out.

The model is the one in tinytransformer/, with one layer on either side: an encoder block reads the
source, a decoder block writes the target; pre-norm, no dropout. Read this file from top to bottom, with
a pencil. First come the parts, each with its way back below it; then the step itself, 21 lines forward
and the same 21 backward, last to first; then Adam.

dX is dL/dX, by how much the loss L moves when X is nudged, and has the shape of X. Every way back needs
only three rules:

    Y = A @ B            dA = dY @ B^T   and   dB = A^T @ dY
    Y = f(X)             dX = dY * f'(X), element by element
    X is used twice      dX is the sum of what both uses send back: a fork forward is a sum backward

Softmax, layer norm and the loss need a little more: ops/softmax.py, ops/normalisation.py and ops/loss.py
in the package derive them. Shapes stand at the end of the line:

    B sentences   J source positions    D features     d = D / H features of one head
    H heads       T target positions    V tokens       F features inside the feed-forward part

`python by_hand.py` takes one step on two sentences, one of them padded.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
Part = dict[str, Array]  # the weights of one part of the model, or their gradients, by name
Weights = dict[str, Part]

PAD = 0
HEADS = 2
SMOOTHING = 0.1  # the share of the target's probability that is spread over all tokens

# ================================================================================ the parts, forward and back


def linear(X: Array, W: Array, b: Array) -> Array:
    return X @ W + b  # (B, T, n) @ (n, m) + (m,) = (B, T, m)


def linear_backward(dY: Array, X: Array, W: Array) -> tuple[Array, Array, Array]:
    dX = dY @ W.T  # (B, T, m) @ (m, n) = (B, T, n)
    # All positions of all sentences used the same W and b: lay them below each other, and add up.
    rows_X, rows_dY = X.reshape(-1, X.shape[-1]), dY.reshape(-1, dY.shape[-1])  # (BT, n), (BT, m)
    dW = rows_X.T @ rows_dY  # (n, m)
    db = rows_dY.sum(0)  # (m,)
    return dX, dW, db


def layer_norm(X: Array, w: Part) -> tuple[Array, tuple]:
    centred = X - X.mean(-1, keepdims=True)  # (B, T, D)
    s = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)  # (B, T, 1)
    X_hat = centred / s  # (B, T, D)
    return w["gain"] * X_hat + w["bias"], (X_hat, s)


def layer_norm_backward(dY: Array, w: Part, kept: tuple) -> tuple[Array, Part]:
    X_hat, s = kept
    dgain = (dY * X_hat).sum((0, 1))  # (D,)
    dbias = dY.sum((0, 1))  # (D,)
    dX_hat = dY * w["gain"]  # (B, T, D)
    # Mean and spread of X were taken out, so a nudge along either does nothing to X_hat (but for the 1e-5).
    along_mean = dX_hat.mean(-1, keepdims=True)  # (B, T, 1)
    along_spread = X_hat * (X_hat * dX_hat).mean(-1, keepdims=True)  # (B, T, D)
    dX = (dX_hat - along_mean - along_spread) / s  # (B, T, D)
    return dX, {"gain": dgain, "bias": dbias}


def attention(X: Array, M: Array, w: Part, visible: Array) -> tuple[Array, tuple]:
    """Queries from X, (B, T, D); keys and values from M, (B, J, D). In self-attention M is X."""
    Q = split(linear(X, w["W_Q"], w["b_Q"]))  # (B, H, T, d)
    K = split(linear(M, w["W_K"], w["b_K"]))  # (B, H, J, d)
    V = split(linear(M, w["W_V"], w["b_V"]))  # (B, H, J, d)
    S = Q @ K.swapaxes(-1, -2) / np.sqrt(Q.shape[-1])  # (B, H, T, J), each query with each key
    S = np.where(visible, S, -np.inf)
    e = np.exp(S - S.max(-1, keepdims=True))  # what is not visible becomes 0
    A = e / e.sum(-1, keepdims=True)  # (B, H, T, J), softmax: every row sums to 1
    C = join(A @ V)  # (B, H, T, d), heads side by side: (B, T, D)
    return linear(C, w["W_O"], w["b_O"]), (X, M, Q, K, V, A, C)


def attention_backward(dY: Array, w: Part, kept: tuple) -> tuple[Array, Array, Part]:
    """Returns dX, dM, and the gradients of the weights."""
    X, M, Q, K, V, A, C = kept
    dC, dW_O, db_O = linear_backward(dY, C, w["W_O"])
    dheads = split(dC)  # (B, H, T, d)
    dV = A.swapaxes(-1, -2) @ dheads  # (B, H, J, d)
    dA = dheads @ V.swapaxes(-1, -2)  # (B, H, T, J)
    dS = A * (dA - (dA * A).sum(-1, keepdims=True))  # softmax; where A = 0 nothing comes back
    dQ = dS @ K / np.sqrt(Q.shape[-1])  # (B, H, T, d)
    dK = dS.swapaxes(-1, -2) @ Q / np.sqrt(Q.shape[-1])  # (B, H, J, d)
    dM_V, dW_V, db_V = linear_backward(join(dV), M, w["W_V"])
    dM_K, dW_K, db_K = linear_backward(join(dK), M, w["W_K"])
    dX, dW_Q, db_Q = linear_backward(join(dQ), X, w["W_Q"])
    # b_K adds the same number to a whole row of S, which softmax does not see: db_K = 0, but for rounding.
    d_query_and_key = {"W_Q": dW_Q, "b_Q": db_Q, "W_K": dW_K, "b_K": db_K}
    return dX, dM_K + dM_V, d_query_and_key | {"W_V": dW_V, "b_V": db_V, "W_O": dW_O, "b_O": db_O}


def split(X: Array) -> Array:
    """(B, T, D) -> (B, H, T, d). It only moves numbers, and `join` moves them back: each undoes the other."""
    B, T, D = X.shape
    return X.reshape(B, T, HEADS, D // HEADS).swapaxes(1, 2)


def join(X: Array) -> Array:
    """(B, H, T, d) -> (B, T, D)"""
    B, H, T, d = X.shape
    return X.swapaxes(1, 2).reshape(B, T, H * d)


def feed_forward(X: Array, w: Part) -> tuple[Array, tuple]:
    U = linear(X, w["W_1"], w["b_1"])  # (B, T, F)
    R = np.maximum(U, 0)  # (B, T, F), relu
    return linear(R, w["W_2"], w["b_2"]), (X, U, R)


def feed_forward_backward(dY: Array, w: Part, kept: tuple) -> tuple[Array, Part]:
    X, U, R = kept
    dR, dW_2, db_2 = linear_backward(dY, R, w["W_2"])
    dU = dR * (U > 0)  # (B, T, F)
    dX, dW_1, db_1 = linear_backward(dU, X, w["W_1"])
    return dX, {"W_1": dW_1, "b_1": db_1, "W_2": dW_2, "b_2": db_2}


def positions(length: int, D: int) -> Array:
    angle = np.arange(length)[:, None] / 10000 ** (np.arange(0, D, 2) / D)  # (length, D / 2)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, D)


# ================================================================================ the step


def forward(w: Weights, source: Array, target: Array) -> tuple[float, dict[int, Any]]:
    """Returns the loss, and what the way back needs, by the number of the line that made it.

    source (B, J) and target (B, T + 1) are token ids; the model reads target[t] and predicts target[t + 1].
    """
    E = w["embedding"]["E"]  # (V, D): one table for source, target and output
    V, D = E.shape
    read, predict = target[:, :-1], target[:, 1:]  # (B, T), (B, T)
    words = (source != PAD)[:, None, None, :]  # (B, 1, 1, J): the padding of the source is not seen
    past = np.tri(read.shape[1], dtype=bool)  # (T, T): nor is the future of the target
    kept: dict[int, Any] = {}

    # The encoder
    X0 = np.sqrt(D) * E[source] + positions(source.shape[1], D)  #                     1   (B, J, D)
    N, kept[2] = layer_norm(X0, w["encoder.self_attention_norm"])  #                   2   (B, J, D)
    Y, kept[3] = attention(N, N, w["encoder.self_attention"], words)  #                3   (B, J, D)
    X1 = X0 + Y  #                                                                     4   (B, J, D)
    N, kept[5] = layer_norm(X1, w["encoder.feed_forward_norm"])  #                     5   (B, J, D)
    Y, kept[6] = feed_forward(N, w["encoder.feed_forward"])  #                         6   (B, J, D)
    X2 = X1 + Y  #                                                                     7   (B, J, D)
    M, kept[8] = layer_norm(X2, w["encoder.norm"])  #                                  8   (B, J, D), the memory

    # The decoder
    Z0 = np.sqrt(D) * E[read] + positions(read.shape[1], D)  #                         9   (B, T, D)
    N, kept[10] = layer_norm(Z0, w["decoder.self_attention_norm"])  #                 10   (B, T, D)
    Y, kept[11] = attention(N, N, w["decoder.self_attention"], past)  #               11   (B, T, D)
    Z1 = Z0 + Y  #                                                                    12   (B, T, D)
    N, kept[13] = layer_norm(Z1, w["decoder.cross_attention_norm"])  #                13   (B, T, D)
    Y, kept[14] = attention(N, M, w["decoder.cross_attention"], words)  #             14   (B, T, D)
    Z2 = Z1 + Y  #                                                                    15   (B, T, D)
    N, kept[16] = layer_norm(Z2, w["decoder.feed_forward_norm"])  #                   16   (B, T, D)
    Y, kept[17] = feed_forward(N, w["decoder.feed_forward"])  #                       17   (B, T, D)
    Z3 = Z2 + Y  #                                                                    18   (B, T, D)
    Z4, kept[19] = layer_norm(Z3, w["decoder.norm"])  #                               19   (B, T, D)

    # The loss: cross-entropy with label smoothing, the mean over all tokens that are not padding
    logits, kept[20] = Z4 @ E.T, Z4  #                                                20   (B, T, V)
    logits = logits - logits.max(-1, keepdims=True)  # softmax stays the same, nothing overflows
    log_P = logits - np.log(np.exp(logits).sum(-1, keepdims=True))  #                      (B, T, V)
    wanted = (1 - SMOOTHING) * np.eye(V)[predict] + SMOOTHING / V  #                       (B, T, V)
    share = (predict != PAD)[..., None] / (predict != PAD).sum()  #                        (B, T, 1)
    L, kept[21] = -(share * wanted * log_P).sum(), (share, wanted, log_P)  #          21   a number
    return L, kept


def backward(w: Weights, source: Array, target: Array, kept: dict[int, Any]) -> Weights:
    """Returns all gradients: `forward` in a mirror. Each comment names the lines that are undone below it."""
    E = w["embedding"]["E"]
    V, D = E.shape
    dw: Weights = {}

    # 21, the loss: what was predicted, P = softmax(logits), minus what was wanted
    share, wanted, log_P = kept[21]
    dlogits = share * (np.exp(log_P) - wanted)  # (B, T, V)
    # 20, the output: the first use of E
    dZ4 = dlogits @ E  # (B, T, D)
    dE = dlogits.reshape(-1, V).T @ kept[20].reshape(-1, D)  # (V, D)
    # 19, the norm
    dZ3, dw["decoder.norm"] = layer_norm_backward(dZ4, w["decoder.norm"], kept[19])
    # 18, 17, 16, the feed-forward part: the gradient goes past it (dZ3) and through it (dZ), and both arrive
    dN, dw["decoder.feed_forward"] = feed_forward_backward(dZ3, w["decoder.feed_forward"], kept[17])
    dZ, dw["decoder.feed_forward_norm"] = layer_norm_backward(dN, w["decoder.feed_forward_norm"], kept[16])
    dZ2 = dZ3 + dZ  # (B, T, D)
    # 15, 14, 13, cross-attention: here the encoder gets its gradient
    dN, dM, dw["decoder.cross_attention"] = attention_backward(dZ2, w["decoder.cross_attention"], kept[14])
    dZ, dw["decoder.cross_attention_norm"] = layer_norm_backward(dN, w["decoder.cross_attention_norm"], kept[13])
    dZ1 = dZ2 + dZ  # (B, T, D)
    # 12, 11, 10, self-attention: N was used twice, for the queries and for the keys and values
    dN_Q, dN_KV, dw["decoder.self_attention"] = attention_backward(dZ1, w["decoder.self_attention"], kept[11])
    dN = dN_Q + dN_KV
    dZ, dw["decoder.self_attention_norm"] = layer_norm_backward(dN, w["decoder.self_attention_norm"], kept[10])
    dZ0 = dZ1 + dZ  # (B, T, D)
    # 9, the target: the second use of E. Each position adds to the row of its token; a token may come twice
    np.add.at(dE, target[:, :-1], np.sqrt(D) * dZ0)

    # 8, the norm
    dX2, dw["encoder.norm"] = layer_norm_backward(dM, w["encoder.norm"], kept[8])
    # 7, 6, 5, the feed-forward part
    dN, dw["encoder.feed_forward"] = feed_forward_backward(dX2, w["encoder.feed_forward"], kept[6])
    dX, dw["encoder.feed_forward_norm"] = layer_norm_backward(dN, w["encoder.feed_forward_norm"], kept[5])
    dX1 = dX2 + dX  # (B, J, D)
    # 4, 3, 2, self-attention
    dN_Q, dN_KV, dw["encoder.self_attention"] = attention_backward(dX1, w["encoder.self_attention"], kept[3])
    dN = dN_Q + dN_KV
    dX, dw["encoder.self_attention_norm"] = layer_norm_backward(dN, w["encoder.self_attention_norm"], kept[2])
    dX0 = dX1 + dX  # (B, J, D)
    # 1, the source: the third use of E
    np.add.at(dE, source, np.sqrt(D) * dX0)
    dw["embedding"] = {"E": dE}
    return dw


def adam(w: Weights, dw: Weights, m: Weights, v: Weights, t: int, rate: float) -> None:
    """Step t = 1, 2, ...: move each weight against its mean gradient, over the root of its mean square."""
    for part in w:
        for name, g in dw[part].items():
            m[part][name] = 0.9 * m[part][name] + 0.1 * g
            v[part][name] = 0.98 * v[part][name] + 0.02 * g**2
            mean, square = m[part][name] / (1 - 0.9**t), v[part][name] / (1 - 0.98**t)  # m and v began at 0
            w[part][name] = w[part][name] - rate * mean / (np.sqrt(square) + 1e-9)


# ================================================================================ two sentences

VOCABULARY = ["<pad>", "<unk>", "<s>", "</s>", "the", "small", "dog", "sleeps", "der", "kleine", "Hund", "schläft"]
SOURCE = ["the small dog sleeps </s>", "the dog sleeps </s> <pad>"]
TARGET = ["<s> der kleine Hund schläft </s>", "<s> der Hund schläft </s> <pad>"]


def ids(sentences: list[str]) -> Array:
    return np.array([[VOCABULARY.index(token) for token in sentence.split()] for sentence in sentences])


def initial_weights(V: int, D: int, F: int, random: np.random.Generator) -> Weights:
    """Matrices Glorot-uniform, biases 0, gains 1, and the vectors of the tokens of length about 1."""
    attention, feed_forward = dict.fromkeys("QKVO", (D, D)), {"1": (D, F), "2": (F, D)}
    encoder = {"self_attention": attention, "feed_forward": feed_forward}
    decoder = {"self_attention": attention, "cross_attention": attention, "feed_forward": feed_forward}
    w: Weights = {"embedding": {"E": random.normal(0, D**-0.5, (V, D))}}
    for side, sublayers in {"encoder": encoder, "decoder": decoder}.items():
        for sublayer, shapes in sublayers.items():
            w[f"{side}.{sublayer}_norm"] = {"gain": np.ones(D), "bias": np.zeros(D)}
            part: Part = {}
            w[f"{side}.{sublayer}"] = part
            for i, (n, m) in shapes.items():
                limit = np.sqrt(6 / (n + m))
                part |= {f"W_{i}": random.uniform(-limit, limit, (n, m)), f"b_{i}": np.zeros(m)}
        w[f"{side}.norm"] = {"gain": np.ones(D), "bias": np.zeros(D)}
    return w


def zeros_like(w: Weights) -> Weights:
    return {part: {name: np.zeros_like(x) for name, x in w[part].items()} for part in w}


def main() -> None:
    source, target = ids(SOURCE), ids(TARGET)
    w = initial_weights(len(VOCABULARY), 8, 16, np.random.default_rng(1))
    before, kept = forward(w, source, target)
    dw = backward(w, source, target, kept)
    adam(w, dw, zeros_like(w), zeros_like(w), t=1, rate=0.01)
    after, _ = forward(w, source, target)

    print("The length of every gradient:\n")
    for part in w:
        lengths = [f"d{name} {np.linalg.norm(dw[part][name]):.3f}" for name in w[part]]
        print(f"  {part:28}  {'  '.join(lengths)}")
    print(f"\nThe loss: {before:.4f} before the step, {after:.4f} after it.")


if __name__ == "__main__":
    main()
