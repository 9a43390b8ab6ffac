"""Follow-up of one patient: lesions matched over time, and how each has changed."""
