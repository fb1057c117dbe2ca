"""Groups of rows: the photos of each person."""
