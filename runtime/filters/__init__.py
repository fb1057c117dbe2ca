"""Photos of an embedding file that a filter selects: as a list, and as a folder that can be undone."""
