// Where the matrices of a batch begin, which for three arrays (B, H, ...) is all that cuBLAS has to be told.
extern "C" __global__ void addresses(
    whole* places, whole count, whole heads,
    whole x, whole x_b, whole x_h, whole y, whole y_b, whole y_h, whole z, whole z_b, whole z_h)
{
    whole i = (whole)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    whole b = i / heads, h = i % heads;
    places[i] = x + b * x_b + h * x_h;
    places[count + i] = y + b * y_b + h * y_h;
    places[2 * count + i] = z + b * z_b + h * z_h;
}
