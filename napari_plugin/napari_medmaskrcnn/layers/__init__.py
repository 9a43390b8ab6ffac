"""napari layers made from scans and results, and back."""
