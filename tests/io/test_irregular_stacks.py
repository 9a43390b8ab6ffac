"""Even grids through uneven frames, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_frames import frame_at

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.geometry import IrregularError
from medmaskrcnn.io.dicom.irregular import arrange_resampled
from medmaskrcnn.io.dicom.stack import DicomStack, arrange


def stack_at(*places: tuple[float, float] | float) -> DicomStack:
    """Axial frames at heights, or at (height, sideways)."""
    both = [p if isinstance(p, tuple) else (p, 0.0) for p in places]
    axial = (1, 0, 0, 0, 1, 0)
    return DicomStack(tuple(frame_at((0, y, z), axial, (1, 1), number=i) for i, (z, y) in enumerate(both)))


def test_a_gap_is_filled_and_the_rest_stays():
    irregular = stack_at(0, 2, 4, 8, 10)
    with pytest.raises(IrregularError, match="1 slice is missing"):
        arrange(irregular)
    stack = arrange_resampled(irregular)
    assert stack.lower.tolist() == [0, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(stack.weight, [0, 0, 0, 0.5, 0, 1])
    np.testing.assert_allclose(stack.grid.affine_vox_to_ras[:3, 0], [0, 0, 2])


def test_uneven_steps_take_the_usual_one_from_end_to_end():
    stack = arrange_resampled(stack_at(10, 0, 2, 4.5, 6, 8))  # in any order
    assert stack.order == (1, 2, 3, 4, 5, 0)
    assert stack.lower.tolist() == [0, 1, 1, 3, 4, 4]
    np.testing.assert_allclose(stack.weight, [0, 0, 0.8, 0, 0, 1])


def test_of_doubled_frames_the_first_is_used():
    stack = arrange_resampled(stack_at(0, 2, 2, 4))
    assert stack.order == (0, 1, 3)
    assert "1 slices lie where another lies" in stack.notes[1]


def test_a_tilt_stays_a_tilt():
    stack = arrange_resampled(stack_at((0, 0), (2, 1), (6, 3), (8, 4)))
    np.testing.assert_allclose(stack.grid.affine_vox_to_ras[:3, 0], [0, -1, 2])


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (stack_at(3, 3, 3), "all 3 slices lie at the same place"),
        (stack_at((0, 0), (2, 1), (5, 0), (8, 0)), r"slice 1 \(1\.dcm\) is 1.00 mm off"),
        (stack_at(0, 0.01, 0.02, 1e6), "the positions are wrong"),
    ],
)
def test_what_no_interpolation_mends(stack, words):
    with pytest.raises(ReadError, match=words):
        arrange_resampled(stack)
