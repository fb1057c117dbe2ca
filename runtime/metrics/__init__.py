"""Compute accuracy, error rates and retrieval figures from scores. NumPy only; knows no embedding file."""
