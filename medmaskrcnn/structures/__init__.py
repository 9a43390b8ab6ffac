"""What is handed from room to room: scans, grids, instances, results."""
