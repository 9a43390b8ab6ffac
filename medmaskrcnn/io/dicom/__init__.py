"""Reading DICOM: headers, geometry of frames, grouping into series, and decoding of pixels."""
