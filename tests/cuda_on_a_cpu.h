// CUDA C++ for a machine without a GPU: enough of it to run the kernels of tinytransformer, one thread at a time.
//
// The threads of a block are coroutines. Each runs until it has to wait for others, or has ended; then the next of its
// warp has its turn. A warp runs on until it waits for the whole block; every other launch begins with the last. So
// whoever reads what another has yet to write reads what was there before, and a warp that does not wait goes far
// ahead, as it may on a GPU; but two threads that write to one place at once go unnoticed. The threads of a warp have
// to wait at the same places, apart from those that have ended; if they do not, the program is ended.

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

using std::exp;
using std::log;
using std::sqrt;

#define __global__
#define __launch_bounds__(threads)
#define __device__ static
#define __shared__ static

struct Place {
    unsigned x, y, z;
};
static Place gridDim, blockIdx, blockDim, threadIdx;

namespace stand_in {

const int MOST = 1024, STACK = 1 << 16;
const char* const BARRIER = "__syncthreads";
static ucontext_t beginnings[MOST];
static jmp_buf scheduler, threads[MOST];  // where each goes on; to jump there asks nothing of the system
static bool begun[MOST], ended[MOST];
static const char* waits_at[MOST];
static double handed[2][MOST];  // by turns, so that nobody overwrites what another has yet to read
static int times[MOST];
static int now;  // whose turn it is
static bool backwards = true;  // every other launch begins with the last thread, so that it shows if that matters
static std::function<void()> kernel;
static std::vector<char> stacks(MOST* STACK);

static void wait(const char* where) {
    if (!begun[now]) {
        fprintf(stderr, "thread %d waits at %s, the first nowhere\n", now, where);
        abort();
    }
    waits_at[now] = where;
    if (!_setjmp(threads[now])) _longjmp(scheduler, 1);
}

// Hand `x` to all others, and return what each of them has handed over.
static const double* hand_over(const char* where, double x) {
    double* all = handed[times[now]++ % 2];
    all[now] = x;
    wait(where);
    return all;
}

static void live() {
    for (;;) {
        kernel();
        ended[now] = true;
        wait("the end");
    }
}

static void begin(int i) {
    begun[i] = true;
    getcontext(&beginnings[i]);
    beginnings[i].uc_stack.ss_sp = &stacks[i * STACK];
    beginnings[i].uc_stack.ss_size = STACK;
    makecontext(&beginnings[i], live, 0);
    setcontext(&beginnings[i]);
}

static void turn_to(int i) {
    now = i;
    threadIdx = {i % blockDim.x, i / blockDim.x, 0};
}

static void take_turn(int i) {
    turn_to(i);
    if (_setjmp(scheduler)) return;
    if (begun[i]) _longjmp(threads[i], 1);
    begin(i);
}

// Let the 32 threads of a warp go on, step by step, until all of them wait for the block, or have ended; `taken` has
// had its turn. Return whether any is left.
static bool run_warp(int first, int taken) {
    for (;; taken = -1) {
        const char* where = nullptr;
        for (int k = 0; k < 32; k++) {
            int i = first + (backwards ? 31 - k : k);
            if (!ended[i] && i != taken) take_turn(i);
            if (ended[i]) continue;
            if (where && strcmp(where, waits_at[i])) {
                fprintf(stderr, "thread %d waits at %s, one before it at %s\n", i, waits_at[i], where);
                abort();
            }
            where = waits_at[i];
        }
        if (!where) return false;
        if (!strcmp(where, BARRIER)) return true;
    }
}

static void run_block() {
    int count = blockDim.x * blockDim.y, taken = backwards ? count - 1 : 0;
    for (int i = 0; i < count; i++) ended[i] = false, times[i] = 0;
    take_turn(taken);
    if (ended[taken]) {  // without waiting: then nobody may, and all can be called in turn
        for (int k = 1; k < count; k++) {
            int i = backwards ? count - 1 - k : k;
            turn_to(i);
            bool before = begun[i];
            begun[i] = false;
            kernel();
            begun[i] = before;
        }
        return;
    }
    for (bool any = true; any; taken = -1) {
        any = false;
        for (int k = 0; k < count; k += 32) any |= run_warp(backwards ? count - 32 - k : k, taken);
    }
}

static void run(Place blocks, Place in_a_block, std::function<void()> what) {
    kernel = what;
    backwards = !backwards;
    gridDim = blocks;
    blockDim = in_a_block;
    for (blockIdx = {0, 0, 0}; blockIdx.y < blocks.y; blockIdx.y++)
        for (blockIdx.x = 0; blockIdx.x < blocks.x; blockIdx.x++) run_block();
}

}  // namespace stand_in

static void __syncthreads() { stand_in::wait(stand_in::BARRIER); }

template <class T> static T __shfl_xor_sync(unsigned, T x, int apart) {
    return stand_in::hand_over("__shfl_xor_sync", x)[stand_in::now ^ apart];
}

static unsigned __ballot_sync(unsigned, bool x) {
    const double* of_warp = stand_in::hand_over("__ballot_sync", x) + stand_in::now / 32 * 32;
    unsigned votes = 0;
    for (int i = 0; i < 32; i++) votes |= (unsigned)(of_warp[i] != 0) << i;
    return votes;
}

static int __ffs(unsigned x) { return __builtin_ffs(x); }

static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

static double __longlong_as_double(unsigned long long bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
