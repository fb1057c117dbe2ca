"""Bytes to an aligned crop: headers, decoding, resizing. The numeric contract of a pixel."""
