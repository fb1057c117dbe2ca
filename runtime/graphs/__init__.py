"""ONNX in, ONNX out: read, prepare and rewrite models to FP16 or INT8. No engine runs here."""
