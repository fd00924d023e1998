// Add up the rows that carry the same id, one after the other: a block for every id, four columns for every thread, and
// if that does not suffice four more.
extern "C" __global__ void sum_rows_by_id(const real* rows, const whole* ids, real* sums, whole count, whole d) {
    whole id = blockIdx.x, wide = blockDim.x;
    for (whole column = threadIdx.x; column - threadIdx.x < d; column += 4 * wide) {  // as often for all threads
        real sum[4] = {0, 0, 0, 0};
        // Each thread of a warp looks at one of 32 ids, and all learn what it found: bit i of `found` is whether row
        // first + i has this id. __ffs names the lowest bit that is set, counted from 1; found & (found - 1) clears it.
        for (whole first = 0; first < count; first += 32) {
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
