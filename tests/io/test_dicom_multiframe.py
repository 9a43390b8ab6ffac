"""Enhanced multi-frame objects: geometry and scaling per frame, in functional groups."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume


def group(name: str, **values: object) -> Dataset:
    """A functional group: a sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    outer = Dataset()
    setattr(outer, name, [item])
    return outer


def enhanced(new_slice, voxels: np.ndarray, heights: list[float], times: list[int] | None = None) -> Dataset:
    """One object whose frames lie at the given heights; frame i's slope is 1 and intercept i."""
    one = new_slice(0, voxels[0], SOPClassUID=uid.EnhancedMRImageStorage, Modality="MR")
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "SliceThickness",
    ):
        delattr(one, keyword)
    del one.RescaleIntercept
    one.NumberOfFrames = len(voxels)
    one.PixelData = voxels.tobytes()
    shared = group("PixelMeasuresSequence", PixelSpacing=[0.8, 0.5], SliceThickness=5.0)
    shared.update(group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    one.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i, height in enumerate(heights):
        frame = group("PlanePositionSequence", ImagePositionPatient=[-10.0, -20.0, height])
        frame.update(group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=i))
        frame.update(group("FrameVOILUTSequence", WindowCenter=50, WindowWidth=100))
        if times:
            frame.update(group("FrameContentSequence", TemporalPositionIndex=times[i]))
        frames.append(frame)
    one.PerFrameFunctionalGroupsSequence = frames
    return one


def test_frames_are_sorted_and_scaled(new_slice, voxels, save_dicom, tmp_path):
    heights = [12.0, 0.0, 3.0, 9.0, 6.0, 15.0]
    path = save_dicom(enhanced(new_slice, voxels, heights), tmp_path / "enhanced.dcm")
    volume = read_volume(path)
    order = np.argsort(heights)
    np.testing.assert_array_equal(volume.array[0], (voxels + np.arange(6)[:, None, None])[order])
    assert volume.spacing_mm == pytest.approx((3.0, 0.8, 0.5))
    np.testing.assert_allclose(volume.grid.index_to_ras([0, 0, 0]), [10, 20, 0])
    assert volume.window == (50.0, 100.0)
    (info,) = describe(path)
    assert info.kind == "MR multi-frame image"
    assert info.shape == (1, 6, 5, 4)


def test_times_become_volumes(new_slice, voxels, save_dicom, tmp_path):
    one = enhanced(new_slice, voxels, [0.0, 3.0, 6.0] * 2, times=[2, 2, 2, 1, 1, 1])
    path = save_dicom(one, tmp_path / "enhanced.dcm")
    first, second = (read_volume(path, series=number) for number in ("1", "2"))
    np.testing.assert_array_equal(first.array[0], voxels[3:] + np.arange(3, 6)[:, None, None])
    np.testing.assert_array_equal(second.array[0], voxels[:3] + np.arange(3)[:, None, None])
    assert first.provenance.policy.separated_by == "TemporalPositionIndex 1"


def test_a_missing_frame_is_refused(new_slice, voxels, save_dicom, tmp_path):
    path = save_dicom(enhanced(new_slice, voxels, [0.0, 3.0, 6.0, 12.0, 15.0, 18.0]), tmp_path / "enhanced.dcm")
    with pytest.raises(ReadError, match=r"1 slice is missing.*frame 3 \(enhanced.dcm\)"):
        read_volume(path)


def test_groups_that_do_not_match_the_frames_are_refused(new_slice, voxels, save_dicom, tmp_path):
    one = enhanced(new_slice, voxels, [0.0, 3.0, 6.0, 9.0, 12.0, 15.0])
    one.PerFrameFunctionalGroupsSequence = one.PerFrameFunctionalGroupsSequence[:4]
    with pytest.raises(ReadError, match="6 frames announced, but functional groups of 4"):
        read_volume(save_dicom(one, tmp_path / "enhanced.dcm"))
