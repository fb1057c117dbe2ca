"""The CUDA layer: streams, events, pinned and device buffers. Empty until the GPU path lands."""
