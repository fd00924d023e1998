// ops/matmul.py has the formulas; the products are cuBLAS's.

extern "C" __global__ void add_bias(real* y, const real* bias, whole count, whole d) {
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] += bias[i % d];
}

// The sum of every column: a block for 32 of them, in which each thread adds up a 32nd of the rows.
extern "C" __global__ void __launch_bounds__(1024) sum_columns(const real* x, real* sums, whole rows, whole d) {
    __shared__ real parts[32][33];  // 33: so that a column of it lies in 32 banks of memory
    whole column = blockIdx.x * 32 + threadIdx.x;
    real sum = 0;
    if (column < d) {
        #pragma unroll 8
        for (whole row = threadIdx.y; row < rows; row += 32) sum += x[row * d + column];
    }
    parts[threadIdx.x][threadIdx.y] = sum;
    __syncthreads();
    sum = warp_sum(parts[threadIdx.y][threadIdx.x]);  // now a warp for a column
    column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < d) sums[column] = sum;
}
