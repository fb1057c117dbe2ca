"""Export embeddings to other programs: NumPy, Parquet, Qdrant."""
