// Resize whole photos of any size to crops in one pass. The engine normalises the grey levels.
// Defined by tests/oracles/preprocess.py: preprocess_bytes.
//
// Each thread computes one pixel of one crop. The threads of a warp write 32 neighbours in a row.

#include "image.cuh"

// The pixels of a row (or column) that make one pixel of the crop, and their weights. The row is reduced in one step to
// `length` means of `merged` pixels, and then interpolated.
struct Taps {
    int first, last, merged;
    float place;  // in the reduced row

    __device__ Taps(int index, int length, int size, int merged) : merged(merged) {
        place = fminf(fmaxf((index + 0.5f) * length / size - 0.5f, 0), (float)(length - 1));
        first = (int)place * merged;
        last = (min((int)place + 1, length - 1) + 1) * merged - 1;
    }

    __device__ float weight(int pixel) const { return (1 - fabsf(place - pixel / merged)) / merged; }
};

// Number of pixels of a row (and column) that are averaged: halve while both sides stay at least as long as the crop.
__device__ inline int merge(int height, int width, int size) {
    int merged = 1;
    while (height / merged >= 2 * size && width / merged >= 2 * size) merged *= 2;
    return merged;
}

// The three grey levels of one pixel of the crop. A mean may reach beyond the last pixel, which is then repeated.
__device__ inline void mix(const Image image, const Taps rows, const Taps columns, float* level) {
    level[0] = level[1] = level[2] = 0;
    for (int row = rows.first; row <= rows.last; ++row) {
        const unsigned char* line = image.pixels + min(row, image.height - 1) * image.pitch;
        for (int column = columns.first; column <= columns.last; ++column) {
            const float weight = rows.weight(row) * columns.weight(column);
            const unsigned char* from = line + 3 * min(column, image.width - 1);
            for (int c = 0; c < 3; ++c) level[c] += weight * from[c];
        }
    }
}

// images      (first + count), of which the first are skipped
// crops       (first + count, size, size, 3): grey levels, rounded
extern "C" __global__ void preprocess_u8(const Image* images, unsigned char* crops, int first, int count, int size) {
    const long long plane = (long long)size * size;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= plane * count) return;
    const long long n = first + thread / plane, pixel = thread % plane;
    const Image image = images[n];
    // The scales of a JPEG decoder come first, which keep an odd last row; then reduce as above.
    int scale = 1;
    while (scale < 8 && min(image.height, image.width) / size >= 2 * scale) scale *= 2;
    const int height = (image.height + scale - 1) / scale, width = (image.width + scale - 1) / scale;
    const int merged = merge(height, width, size);
    float level[3];
    mix(image, Taps((int)(pixel / size), height / merged, size, merged * scale),
        Taps((int)(pixel % size), width / merged, size, merged * scale), level);
    unsigned char* to = crops + 3 * (n * plane + pixel);
    for (int c = 0; c < 3; ++c) to[c] = (unsigned char)(level[c] + 0.5f);
}
