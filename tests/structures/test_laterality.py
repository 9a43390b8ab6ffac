"""Whether a class's name says on which side of the body it lies."""

from __future__ import annotations

import pytest

from medmaskrcnn.structures.laterality import has_side

SIDED = [
    "left kidney", "Left Kidney", "kidney_left", "kidney-right", "kidney (left)", "kidney[right]", "lung.left.upper",
    "KidneyLeft", "leftKidney", "leftventricle", "rib_left_7", "kidney_left2", "femur/right",
    "kidney_L", "lung-r", "R lung", "l kidney", "kidney (R)", "kidneyL", "Lt kidney", "kidney rt", "lh-cortex",
    "ctx_rh", "Niere links", "rechte Niere", "rein gauche",
    "rein droit", "poumon_droite", "lobus dexter", "lobus sinister",
]  # fmt: skip
UNSIDED = [
    "kidney", "liver", "vertebrae L5", "vertebra_L1", "cleft palate", "bright spot", "upright", "tumour", "LR-5 lesion",
    "edema", "colon", "skull", "rib 7", "",
]  # fmt: skip


@pytest.mark.parametrize("name", SIDED)
def test_names_with_a_side(name: str) -> None:
    assert has_side(name) and has_side(name.replace("_", " "))


@pytest.mark.parametrize("name", UNSIDED)
def test_names_without_a_side(name: str) -> None:
    assert not has_side(name)
