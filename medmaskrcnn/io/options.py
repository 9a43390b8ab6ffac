"""Options for reading; by default nothing is changed and irregular slices are refused."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadingOptions:
    """Options for reading a scan.

    Attributes:
        resample_irregular: Interpolate a DICOM series with missing, duplicated or unevenly spaced slices to even
            spacing, instead of refusing it. The result notes it.
        suv: Return PET as standardised uptake values by body weight (g/mL); other modalities are not changed.
    """

    resample_irregular: bool = False
    suv: bool = False


AS_STORED = ReadingOptions()
"""The default options."""
