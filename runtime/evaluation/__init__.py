"""How good embeddings are: the product's own pipeline on photographs whose people are known."""
