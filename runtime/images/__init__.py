"""Decode photos to pixels: headers, decoding, resizing. The numeric contract of a pixel."""
