"""Measure recognition quality: the product's own pipeline on photos of known people."""
