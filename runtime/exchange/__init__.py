"""Out of the one file, for other programs: NumPy, Parquet, Qdrant."""
