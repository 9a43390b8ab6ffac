"""The planes of a reconstructed SPECT, which a Nuclear Medicine object states once for all of its frames.

NM Image Storage is a classic multi-frame object: Image Position and Orientation (Patient) of the first slice lie in the
Detector Information Sequence (0054,0022), the slice of each frame in the Slice Vector (0054,0080), their distance in
Spacing Between Slices (0018,0088). DICOM PS3.3, C.8.4.8 and C.8.4.15.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

KEYWORDS = ("DetectorInformationSequence", "SliceVector", "NumberOfSlices", "EnergyWindowVector", "TimeSlotVector")

_RECONSTRUCTED = "RECON TOMO"
_VECTORS = {"EnergyWindowVector": "StackID", "TimeSlotVector": "TemporalPositionIndex"}
"""Vectors that tell frames of one slice apart, and the attribute by which the volumes of a series are told apart."""


class Attributes(Protocol):
    """DICOM attributes by keyword: a pydicom dataset, or a dictionary."""

    def get(self, keyword: str, default: Any = None, /) -> Any:
        """The value of an attribute, or the default."""


def reconstructed_planes(values: Attributes, n_frames: int) -> list[dict[str, Any]] | None:
    """Position, orientation and what distinguishes each frame, as attributes by keyword.

    Args:
        values: Attributes of the object by keyword, those of :data:`KEYWORDS` among them.
        n_frames: Its number of frames.

    Returns:
        One dictionary per frame; ``None`` if the object is no reconstructed SPECT or does not state its planes.
    """
    image_type: Any = values.get("ImageType") or ()
    detectors = values.get("DetectorInformationSequence")
    if not detectors or len(image_type) < 3 or str(image_type[2]).strip().upper() != _RECONSTRUCTED:
        return None
    position, orientation = (detectors[0].get(k) for k in ("ImagePositionPatient", "ImageOrientationPatient"))
    slices: Any = values.get("SliceVector") or list(range(1, n_frames + 1))
    numbers = [int(n) for n in np.atleast_1d(slices)]
    step = values.get("SpacingBetweenSlices") or values.get("SliceThickness")
    if position is None or orientation is None or step in (None, "") or len(numbers) != n_frames:
        return None
    axes = np.reshape([float(v) for v in orientation], (2, 3))
    normal = np.cross(axes[0], axes[1])
    planes = []
    for i, number in enumerate(numbers):
        place = np.asarray([float(v) for v in position]) + (number - 1) * float(step) * normal
        plane: dict[str, Any] = {
            "ImagePositionPatient": place.tolist(),
            "ImageOrientationPatient": axes.ravel().tolist(),
        }
        for vector, keyword in _VECTORS.items():
            entries = np.atleast_1d(values.get(vector) or [])
            if len(entries) == n_frames:
                plane[keyword] = int(entries[i])
        planes.append(plane)
    return planes
