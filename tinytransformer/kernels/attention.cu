// ops/attention.py has the formulas. A hidden score is never read, so a NaN there does no harm; on a CPU, NaN + -inf
// stays NaN.

// scores -> probabilities, in their place. They come in as Q @ K^T, without c, which is `scale`. A row is one query's;
// `mask` may be null, its strides are in elements. `least` only keeps 0 / 0 out: where a key is visible the sum is at
// least e^0, as the largest is always taken off.
extern "C" __global__ void attention_softmax(
    real* scores, const bool* mask, whole mask_b, whole mask_h, whole mask_q, whole mask_k,
    whole heads, whole queries, whole keys, bool causal, double scale, double least)
{
    whole query = blockIdx.x % queries, head = blockIdx.x / queries % heads, sentence = blockIdx.x / queries / heads;
    real* row = scores + (whole)blockIdx.x * keys;
    if (mask) mask += sentence * mask_b + head * mask_h + query * mask_q;
    whole end = causal ? query + 1 + keys - queries : keys;  // the first key that lies in the future
    real largest = -infinity(), sum = 0;
    for (whole k = threadIdx.x; k < keys; k += blockDim.x) {
        bool visible = k < end && (!mask || mask[k * mask_k]);
        row[k] = visible ? row[k] * (real)scale : -infinity();
        largest = larger(largest, row[k]);
    }
    largest = block_max(largest);
    if (largest == -infinity()) largest = 0;  // all is hidden; then e^(-inf - 0) = 0
    for (whole k = threadIdx.x; k < keys; k += blockDim.x) {
        row[k] = exp(row[k] - largest);
        sum += row[k];
    }
    sum = block_sum(sum);
    if (sum < (real)least) sum = least;
    for (whole k = threadIdx.x; k < keys; k += blockDim.x) row[k] /= sum;
}

// dP -> scale * dS, in its place: what `scale` did to the scores it does to their gradient.
extern "C" __global__ void attention_softmax_backward(
    real* dscores, const real* probabilities, whole keys, double scale)
{
    whole first = blockIdx.x * keys;
    real sum = 0;
    for (whole k = threadIdx.x; k < keys; k += blockDim.x) sum += dscores[first + k] * probabilities[first + k];
    sum = block_sum(sum);
    for (whole k = threadIdx.x; k < keys; k += blockDim.x)
        dscores[first + k] = (dscores[first + k] - sum) * probabilities[first + k] * (real)scale;
}
