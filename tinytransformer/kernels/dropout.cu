// Random bytes need not be kept, nor come from the host: any of them can be computed at any time, by Philox.
// Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

typedef unsigned long long word;

// Word `i` of those that numpy.random.Philox(key=key) draws, from 0: it encrypts a counter, which makes four words. The
// counter begins with 1, as NumPy counts before it draws; `other` is the upper half of the key, which is 0 here.
__device__ word philox(word key, word i) {
    word a = i / 4 + 1, b = 0, c = 0, d = 0, other = 0;
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
    return i % 4 == 0 ? a : i % 4 == 1 ? b : i % 4 == 2 ? c : d;
}

// Every thread has eight elements, and draws a word for them: a byte for each, the lowest first. A NaN that is dropped
// stays one, as 0 * NaN is.
extern "C" __global__ void dropout(const real* x, real* y, whole count, word key, whole threshold, double factor) {
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (8 * i >= count) return;
    word bytes = philox(key, i);
    for (whole j = 8 * i; j < 8 * i + 8 && j < count; j++, bytes >>= 8)
        y[j] = (whole)(bytes & 255) < threshold ? 0 * x[j] : x[j] * (real)factor;
}
