"""From a result to files: NIfTI label map, table, JSON, picture."""
