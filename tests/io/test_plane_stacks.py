"""Frames to one affine: worked by hand, turned at random, and every reason to refuse."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_frames import frame_at
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.geometry import IrregularError, same_orientation
from medmaskrcnn.io.dicom.stack import DicomStack, arrange

AXIAL = [1, 0, 0, 0, 1, 0]


def stack_at(heights, orientation=AXIAL, spacing=(0.8, 0.5)):
    return DicomStack(
        tuple(frame_at([10, 20, z], orientation, spacing, number=i) for i, z in enumerate(heights, start=1))
    )


def test_by_hand():
    stack = arrange(stack_at([5.0, 0.0, 2.5]))
    assert stack.order == (1, 2, 0)
    # D up 2.5 mm; H: 0.8 mm to the back (A falls); W: 0.5 mm to the left (R falls); origin LPS (10, 20, 0).
    np.testing.assert_allclose(
        stack.grid.affine_vox_to_ras, [[0, 0, -0.5, -10], [0, -0.8, 0, -20], [2.5, 0, 0, 0], [0, 0, 0, 1]]
    )
    assert stack.notes == ()


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 12),
    step=st.floats(0.3, 9.0),
    tilt=st.floats(-0.5, 0.5),
    spacing=st.tuples(st.floats(0.1, 4.0), st.floats(0.1, 4.0)),
)
def test_any_pose_any_order(seed, n, step, tilt, spacing):
    """The affine takes each voxel of each slice where its own plane says it is (PS3.3, equation C.7.6.2.1-1)."""
    random = np.random.default_rng(seed)
    axes = Rotation.random(rng=random).as_matrix().T  # rows: row direction, column direction, normal
    origin = random.uniform(-300, 300, 3)
    positions = [origin + i * (step * axes[2] + tilt * axes[1]) for i in range(n)]
    shuffled = random.permutation(n)
    stack = arrange(DicomStack(tuple(frame_at(positions[i], [*axes[0], *axes[1]], spacing) for i in shuffled)))
    affine = stack.grid.affine_vox_to_ras
    np.testing.assert_array_equal(shuffled[list(stack.order)], np.arange(n))
    for d, h, w in [(0, 0, 0), (n - 1, 3, 5), (n // 2, 7, 0)]:
        lps = positions[d] + h * spacing[0] * axes[1] + w * spacing[1] * axes[0]
        np.testing.assert_allclose(affine @ [d, h, w, 1], [-lps[0], -lps[1], lps[2], 1], atol=1e-6)
    assert np.linalg.det(affine[:3, :3]) == pytest.approx(-step * spacing[0] * spacing[1])


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ([0, 1, 1, 2], r"doubled slice: slice 2 \(2\.dcm\) and slice 3 \(3\.dcm\) lie at the same position 1\.00 mm"),
        (
            [0, 1, 2, 4, 5],
            r"1 slice is missing \(usual step 1\.00 mm\): 2\.00 mm between slice 3 \(3\.dcm\) at 2\.00 mm and slice 4",
        ),
        ([0, 1, 2, 5, 6, 7, 9], r"3 slices are missing"),
        ([0, 1, 2.4, 3, 4, 5], r"unevenly spaced"),
    ],
)
def test_irregular_stacks_are_refused(heights, message):
    with pytest.raises(IrregularError, match=message):
        arrange(stack_at(heights))


def test_rounded_positions_are_accepted_and_told():
    stack = arrange(stack_at([round(0.625 * i, 2) for i in range(40)]))
    assert stack.grid.affine_vox_to_ras[2, 0] == pytest.approx(0.625, abs=2e-4)
    assert any("vary by up to 0.00" in note for note in stack.notes)


@pytest.mark.parametrize(
    ("position", "orientation", "spacing", "message"),
    [
        ([0, 0], AXIAL, [1, 1], "position must be 3"),
        ([0, 0, np.nan], AXIAL, [1, 1], "position must be 3 finite"),
        ([0, 0, 0], [1, 0, 0, 1, 0, 0], [1, 1], "perpendicular"),
        ([0, 0, 0], [2, 0, 0, 0, 1, 0], [1, 1], "perpendicular unit vectors"),
        ([0, 0, 0], [0] * 6, [1, 1], "perpendicular unit vectors"),
        ([0, 0, 0], AXIAL, [1, 0], "spacing must be positive"),
        ([0, 0, 0], AXIAL, [1], "spacing must be 2"),
    ],
)
def test_impossible_planes_are_refused(position, orientation, spacing, message):
    with pytest.raises(ReadError, match=message):
        frame_at(position, orientation, spacing)


def test_directions_of_few_decimals_become_unit_vectors():
    frame = frame_at([0, 0, 0], [0.707, 0.707, 0, -0.707, 0.707, 0], [1, 1])
    np.testing.assert_allclose(np.linalg.norm([frame.row_direction_lps, frame.column_direction_lps], axis=1), 1)
    np.testing.assert_allclose(frame.normal_lps, [0, 0, 1])


def test_what_counts_as_the_same_orientation():
    frame = frame_at([0, 0, 0], AXIAL, [1, 1])
    assert same_orientation(frame, frame_at([9, 9, 9], [1, 1e-5, 0, 0, 1, 0], [1.00001, 1]))
    assert not same_orientation(frame, frame_at([0, 0, 0], [-1, 0, 0, 0, 1, 0], [1, 1]))
    assert not same_orientation(frame, frame_at([0, 0, 0], [1, 0, 0, 0, 0.9998, 0.02], [1, 1]))
    assert not same_orientation(frame, frame_at([0, 0, 0], AXIAL, [1, 1.1]))
