"""What to label next: unlabelled scans ranked by how unsure the model is of them, and by how much they differ."""
