"""Writes a result to files: label map, tables, JSON, preview and report, meshes and DICOM objects."""
