"""From a manifest of labelled cases to a model file."""
