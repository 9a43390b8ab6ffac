"""What reading and writing DICOM share: the geometry of frames, codes, UIDs."""
