"""Questions about all rows of a file at once: who is in it twice, which photographs belong together."""
