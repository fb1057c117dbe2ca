// Decoded photographs of any sizes to aligned, normalised crops in one pass.
// Defined by runtime/images/warp.py: warp_crops.
//
// One thread makes one pixel of one crop: the threads of a warp write 32 neighbours of each colour plane.

#include "half.cuh"

struct Image {
    const unsigned char* pixels;  // (height, width, 3), rows `pitch` bytes apart
    long long pitch;
    int width, height;
};

// images      (count)
// transforms  (count, 2, 3)        crop pixel (column, row, 1) -> photograph pixel (column, row)
// normalise   (2, 3)               crop = grey level * normalise[0] + normalise[1], by channel of the crop
// crops       (count, 3, size, size)
// reverse     not 0: the crop's channels are the photograph's in reverse order
template <class T>
__device__ void align(const Image* images, const float* transforms, const float* normalise, T* crops, int count,
                      int size, int reverse) {
    const long long plane = (long long)size * size;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= plane * count) return;
    const long long n = thread / plane, pixel = thread % plane;
    const float u = (float)(pixel % size), v = (float)(pixel / size);
    const float* t = transforms + 6 * n;
    const float x = t[0] * u + t[1] * v + t[2];
    const float y = t[3] * u + t[4] * v + t[5];

    const Image image = images[n];
    float level[3] = {0, 0, 0};  // what lies outside the photograph is black
    // Compared before they become integers: a NaN is outside too.
    if (x > -1 && y > -1 && x < image.width && y < image.height) {
        const int left = (int)floorf(x), top = (int)floorf(y);
        for (int row = max(top, 0); row <= min(top + 1, image.height - 1); ++row) {
            for (int column = max(left, 0); column <= min(left + 1, image.width - 1); ++column) {
                const float weight = (1 - fabsf(x - column)) * (1 - fabsf(y - row));
                const unsigned char* from = image.pixels + row * image.pitch + 3 * column;
                for (int c = 0; c < 3; ++c) level[c] += weight * from[c];
            }
        }
    }
    for (int c = 0; c < 3; ++c) {
        store(crops + (3 * n + c) * plane + pixel, level[reverse ? 2 - c : c] * normalise[c] + normalise[3 + c]);
    }
}

extern "C" __global__ void align_f16(const Image* images, const float* transforms, const float* normalise, Half* crops,
                                     int count, int size, int reverse) {
    align(images, transforms, normalise, crops, count, size, reverse);
}

extern "C" __global__ void align_f32(const Image* images, const float* transforms, const float* normalise, float* crops,
                                     int count, int size, int reverse) {
    align(images, transforms, normalise, crops, count, size, reverse);
}
