"""All pairs of rows above a threshold: who is in the file twice."""
