// optim.py has the formulas. `take_m` holds the scale of the gradient, and may not be finite where `sound` is false.
extern "C" __global__ void adam(
    real* __restrict__ p, real* __restrict__ gradient, real* __restrict__ m, real* __restrict__ v,
    const real* __restrict__ take_m, const bool* __restrict__ sound, whole count, whole decayed,
    double fade_m, double take_v, double fade_v, double rate, double eps, double fade)
{
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    real g = gradient[i] * *take_m, first = m[i], second = v[i], value = p[i];  // all are asked for at once
    gradient[i] = 0;
    if (!*sound) return;
    first = first * (real)fade_m + g;
    second = second * (real)fade_v + g * g * (real)take_v;
    if (i < decayed) value *= (real)fade;
    m[i] = first;
    v[i] = second;
    p[i] = value - first / (sqrt(second) + (real)eps) * (real)rate;
}
