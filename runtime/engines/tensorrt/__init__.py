"""The TensorRT backend: build a plan, hold its memory, run it."""
