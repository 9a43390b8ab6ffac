"""Frames of the images of a series, as reading makes them of headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medmaskrcnn.io.dicom.frames import Frame, make_frames
from medmaskrcnn.io.dicom.header import make_header


def frame_at(
    position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float], *, number: int = 1
) -> Frame:
    """The frame of a single image: Image Position and Orientation (Patient) in LPS, Pixel Spacing in mm."""
    attributes = {
        "Rows": 8,
        "Columns": 8,
        "InstanceNumber": number,
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": list(spacing),
    }
    (frame,) = make_frames(make_header(Path(f"{number}.dcm"), attributes), attributes)
    return frame
