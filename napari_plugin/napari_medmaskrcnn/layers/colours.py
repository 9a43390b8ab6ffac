"""Colours of classes: the same organ has the same colour in every scan, with every model.

Organs that people know have the colour that anatomy atlases give them, roughly; any other name gets one of a fixed set,
chosen by the name alone. Instances of one class differ in lightness.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_KNOWN = {
    "liver": (196, 112, 72),
    "spleen": (157, 108, 190),
    "kidney": (226, 168, 60),
    "right kidney": (230, 176, 62),
    "left kidney": (214, 142, 50),
    "lung": (120, 170, 220),
    "right lung": (104, 170, 232),
    "left lung": (128, 150, 214),
    "vertebra": (226, 214, 160),
    "bone": (226, 214, 160),
    "tumour": (240, 60, 90),
    "tumor": (240, 60, 90),
    "lesion": (240, 60, 90),
    "heart": (206, 60, 60),
    "aorta": (230, 80, 60),
    "pancreas": (240, 190, 150),
    "stomach": (230, 140, 150),
    "bladder": (240, 220, 80),
    "gallbladder": (110, 170, 80),
    "brain": (230, 190, 190),
    "hippocampus": (90, 200, 170),
    "nucleus": (90, 190, 240),
}
_OTHERS = (
    (79, 195, 247), (129, 220, 132), (255, 110, 160), (190, 130, 255), (60, 215, 200), (190, 225, 110),
    (130, 150, 255), (205, 160, 130), (250, 160, 90), (120, 200, 90), (220, 120, 220), (90, 160, 160),
)  # fmt: skip
_LIGHTNESS = (1.0, 0.78, 1.18, 0.88, 1.08)

MATCHED = (60, 190, 110)
MISSED = (230, 60, 70)
FALSE = (250, 190, 50)
"""Of comparisons: found, there but not found, found but not there. Told apart by text too, not by colour alone."""

Rgba = NDArray[np.float32]


def class_rgb(name: str) -> tuple[int, int, int]:
    """The colour of a class, 0..255."""
    key = name.strip().lower().replace("_", " ")
    if key in _KNOWN:
        return _KNOWN[key]
    return _OTHERS[hashlib.sha256(key.encode()).digest()[0] % len(_OTHERS)]


def instance_rgba(name: str, key: int) -> Rgba:
    """The colour of one instance: its class's, lighter or darker by its key; ``(4,)``, 0..1."""
    lightness = _LIGHTNESS[key % len(_LIGHTNESS)]
    return rgba(np.clip(np.multiply(class_rgb(name), lightness), 0, 255))


def rgba(rgb: NDArray[np.float64] | tuple[int, int, int]) -> Rgba:
    """A colour 0..255 as napari takes it: ``(4,)``, 0..1, opaque."""
    return np.array([*np.divide(rgb, 255), 1.0], np.float32)
