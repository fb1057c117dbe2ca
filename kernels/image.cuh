// A decoded photo on the device.
#ifndef FACEMILL_IMAGE_CUH
#define FACEMILL_IMAGE_CUH

struct Image {
    const unsigned char* pixels;  // (height, width, 3), rows `pitch` bytes apart
    long long pitch;
    int width, height;
};

#endif
