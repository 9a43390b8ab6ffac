"""Hyperparameter search: many short trainings with changed values of a plan."""
