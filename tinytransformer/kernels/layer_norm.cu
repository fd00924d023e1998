// ops/normalisation.py has the formulas.

extern "C" __global__ void layer_norm(
    const real* x, const real* gain, const real* bias, real* y, real* mean, real* inv_std, whole d, double eps)
{
    const real* row = x + blockIdx.x * d;
    real sum = 0, squares = 0;
    for (whole i = threadIdx.x; i < d; i += blockDim.x) sum += row[i];
    real mu = block_sum(sum) / d;
    for (whole i = threadIdx.x; i < d; i += blockDim.x) squares += (row[i] - mu) * (row[i] - mu);
    real inverse = 1 / sqrt(block_sum(squares) / d + (real)eps);
    for (whole i = threadIdx.x; i < d; i += blockDim.x)
        y[blockIdx.x * d + i] = gain[i] * ((row[i] - mu) * inverse) + bias[i];
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = mu;
        inv_std[blockIdx.x] = inverse;
    }
}

extern "C" __global__ void layer_norm_backward(
    const real* dy, const real* x, const real* gain, const real* mean, const real* inv_std, real* dx, whole d)
{
    whole first = blockIdx.x * d;
    real mu = mean[blockIdx.x], inverse = inv_std[blockIdx.x], sum = 0, products = 0;
    for (whole i = threadIdx.x; i < d; i += blockDim.x) {
        real dxhat = dy[first + i] * gain[i];
        sum += dxhat;
        products += (x[first + i] - mu) * inverse * dxhat;
    }
    real mean_dxhat = block_sum(sum) / d, mean_product = block_sum(products) / d;
    for (whole i = threadIdx.x; i < d; i += blockDim.x) {
        real xhat = (x[first + i] - mu) * inverse;
        dx[first + i] = (dy[first + i] * gain[i] - mean_dxhat - xhat * mean_product) * inverse;
    }
}

// dgain and dbias, sums over all rows.
extern "C" __global__ void __launch_bounds__(1024) layer_norm_parameters(
    const real* dy, const real* x, const real* mean, const real* inv_std, real* dgain, real* dbias, whole rows, whole d)
{
    whole column = blockIdx.x * 32 + threadIdx.x;
    real gain = 0, bias = 0;
    if (column < d) {
        #pragma unroll 4
        for (whole row = threadIdx.y; row < rows; row += 32) {
            real slope = dy[row * d + column];
            bias += slope;
            gain += slope * (x[row * d + column] - mean[row]) * inv_std[row];
        }
    }
    gain = column_sum(gain);
    bias = column_sum(bias);
    column = blockIdx.x * 32 + threadIdx.y;
    if (threadIdx.x == 0 && column < d) {
        dgain[column] = gain;
        dbias[column] = bias;
    }
}
