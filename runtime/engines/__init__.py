"""Crops to unit vectors: an ONNX graph to an engine file, and one runner per backend."""
