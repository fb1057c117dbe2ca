// Photographs of one size, NHWC uint8, to normalised crops, NCHW, in one pass.
// Defined by runtime/images/preprocess.py: preprocess_crops.
//
// One thread makes one pixel of one crop: the threads of a warp write 32 neighbours of each colour plane.

#include "half.cuh"

// Which pixels of a row (or column) make one pixel of the crop, and how much of each.
struct Taps {
    int first, last;
    bool area;
    float start, stop;  // area: the stretch that is averaged; else start is the place that is interpolated

    __device__ Taps(int index, int length, float step, bool merge) : area(merge) {
        if (area) {
            start = index * step;
            stop = start + step;
            first = min((int)start, length - 1);
            last = min((int)ceilf(stop), length) - 1;
        } else {
            start = fminf(fmaxf((index + 0.5f) * step - 0.5f, 0), (float)(length - 1));
            stop = start;
            first = (int)start;
            last = min(first + 1, length - 1);
        }
    }

    __device__ float weight(int place) const {
        if (area) return fmaxf(fminf(place + 1.0f, stop) - fmaxf((float)place, start), 0) / (stop - start);
        return 1 - fabsf(place - start);
    }
};

// images      (count, height, width, 3), rows `pitch` bytes apart
// normalise   (2, 3)               crop = grey level * normalise[0] + normalise[1], by channel of the crop
// crops       (count, 3, size, size)
// reverse     not 0: the crop's channels are the photograph's in reverse order
template <class T>
__device__ void preprocess(const unsigned char* images, long long pitch, const float* normalise, T* crops, int count,
                           int height, int width, int size, int reverse) {
    const long long plane = (long long)size * size;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= plane * count) return;
    const long long n = thread / plane, pixel = thread % plane;
    // As on the CPU: averaging when pixels are merged in both directions, interpolating otherwise.
    const bool area = height >= size && width >= size;
    const Taps rows((int)(pixel / size), height, (float)height / size, area);
    const Taps columns((int)(pixel % size), width, (float)width / size, area);

    float level[3] = {0, 0, 0};
    for (int row = rows.first; row <= rows.last; ++row) {
        const unsigned char* line = images + (n * height + row) * pitch;
        for (int column = columns.first; column <= columns.last; ++column) {
            const float weight = rows.weight(row) * columns.weight(column);
            for (int c = 0; c < 3; ++c) level[c] += weight * line[3 * column + c];
        }
    }
    for (int c = 0; c < 3; ++c) {
        store(crops + (3 * n + c) * plane + pixel, level[reverse ? 2 - c : c] * normalise[c] + normalise[3 + c]);
    }
}

extern "C" __global__ void preprocess_f16(const unsigned char* images, long long pitch, const float* normalise,
                                          Half* crops, int count, int height, int width, int size, int reverse) {
    preprocess(images, pitch, normalise, crops, count, height, width, size, reverse);
}

extern "C" __global__ void preprocess_f32(const unsigned char* images, long long pitch, const float* normalise,
                                          float* crops, int count, int height, int width, int size, int reverse) {
    preprocess(images, pitch, normalise, crops, count, height, width, size, reverse);
}
