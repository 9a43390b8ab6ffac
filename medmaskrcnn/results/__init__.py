"""Numbers about what was found."""
