"""A network walked over a prepared scan: in tiles (3D) or slice by slice (2D, 2.5D)."""
