"""Group the rows of a file into clusters: the photos of each person."""
