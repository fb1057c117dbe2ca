// CUDA's words in plain C++20, so that g++ compiles a kernel and a CPU runs it. Each thread of a block is a thread,
// which goes through all blocks: what the threads of a warp exchange is exchanged for real.
#pragma once

#include <barrier>
#include <cmath>
#include <memory>
#include <thread>
#include <vector>

#define __global__
#define __device__

struct Place {
    unsigned x;
};
inline thread_local Place blockIdx, threadIdx;
inline Place blockDim;

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

struct Warp {
    std::barrier<> meeting{32};
    float values[32];
};
inline std::vector<std::unique_ptr<Warp>> warps;

inline float __shfl_xor_sync(unsigned, float value, int mask) {
    Warp& warp = *warps[threadIdx.x / 32];
    const unsigned lane = threadIdx.x % 32;
    warp.values[lane] = value;
    warp.meeting.arrive_and_wait();
    const float other = warp.values[lane ^ mask];
    warp.meeting.arrive_and_wait();  // nobody writes the next value before all have read this one
    return other;
}

// In place of kernels/half.cuh, whose conversions are instructions of the GPU.
#define FACEMILL_HALF_CUH
struct Half {
    unsigned short bits;
};

inline float load(const float* from) { return *from; }
inline void store(float* to, float value) { *to = value; }

inline float load(const Half* from) {
    const int exponent = from->bits >> 10 & 31, fraction = from->bits & 1023;
    float value;
    if (exponent == 31) {
        value = fraction ? NAN : INFINITY;
    } else {
        value = exponent ? std::ldexp(1024.0f + fraction, exponent - 25) : std::ldexp((float)fraction, -24);
    }
    return from->bits >> 15 ? -value : value;
}

inline void store(Half* to, float value) {
    const unsigned sign = std::signbit(value) ? 0x8000 : 0;
    const float size = std::fabs(value);
    if (std::isnan(value)) {
        to->bits = 0x7fff;
    } else if (size >= 65520) {  // beyond half way from the largest to the next one
        to->bits = sign | 0x7c00;
    } else {
        int exponent = -13;  // zero and subnormals: steps of 2^-24
        if (size >= 0x1p-14f) std::frexp(size, &exponent);
        const unsigned steps = (unsigned)std::nearbyint(std::ldexp(size, 11 - exponent));  // to even
        to->bits = sign | (((unsigned)(exponent + 13) << 10) + steps);
    }
}

template <auto Kernel>
struct Run;

template <class... A, void (*Kernel)(A...)>
struct Run<Kernel> {
    // `threads` is a multiple of 32.
    static void run(unsigned blocks, unsigned threads, A... arguments) {
        blockDim.x = threads;
        warps.clear();
        for (unsigned i = 0; i < threads / 32; ++i) warps.push_back(std::make_unique<Warp>());
        std::vector<std::jthread> crew;
        for (unsigned i = 0; i < threads; ++i) {
            crew.emplace_back([=] {
                threadIdx.x = i;
                for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) Kernel(arguments...);
            });
        }
    }
};

// A name that a library finds `kernel` by, to be called as kernel(blocks, threads, arguments...).
#define EXPORT(kernel) extern "C" void* const run_##kernel = (void*)&Run<kernel>::run;
