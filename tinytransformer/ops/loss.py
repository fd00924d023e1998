"""Cross-entropy: how surprised the model is by the tokens that really came."""

from __future__ import annotations

from tinytransformer import kernels
from tinytransformer.backend import array_module, is_on_gpu
from tinytransformer.ops.checks import require, require_ids
from tinytransformer.ops.sums import few_rows, sum_last
from tinytransformer.tensor import op


@op
def cross_entropy(logits, *, targets, padding=None, label_smoothing=0.0, count=None):
    """Return the mean over all real tokens of -ln(probability of the target), with smoothed targets.

    Forward, for one position with logits z over V tokens and target t. The target distribution q gives 1 - e of its
    mass to t and spreads e over the whole vocabulary, t included ([v = t] is 1 if v = t, else 0):

        q_v  = (1 - e) * [v = t] + e / V
        loss = -sum over v of q_v * ln(softmax(z)_v)
             = ln(sum(e^z)) - sum(q * z)                               (since the q sum to 1)
             = ln(sum(e^z)) - (1 - e) * z_t - e * mean(z)

    A position whose target is `padding` has weight w = 0, every other w = 1. The result is y = sum(w * loss) / count.

    Backward. ln(sum(e^z)) moves by sum(p * z') with p = softmax(z), as in `logsumexp`; the rest is linear in z:

        loss' = sum((p - q) * z')
        y'    = sum(w / count * loss')

        dz    = dy * w / count * (p - q)

    targets: integers in [0, V).
    padding: the target id of positions that do not count, or None if all do.
    label_smoothing: e, 0 <= e < 1.
    count: what the sum is divided by, by default the number of positions that count, or 1. With the count of the whole
        batch passed in, the losses of its parts add up to the loss of the batch, and so do the gradients.

    Shapes: logits (..., V), targets (...) -> scalar.
    Raises: ShapeError if the shapes do not fit, TypeError or IndexError for targets that are no token ids,
    ValueError for a label_smoothing outside [0, 1).
    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (label smoothing).
    """
    require(
        logits.ndim >= 1 and targets.shape == logits.shape[:-1],
        "cross_entropy",
        f"targets of shape {targets.shape} do not fit logits of shape {logits.shape}",
    )
    require_ids("cross_entropy", targets, logits.shape[-1])
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing is {label_smoothing}, expected 0 <= e < 1")
    xp = array_module(logits)
    if is_on_gpu(logits):
        count = xp.maximum((targets != padding).sum(), 1).astype(logits.dtype) if count is None else float(count)
        return kernels.cross_entropy(logits, targets, padding, label_smoothing, count)
    size = logits.shape[-1]
    z = logits.reshape(-1, size)
    target = targets.reshape(-1)
    row = xp.arange(len(z))
    weight = xp.ones_like(z[:, 0]) if padding is None else (target != padding).astype(z.dtype)
    count = xp.maximum(weight.sum(), 1) if count is None else float(count)

    exps, total, expected = xp.empty_like(z), xp.empty_like(z[:, :1]), xp.empty_like(weight)
    for few in few_rows(z):
        # All relative to the largest logit: two numbers near 10,000 would lose their difference in float32.
        centred = xp.subtract(z[few], z[few].max(axis=-1, keepdims=True), out=exps[few])
        expected[few] = (1 - label_smoothing) * centred[row[: len(centred)], target[few]]
        if label_smoothing:  # or a logit of -inf would count, with 0 * -inf = NaN
            expected[few] += label_smoothing / size * sum_last(centred)[:, 0]  # sum(q * z)
        xp.exp(centred, out=centred)
        total[few] = sum_last(centred)
    loss = xp.log(total)[:, 0] - expected

    def backward(dy):
        dz = exps  # the largest array there is: turned into the gradient in its place
        share = (dy * weight / count)[:, None]
        for few in few_rows(dz):
            part = dz[few]
            part *= share[few] / total[few]  # p
            if label_smoothing:
                part -= share[few] * (label_smoothing / size)  # q, where it is spread out,
        dz[row, target] -= share[:, 0] * (1 - label_smoothing)  # and at the target
        return (dz.reshape(logits.shape),)

    loss = xp.where(weight > 0, loss, weight)  # rather than w * loss, since a loss may be infinite, and 0 * inf is NaN
    return loss.sum() / count, backward
