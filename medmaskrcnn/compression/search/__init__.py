"""Search for the fastest variant of a model with nearly the same accuracy."""
