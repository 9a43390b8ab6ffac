"""What reading and writing DICOM share: the geometry of frames and the names of objects."""
