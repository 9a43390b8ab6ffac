"""Search over the values of a plan by many short trainings."""
