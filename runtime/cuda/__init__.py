"""What a GPU is made to do: streams, events, pinned and device buffers, and our own kernels."""
