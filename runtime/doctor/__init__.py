"""What this machine has, and the command that mends what is missing."""
