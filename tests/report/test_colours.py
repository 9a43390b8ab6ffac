"""An organ keeps its colour, whatever the model, and no two classes of a model share one."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from medmaskrcnn.export.dicom_seg import cielab
from medmaskrcnn.report.colours import ORGAN_COLOURS, OTHER_COLOURS, canonical_name, class_colours

BRATS = ("necrotic core", "edema", "enhancing tumor", "whole tumor")
TOTAL = tuple(f"structure {i}" for i in range(117))
"""As many classes as the largest public models have."""


@pytest.mark.parametrize("names", [BRATS, BRATS[::-1], TOTAL, ("tumour", "lesion", "tumour core")])
def test_classes_of_one_model_differ(names: tuple[str, ...]) -> None:
    colours = class_colours(names)
    assert len(set(colours)) == len(names)
    assert all(0 <= value <= 255 for colour in colours for value in colour)


@pytest.mark.parametrize(
    "spellings",
    [
        ("left kidney", "kidney_left", "Kidney (Left)", "kidney-l", "LEFT_KIDNEY"),
        ("liver", " Liver "),
        ("tumor", "Tumour", "tumors"),
        ("anterior hippocampus", "hippocampus, anterior"),
        ("enhancing tumor", "enhancing_tumour"),
    ],
)
def test_spelling_does_not_matter(spellings: tuple[str, ...]) -> None:
    assert len({canonical_name(name) for name in spellings}) == 1
    assert len({class_colours((name,)) for name in spellings}) == 1


def test_an_organ_has_one_colour_with_every_model() -> None:
    for names in (("liver", "spleen"), ("nodule", "cyst", "Liver"), (*TOTAL, "liver")):
        assert class_colours(names)[[canonical_name(n) for n in names].index("liver")] == ORGAN_COLOURS["liver"]


def test_left_and_right_differ() -> None:
    assert class_colours(("kidney_left",)) != class_colours(("kidney_right",))


def test_a_class_that_is_added_changes_none() -> None:
    names = (*BRATS, *TOTAL, "liver")
    for fewer, more in pairwise(names[:n] for n in range(1, len(names) + 1)):
        assert class_colours(more)[:-1] == class_colours(fewer)


def test_colours_can_be_told_apart() -> None:
    """In CIELAB, where 2.3 is what an eye just notices in patches side by side."""
    whole = {name: np.array(cielab(rgb)) * [100, 255, 255] / 65535 for name, rgb in ORGAN_COLOURS.items()}
    others = [np.array(cielab(rgb)) * [100, 255, 255] / 65535 for rgb in OTHER_COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in combinations(whole.values(), 2)) > 9
    everything = [*whole.values(), *others]
    assert min(np.linalg.norm(a - b) for a, b in combinations(everything, 2) if any(b is o for o in others)) > 20
