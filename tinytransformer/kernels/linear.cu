// ops/matmul.py has the formulas; the products are cuBLAS's.

extern "C" __global__ void add_bias(real* y, const real* bias, whole count, whole d) {
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] += bias[i % d];
}

// The sum of every column. A block takes 32 columns; the 32 threads of a column each add up a 32nd of its rows, and
// then a warp adds up those 32 sums. Between the two they stand in shared memory, which has 32 banks, and gives a word
// of each at a time: in rows of 33 words the elements of a column fall into different banks.
extern "C" __global__ void __launch_bounds__(1024) sum_columns(const real* x, real* sums, whole rows, whole d) {
    __shared__ real parts[32][33];
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
