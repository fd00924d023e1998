// Add up the rows that carry the same id, one after the other: a block for every id, four columns for every thread, and
// if that does not suffice four more.
extern "C" __global__ void sum_rows_by_id(const real* rows, const whole* ids, real* sums, whole count, whole d) {
    whole id = blockIdx.x, wide = blockDim.x;
    for (whole column = threadIdx.x; column - threadIdx.x < d; column += 4 * wide) {
        real sum[4] = {0, 0, 0, 0};
        for (whole first = 0; first < count; first += 32) {  // each thread of a warp looks at one of 32 ids
            whole other = first + threadIdx.x % 32;
            unsigned found = __ballot_sync(ALL, other < count && ids[other] == id);
            for (; found; found &= found - 1) {
                const real* row = rows + (first + __ffs(found) - 1) * d;
                for (int j = 0; j < 4; j++)
                    if (column + j * wide < d) sum[j] += row[column + j * wide];
            }
        }
        for (int j = 0; j < 4; j++)
            if (column + j * wide < d) sums[id * d + column + j * wide] = sum[j];
    }
}
