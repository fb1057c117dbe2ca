"""Examine this machine, and give the command that fixes each problem."""
