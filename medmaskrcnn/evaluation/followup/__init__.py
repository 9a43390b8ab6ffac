"""One patient over time: which lesion is which, and how each has changed."""
