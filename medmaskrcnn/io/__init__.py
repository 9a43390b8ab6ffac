"""From files to a Volume: NIfTI, NRRD, MHA, DICOM, pictures; voxels as stored, geometry checked."""
