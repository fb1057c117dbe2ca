"""Changes to a finished file: add, remove, merge, repair."""
