// x += y for many pairs of arrays at once: a row of blocks for every pair, which stands in a column of `table`.
extern "C" __global__ void add_pairs(const whole* table, whole count) {
    real* x = (real*)table[blockIdx.y];
    const real* y = (const real*)table[count + blockIdx.y];
    whole size = table[2 * count + blockIdx.y];
    whole first = (whole)blockIdx.x * blockDim.x + threadIdx.x, together = (whole)gridDim.x * blockDim.x;
    for (whole i = first; i < size; i += together) x[i] += y[i];
}
