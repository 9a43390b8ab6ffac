"""Conversion of scans and results to napari layers and back."""
