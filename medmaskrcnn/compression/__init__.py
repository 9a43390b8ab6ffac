"""Smaller and faster forms of a model: quantised, pruned, exported, and the search among them."""
