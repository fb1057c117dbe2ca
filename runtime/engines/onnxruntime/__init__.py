"""The ONNX Runtime backends: on the CPU, and on an NVIDIA GPU."""
