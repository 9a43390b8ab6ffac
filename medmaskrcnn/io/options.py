"""Options for reading; by default nothing is changed and irregular slices are refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadingOptions:
    """Options for reading a scan.

    Attributes:
        resample_irregular: Interpolate a DICOM series with missing, duplicated or unevenly spaced slices to even
            spacing, instead of refusing it. The result notes it.
        merge_series: Read slices that are one even stack as one series, although their Series Instance UIDs or frames
            of reference differ. Used when scans are found, not when one of them is read.
        drop_duplicates: Leave out images that repeat another at their position, pixel for pixel, instead of refusing
            the series. The result notes it.
        suv: Return PET as standardised uptake values by body weight (g/mL); other modalities are not changed.
    """

    resample_irregular: bool = False
    suv: bool = False
    merge_series: bool = False
    drop_duplicates: bool = False


AS_STORED = ReadingOptions()
"""The default options."""
