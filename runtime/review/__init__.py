"""Decisions of people: which faces show the same person, which never do, and what the people are called."""
