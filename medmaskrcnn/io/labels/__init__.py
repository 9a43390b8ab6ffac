"""Reading labels: RTSTRUCT, DICOM SEG, label maps and COCO JSON as instances on a scan's grid."""
