"""Sources of photos: scan folders, single files and list files, and read each photo."""
