// Warp decoded photos of any size to aligned crops in one pass. The engine normalises the grey levels.
// Defined by tests/oracles/warp.py: warp_bytes.
//
// Each thread computes one pixel of one crop. The threads of a warp write 32 neighbours in a row.

#include "image.cuh"

// The crop of a thread, and its pixel in the crop.
struct Pixel {
    long long plane, n, pixel;

    __device__ explicit Pixel(int size) {
        plane = (long long)size * size;
        const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
        n = thread / plane, pixel = thread % plane;
    }
};

// The three grey levels of a photo at the place to which a transform `t`, (2, 3), maps pixel (u, v) of the crop. A photo
// that is at least twice as large as the crop is reduced first: squares of `merged` x `merged` pixels are averaged.
__device__ inline void sample(const Image image, const float* t, float u, float v, float* level) {
    const float scale = sqrtf(t[0] * t[0] + t[3] * t[3]);
    int merged = 1;
    while (merged < 64 && scale >= 2 * merged) merged *= 2;
    const int height = image.height / merged, width = image.width / merged;
    const float x = (t[0] * u + t[1] * v + t[2] + 0.5f) / merged - 0.5f;
    const float y = (t[3] * u + t[4] * v + t[5] + 0.5f) / merged - 0.5f;
    level[0] = level[1] = level[2] = 0;  // black outside the photo
    // Compare before the conversion to integers, so that NaN is outside too.
    if (x > -1 && y > -1 && x < width && y < height) {
        const int left = (int)floorf(x), top = (int)floorf(y);
        const float share = 1.0f / (merged * merged);
        for (int row = max(top, 0); row <= min(top + 1, height - 1); ++row) {
            for (int column = max(left, 0); column <= min(left + 1, width - 1); ++column) {
                const float weight = (1 - fabsf(x - column)) * (1 - fabsf(y - row)) * share;
                const unsigned char* square = image.pixels + row * merged * image.pitch + 3 * column * merged;
                for (int i = 0; i < merged; ++i) {
                    for (int j = 0; j < merged; ++j) {
                        const unsigned char* from = square + i * image.pitch + 3 * j;
                        for (int c = 0; c < 3; ++c) level[c] += weight * from[c];
                    }
                }
            }
        }
    }
}

// images      (count)
// transforms  (count, 2, 3)           crop pixel (column, row, 1) -> photo pixel (column, row)
// crops       (count, size, size, 3)  grey levels, rounded
// reverse     not 0: reverse the channel order
extern "C" __global__ void align_u8(const Image* images, const float* transforms, unsigned char* crops, int count,
                                    int size, int reverse) {
    const Pixel at(size);
    if (at.n >= count) return;
    float level[3];
    sample(images[at.n], transforms + 6 * at.n, (float)(at.pixel % size), (float)(at.pixel / size), level);
    unsigned char* to = crops + 3 * (at.n * at.plane + at.pixel);
    for (int c = 0; c < 3; ++c) to[c] = (unsigned char)(level[reverse ? 2 - c : c] + 0.5f);
}
