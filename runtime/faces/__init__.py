"""Pixels to faces to aligned crops: detectors, the finder, alignment, quality, selection."""
