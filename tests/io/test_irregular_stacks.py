"""Even grids through uneven planes, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.geometry import IrregularError, make_plane, stack_planes
from medmaskrcnn.io.dicom.irregular import even_stack


def planes(*places: tuple[float, float] | float):
    """Axial planes at heights, or at (height, sideways)."""
    both = [p if isinstance(p, tuple) else (p, 0.0) for p in places]
    return [make_plane((0, y, z), (1, 0, 0, 0, 1, 0), (1, 1)) for z, y in both]


def names(found) -> list[str]:
    return [f"slice {i}" for i in range(len(found))]


def test_a_gap_is_filled_and_the_rest_stays():
    found = planes(0, 2, 4, 8, 10)
    with pytest.raises(IrregularError, match="1 slice is missing"):
        stack_planes(found, names=names(found))
    stack = even_stack(found, names=names(found))
    assert stack.below.tolist() == [0, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(stack.weight, [0, 0, 0, 0.5, 0, 1])
    np.testing.assert_allclose(stack.affine_vox_to_ras[:3, 0], [0, 0, 2])


def test_uneven_steps_take_the_usual_one_from_end_to_end():
    found = planes(10, 0, 2, 4.5, 6, 8)  # in any order
    stack = even_stack(found, names=names(found))
    assert stack.order == (1, 2, 3, 4, 5, 0)
    assert stack.below.tolist() == [0, 1, 1, 3, 4, 4]
    np.testing.assert_allclose(stack.weight, [0, 0, 0.8, 0, 0, 1])


def test_of_doubled_planes_the_first_is_used():
    found = planes(0, 2, 2, 4)
    stack = even_stack(found, names=names(found))
    assert stack.order == (0, 1, 3)
    assert "1 slices lie where another lies" in stack.notes[1]


def test_a_tilt_stays_a_tilt():
    found = planes((0, 0), (2, 1), (6, 3), (8, 4))
    np.testing.assert_allclose(even_stack(found, names=names(found)).affine_vox_to_ras[:3, 0], [0, -1, 2])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (planes(3, 3, 3), "all 3 slices lie at the same place"),
        (planes((0, 0), (2, 1), (5, 0), (8, 0)), "slice 1 is 1.00 mm off"),
        (planes(0, 0.01, 0.02, 1e6), "the positions are wrong"),
    ],
)
def test_what_no_interpolation_mends(found, words):
    with pytest.raises(ReadError, match=words):
        even_stack(found, names=names(found))
