// CUDA's words in plain C++20, so that g++ compiles a kernel and a CPU runs it, one thread of a block after another:
// the kernels exchange nothing between threads.
#pragma once

#include <cmath>

#define __global__
#define __device__

struct Place {
    unsigned x;
};
inline thread_local Place blockIdx, threadIdx;
inline Place blockDim;

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

template <auto Kernel>
struct Run;

template <class... A, void (*Kernel)(A...)>
struct Run<Kernel> {
    static void run(unsigned blocks, unsigned threads, A... arguments) {
        blockDim.x = threads;
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) Kernel(arguments...);
        }
    }
};

// A name that a library finds `kernel` by, to be called as kernel(blocks, threads, arguments...).
#define EXPORT(kernel) extern "C" void* const run_##kernel = (void*)&Run<kernel>::run;
