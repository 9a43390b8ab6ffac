"""Of one model the fastest version that is about as good: tried, measured, written."""
