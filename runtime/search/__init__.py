"""Find the rows of a file nearest to a photo, and compare two photos."""
