"""Retrieve scans from an archive and store results in it, by DICOMweb or DIMSE."""
