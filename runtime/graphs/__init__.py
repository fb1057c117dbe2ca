"""ONNX in, ONNX out: models read, prepared, rewritten to FP16 or INT8. Nothing runs here."""
