"""Scans out of an archive and results into it: DICOMweb and DIMSE."""
