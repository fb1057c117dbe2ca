"""Rows to answers: FAISS index build and search."""
