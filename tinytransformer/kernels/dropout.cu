// Random bytes need not be kept, nor come from the host: any of them can be computed at any time, by Philox.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

typedef unsigned long long word;

// Words 4 * i to 4 * i + 3 of those that numpy.random.Philox(key=key) draws, from 0: it encrypts a counter, which makes
// four words. The counter begins with 1, as NumPy counts before it draws; `other` is the upper half of the key, which
// is 0 here.
__device__ void philox(word key, word i, word* four) {
    word a = i + 1, b = 0, c = 0, d = 0, other = 0;
    for (int round = 0; round < 10; round++) {
        const word FACTOR_A = 0xD2E7470EE14C6C93, FACTOR_C = 0xCA5A826395121157;
        word low_a = FACTOR_A * a, high_a = __umul64hi(FACTOR_A, a);
        word low_c = FACTOR_C * c, high_c = __umul64hi(FACTOR_C, c);
        a = high_c ^ b ^ key;
        b = low_c;
        c = high_a ^ d ^ other;
        d = low_a;
        key += 0x9E3779B97F4A7C15;
        other += 0xBB67AE8584CAA73B;
    }
    four[0] = a, four[1] = b, four[2] = c, four[3] = d;
}

const int EACH = 8, THREADS = 256;  // elements of a thread; threads of a block, as launch_elements has them

// A byte for every element, the lowest of a word first. The elements of a thread are as far apart as the block has
// threads, so that neighbours read neighbours; it asks for all of them before it waits for any. Four words are bytes
// for 32 elements: a quarter of the threads draw them, for all. A NaN that is dropped stays one, as 0 * NaN is.
extern "C" __global__ void dropout(const real* x, real* y, whole count, word key, whole threshold, double factor) {
    __shared__ word words[EACH * THREADS / 8];
    const unsigned char* bytes = (const unsigned char*)words + threadIdx.x;
    whole first = (whole)blockIdx.x * EACH * THREADS + threadIdx.x;
    real mine[EACH];
    #pragma unroll
    for (int k = 0; k < EACH; k++)
        if (first + k * THREADS < count) mine[k] = x[first + k * THREADS];
    if (threadIdx.x < THREADS / 4)
        philox(key, (whole)blockIdx.x * (THREADS / 4) + threadIdx.x, words + 4 * threadIdx.x);
    __syncthreads();
    #pragma unroll
    for (int k = 0; k < EACH; k++)
        if (first + k * THREADS < count)
            y[first + k * THREADS] = bytes[k * THREADS] < threshold ? 0 * mine[k] : mine[k] * (real)factor;
}
