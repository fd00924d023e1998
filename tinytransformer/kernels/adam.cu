// optim.py has the formulas. `take_m` is (1 - beta1) times the scale that clips the gradient, and can be infinite or
// NaN where `sound` is false; `take_v` makes up for its square. The first `decayed` elements belong to matrices: they
// alone decay, to `fade` of what they were.
extern "C" __global__ void adam(
    real* __restrict__ p, real* __restrict__ gradient, real* __restrict__ m, real* __restrict__ v,
    const real* __restrict__ take_m, const bool* __restrict__ sound, whole count, whole decayed,
    double fade_m, double take_v, double fade_v, double rate, double eps, double fade)
{
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    real g = gradient[i] * *take_m, moment1 = m[i], moment2 = v[i], value = p[i];  // asked for before any is used
    gradient[i] = 0;
    if (!*sound) return;
    moment1 = moment1 * (real)fade_m + g;
    moment2 = moment2 * (real)fade_v + g * g * (real)take_v;
    if (i < decayed) value *= (real)fade;
    m[i] = moment1;
    v[i] = moment2;
    p[i] = value - moment1 / (sqrt(moment2) + (real)eps) * (real)rate;
}
