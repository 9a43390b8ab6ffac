"""What a user may ask of reading; by default nothing is changed and nothing irregular accepted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ReadingOptions:
    """Wishes for reading.

    Attributes:
        resample_irregular: Interpolate even slices where a DICOM series has missing, doubled or unevenly spaced ones,
            instead of refusing it. The result says so.
        suv: Give PET as standardised uptake values by body weight (g/mL); other modalities are not changed.
    """

    resample_irregular: bool = False
    suv: bool = False


AS_STORED = ReadingOptions()
"""Nothing is asked for."""
