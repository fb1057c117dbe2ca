"""Questions about a query photo: the nearest rows of a file, and whether two photos show the same person."""
