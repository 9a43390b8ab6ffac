"""The fastest version of a model that is about as good: tried, measured, written."""
