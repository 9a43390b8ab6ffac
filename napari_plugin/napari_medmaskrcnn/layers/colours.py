"""Colours for napari: each class has the library's colour, its instances differ in lightness."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.report.colours import Colour, class_colours

_LIGHTNESS = (1.0, 0.78, 1.18, 0.88, 1.08)

_GOLDEN = 0.6180339887  # steps of the golden ratio spread hues evenly, however many there are

MATCHED = (60, 190, 110)
MISSED = (230, 60, 70)
FALSE = (250, 190, 50)
"""Of comparisons: found, there but not found, found but not there. Told apart by text too, not by colour alone."""

Rgba = NDArray[np.float32]


def class_rgba(class_names: Sequence[str], name: str) -> Rgba:
    """The colour of a class in a list; ``(4,)``, 0..1."""
    return rgba(class_rgb(class_names, name))


def instance_rgba(class_names: Sequence[str], name: str, key: int) -> Rgba:
    """The colour of one instance: its class's colour, lighter or darker depending on its key; ``(4,)``, 0..1."""
    lightness = _LIGHTNESS[key % len(_LIGHTNESS)]
    return rgba(np.clip(np.multiply(class_rgb(class_names, name), lightness), 0, 255))


def distinct_rgba(key: int) -> Rgba:
    """A colour of its own for an instance, far from that of its neighbours in number; ``(4,)``, 0..1."""
    hue = key * _GOLDEN % 1.0
    saturation, value = (0.55, 0.85)[key % 2], (0.95, 0.8)[key // 2 % 2]
    return rgba(np.multiply(colorsys.hsv_to_rgb(hue, saturation, value), 255))


def class_rgb(class_names: Sequence[str], name: str) -> Colour:
    """The colour of a class in a list, to which it is added if missing; 0..255."""
    names = tuple(class_names) if name in class_names else (*class_names, name)
    return class_colours(names)[names.index(name)]


def rgba(rgb: NDArray[np.float64] | Colour) -> Rgba:
    """A colour 0..255 in napari's form: ``(4,)``, 0..1, opaque."""
    return np.array([*np.divide(rgb, 255), 1.0], np.float32)
