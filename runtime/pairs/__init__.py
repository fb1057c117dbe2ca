"""Find all pairs of rows above a threshold: people who are in a file twice."""
