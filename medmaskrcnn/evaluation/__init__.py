"""Evaluation of a model on labelled cases, and follow-up of the lesions of one patient over time."""
