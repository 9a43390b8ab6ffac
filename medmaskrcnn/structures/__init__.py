"""Data structures shared by all packages: scans, grids, masks, instances, results."""
