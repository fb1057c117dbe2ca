// Rows of any length up to 1024 to unit rows in FP32, in one pass.
// Defined by runtime/graphs/unit.py: unit_rows.
//
// One warp makes one row and holds it in registers, so each number is read once; lane k reads every 32nd.

#include "half.cuh"

constexpr int WARP = 32;
constexpr int HELD = 32;  // numbers a lane holds: rows up to WARP * HELD
constexpr float SMALLEST_NORM = 1e-12f;

// rows        (count, dimension)
// units       (count, dimension)   a zero row stays zero; a row with a NaN is NaN throughout
template <class T>
__device__ void l2norm(const T* rows, float* units, int count, int dimension) {
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    const long long row = thread / WARP;
    const int lane = (int)(thread % WARP);
    if (row >= count) return;  // a warp as a whole: nobody is missing from the sum below
    rows += row * dimension;
    units += row * dimension;

    float held[HELD], sum = 0;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const int column = lane + WARP * i;
        held[i] = column < dimension ? load(rows + column) : 0;
        sum += held[i] * held[i];
    }
    for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);

    const float norm = sqrtf(sum);
    const float divisor = norm < SMALLEST_NORM ? SMALLEST_NORM : norm;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const int column = lane + WARP * i;
        if (column < dimension) units[column] = held[i] / divisor;
    }
}

extern "C" __global__ void l2norm_f16(const Half* rows, float* units, int count, int dimension) {
    l2norm(rows, units, count, dimension);
}

extern "C" __global__ void l2norm_f32(const float* rows, float* units, int count, int dimension) {
    l2norm(rows, units, count, dimension);
}
