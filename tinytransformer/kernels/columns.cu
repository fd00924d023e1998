// To add up columns a block of 32 x 32 threads takes 32 of them; the 32 threads of a column each add up a 32nd of its
// rows, and then a warp adds up those 32 sums. Between the two they stand in shared memory, which has 32 banks, and
// gives a word of each at a time: in rows of 33 words the elements of a column fall into different banks.

// Each thread has a part of the sum of column threadIdx.x; all threads of warp i get the whole sum of column i.
__device__ real column_sum(real part) {
    __shared__ real parts[32][33];
    __syncthreads();  // until everyone has read what was there before
    parts[threadIdx.x][threadIdx.y] = part;
    __syncthreads();
    return warp_sum(parts[threadIdx.y][threadIdx.x]);
}
