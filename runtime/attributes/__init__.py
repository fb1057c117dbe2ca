"""Age and gender of faces: what a network's answers mean, a head for embeddings, and filters."""
