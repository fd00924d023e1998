// ops/matmul.py has the formulas; the products are cuBLAS's.

extern "C" __global__ void add_bias(real* y, const real* bias, whole count, whole d) {
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] += bias[i % d];
}

// The sum of every column, over all rows.
extern "C" __global__ void __launch_bounds__(1024) sum_columns(const real* x, real* sums, whole rows, whole d) {
    whole column = blockIdx.x * 32 + threadIdx.x;
    real sum = 0;
    if (column < d) {
        #pragma unroll 8
        for (whole row = threadIdx.y; row < rows; row += 32) sum += x[row * d + column];
    }
    sum = column_sum(sum);
    column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < d) sums[column] = sum;
}
