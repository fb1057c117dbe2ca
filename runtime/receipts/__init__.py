"""Folders with a receipt: it names what facemill wrote there, so that nothing else is ever removed."""
