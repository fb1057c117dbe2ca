// 16-bit floats as numbers of 16 bits. CUDA's own cuda_fp16.h is in no wheel that NVRTC can be installed from,
// and two instructions are all that is needed of it.
#ifndef FACEMILL_HALF_CUH
#define FACEMILL_HALF_CUH

struct Half {
    unsigned short bits;
};

__device__ inline void store(float* to, float value) { *to = value; }

__device__ inline void store(Half* to, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
}

__device__ inline float load(const float* from) { return *from; }

__device__ inline float load(const Half* from) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(from->bits));
    return value;
}

#endif
