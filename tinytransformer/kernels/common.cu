// What all kernels share. Of an array of rows a block of threads works on one, whose elements the threads take in
// turns; of others a thread has one element, or a few. launch.py has both.
// `real` is float or double: launch.py compiles everything once for either.

typedef REAL real;
typedef long long whole;

const unsigned ALL = 0xffffffff;  // the 32 threads of a warp

__device__ real infinity() { return __longlong_as_double(0x7ff0000000000000); }

__device__ real larger(real a, real b) { return a > b ? a : b; }

// A warp is 32 threads that run together, and can read each other's registers: __shfl_xor_sync(ALL, x, k) is the x of
// the thread whose number differs in bit k. After k = 16, 8, 4, 2 and 1 each of them has the sum of all 32.
__device__ real warp_sum(real x) {
    for (int apart = 16; apart; apart /= 2) x += __shfl_xor_sync(ALL, x, apart);
    return x;
}

__device__ real warp_max(real x) {
    for (int apart = 16; apart; apart /= 2) x = larger(x, __shfl_xor_sync(ALL, x, apart));
    return x;
}

// Thread i of every warp gets the x of warp i, that is, of its first thread; or `none` if there is no warp i.
__device__ real from_warps(real x, real none) {
    __shared__ real parts[32];
    __syncthreads();  // until everyone has read what was there before
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    return threadIdx.x % 32 < blockDim.x / 32 ? parts[threadIdx.x % 32] : none;
}

// The sum over all threads of the block, in a fixed order; every thread gets it.
__device__ real block_sum(real x) {
    x = warp_sum(x);
    return blockDim.x == 32 ? x : warp_sum(from_warps(x, 0));
}

__device__ real block_max(real x) {
    x = warp_max(x);
    return blockDim.x == 32 ? x : warp_max(from_warps(x, -infinity()));
}
