"""Embeddings for other programs: NumPy, Parquet, Qdrant."""
