"""The colour of each class, the same in previews, reports, DICOM objects, traces and napari.

Well-known organs have fixed colours, roughly those of anatomy atlases. Any other name has a preferred colour from a
fixed set, determined by the name alone; if two names of a list prefer the same one, the later name gets the next free
colour. A class thus has the same colour in every scan, mostly the same with every model, and never that of another
class of the same model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache

Colour = tuple[int, int, int]
"""Red, green, blue in sRGB, 0..255."""

ORGAN_COLOURS: dict[str, Colour] = {
    "liver": (196, 112, 72),
    "spleen": (157, 108, 190),
    "kidney": (255, 200, 60),
    "right kidney": (230, 176, 62),
    "left kidney": (200, 130, 30),
    "lung": (120, 170, 220),
    "right lung": (80, 150, 240),
    "left lung": (128, 150, 200),
    "vertebra": (226, 214, 160),
    "bone": (245, 240, 215),
    "tumour": (240, 60, 90),
    "lesion": (255, 90, 140),
    "heart": (206, 50, 50),
    "aorta": (235, 95, 60),
    "pancreas": (240, 190, 150),
    "stomach": (230, 140, 150),
    "bladder": (240, 220, 80),
    "gallbladder": (110, 170, 80),
    "brain": (230, 190, 190),
    "hippocampus": (90, 200, 170),
    "anterior hippocampus": (70, 220, 190),
    "posterior hippocampus": (60, 165, 140),
    "nucleus": (90, 190, 240),
}
"""By :func:`canonical_name`."""

OTHER_COLOURS: tuple[Colour, ...] = (
    (40, 250, 40), (250, 40, 250), (130, 90, 250), (40, 250, 150), (190, 250, 40), (210, 50, 170), (130, 120, 60),
    (60, 190, 40), (250, 180, 240), (180, 250, 130), (220, 120, 250), (160, 240, 250), (60, 120, 250), (190, 80, 140),
    (40, 130, 150), (160, 160, 50), (160, 110, 140), (160, 250, 180), (140, 190, 40), (140, 170, 120), (250, 130, 220),
    (40, 190, 120), (180, 50, 250), (220, 230, 130), (250, 40, 40), (250, 130, 40), (40, 190, 200), (180, 170, 250),
    (140, 250, 90), (140, 100, 220), (200, 80, 90), (170, 120, 100),
)  # fmt: skip
"""Each at least 20 in CIELAB away from every other and from every organ's."""

_DARKER, _ROUNDS = 0.8, 8  # factor by which the set is darkened each time it is reused, for very long lists of classes
_SIDES = {
    word: side
    for side, words in {
        "left": ("l", "lt", "left"),
        "right": ("r", "rt", "right"),
        "anterior": ("anterior",),
        "posterior": ("posterior",),
    }.items()
    for word in words
}
_SAME = {
    "tumor": "tumour",
    "tumors": "tumour",
    "tumours": "tumour",
    "lesions": "lesion",
    "kidneys": "kidney",
    "lungs": "lung",
    "vertebrae": "vertebra",
    "bones": "bone",
    "nuclei": "nucleus",
}


@lru_cache(maxsize=256)
def class_colours(class_names: tuple[str, ...]) -> tuple[Colour, ...]:
    """The colour of each class of a list; only spellings of the same name share a colour.

    Adding a class at the end changes none of the earlier ones.

    Args:
        class_names: Class names of one model or result, in its order.
    """
    names = [canonical_name(name) for name in class_names]
    chosen = {name: ORGAN_COLOURS[name] for name in names if name in ORGAN_COLOURS}
    for name in names:
        if name not in chosen:
            taken = set(chosen.values())
            wishes = list(_preferences(name))
            chosen[name] = next((colour for colour in wishes if colour not in taken), wishes[0])
    return tuple(chosen[name] for name in names)


def canonical_name(name: str) -> str:
    """A class name independent of its spelling: ``Kidney_L``, ``kidney (left)`` and ``left-kidney`` are the same.

    >>> canonical_name("Kidney_L"), canonical_name("enhancing tumor")
    ('left kidney', 'enhancing tumour')
    """
    words = [_SAME.get(word, word) for word in re.findall(r"[^\W_]+", name.lower())]
    sides = [_SIDES[word] for word in words if word in _SIDES]
    return " ".join([*sides, *(word for word in words if word not in _SIDES)])


def _preferences(name: str) -> Iterator[Colour]:
    """The colours of a name in order of preference."""
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) % len(OTHER_COLOURS)
    for turn in range(_ROUNDS):
        for red, green, blue in OTHER_COLOURS[first:] + OTHER_COLOURS[:first]:
            share = _DARKER**turn
            yield round(red * share), round(green * share), round(blue * share)
