"""Streams, events, pinned and device buffers on a GPU, and our own kernels."""
