"""A map of an embedding file: every face a point, like faces near each other, as a page to look at."""
