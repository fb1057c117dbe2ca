"""Vectors to rows on disk: segments, the outcome ledger, the dataset that a user opens."""
