"""One file a command; no logic that a library caller would miss."""
