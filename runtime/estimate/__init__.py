"""Estimate the time, disk and memory of a job before it starts."""
