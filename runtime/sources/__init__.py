"""What to read, in which order: folders, single files and list files to an ordered scan."""
