"""Files made from a result: label map, table, JSON, preview."""
