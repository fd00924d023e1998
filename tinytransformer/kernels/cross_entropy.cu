// ops/loss.py has the formulas.

extern "C" __global__ void cross_entropy(
    const real* logits, const whole* targets, real* losses, real* largests, real* totals,
    whole size, whole padding, double smoothing)
{
    const real* z = logits + blockIdx.x * size;
    whole target = targets[blockIdx.x];
    real largest = -infinity(), total = 0, sum = 0;
    for (whole v = threadIdx.x; v < size; v += blockDim.x) largest = larger(largest, z[v]);
    largest = block_max(largest);
    for (whole v = threadIdx.x; v < size; v += blockDim.x) {
        total += exp(z[v] - largest);
        sum += z[v] - largest;
    }
    total = block_sum(total);
    sum = block_sum(sum);
    if (threadIdx.x) return;
    real expected = (1 - (real)smoothing) * (z[target] - largest);
    if (smoothing) expected += (real)smoothing / size * sum;  // or a logit of -inf would count, with 0 * -inf = NaN
    losses[blockIdx.x] = target == padding ? 0 : log(total) - expected;
    largests[blockIdx.x] = largest;
    totals[blockIdx.x] = total;
}

// `slope`, of one element, is dy / count.
extern "C" __global__ void cross_entropy_backward(
    const real* logits, const whole* targets, const real* largests, const real* totals, const real* slope,
    real* dlogits, whole size, whole padding, double smoothing)
{
    whole first = blockIdx.x * size, target = targets[blockIdx.x];
    real largest = largests[blockIdx.x], total = totals[blockIdx.x], share = target == padding ? 0 : *slope;
    for (whole v = threadIdx.x; v < size; v += blockDim.x) {
        real q = (real)smoothing / size + (v == target ? 1 - (real)smoothing : 0);
        dlogits[first + v] = share * (exp(logits[first + v] - largest) / total - q);
    }
}
