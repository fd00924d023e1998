// optim.py has the formulas. `take_m` is (1 - beta1) times the scale that clips the gradient, and can be infinite or
// NaN where `sound` is false; `take_v` makes up for its square. The first `decayed` elements belong to matrices: they
// alone decay, to `fade` of what they were.
//
// A thread has four elements, as far apart as the block has threads, so that neighbours read neighbours, and asks for
// all of them before it waits for any. So the first four arrays are not said to be __restrict__: the compiler would put
// off what is read of three of them until `sound` is known, and the thread would wait for memory twice.
extern "C" __global__ void adam(
    real* p, real* gradient, real* m, real* v, const real* __restrict__ take_m, const bool* __restrict__ sound,
    whole count, whole decayed, double fade_m, double take_v, double fade_v, double rate, double eps, double fade)
{
    whole first = (whole)blockIdx.x * blockDim.x * 4 + threadIdx.x;
    real gradients[4], moments1[4], moments2[4], values[4];
    #pragma unroll
    for (int k = 0; k < 4; k++) {
        whole i = first + k * blockDim.x;
        if (i < count) gradients[k] = gradient[i], moments1[k] = m[i], moments2[k] = v[i], values[k] = p[i];
    }
    #pragma unroll
    for (int k = 0; k < 4; k++)
        if (first + k * blockDim.x < count) gradient[first + k * blockDim.x] = 0;
    if (!*sound) return;
    #pragma unroll
    for (int k = 0; k < 4; k++) {
        whole i = first + k * blockDim.x;
        if (i >= count) return;
        real g = gradients[k] * *take_m, moment1 = moments1[k], moment2 = moments2[k], value = values[k];
        moment1 = moment1 * (real)fade_m + g;
        moment2 = moment2 * (real)fade_v + g * g * (real)take_v;
        if (i < decayed) value *= (real)fade;
        m[i] = moment1;
        v[i] = moment2;
        p[i] = value - moment1 / (sqrt(moment2) + (real)eps) * (real)rate;
    }
}
