"""Detects class names that contain a side of the body, which would be wrong in a mirrored scan."""

from __future__ import annotations

import re

_SIDE = re.compile(
    r"(left|right)\w*|l|r|lt|rt|lh|rh|"  # English, and the hemispheres of atlases (lh, rh)
    r"link(s|e[nrs]?)|rechts|rechte[nrs]?|droite?|gauche|dext(er|ra|rum)|sinist(er|ra|rum)"  # German, French, Latin
)


def has_side(class_name: str) -> bool:
    """Whether a class name contains a word for left or right, however its words are joined.

    Args:
        class_name: Any form: ``"left kidney"``, ``"kidney_left"``, ``"kidney (left)"``, ``"KidneyLeft"``, ``"lung-r"``.
            A letter counts only if it stands alone, so the vertebra ``"L5"`` has no side.

    Example:
        >>> has_side("kidney_L"), has_side("Niere links"), has_side("vertebra_L5")
        (True, True, False)
    """
    spaced = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", class_name)  # camel case
    return any(map(_SIDE.fullmatch, re.split(r"[\W_]+", spaced.lower())))
