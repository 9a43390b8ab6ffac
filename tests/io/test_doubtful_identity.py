"""Slices whose identifiers are wrong while their geometry is exact: told, and joined or dropped only when asked."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.batch_runs.find import find_series
from medmaskrcnn.errors import AmbiguousInputError, ReadError, Remedy
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.options import ReadingOptions
from medmaskrcnn.io.read import read_volume

ROOT = "1.2.826.0.1.3680043.8.498.77."


def test_a_frame_of_reference_per_slice(slices, voxels, write_series):
    for i, one in enumerate(slices):
        one.FrameOfReferenceUID = f"{ROOT}{i}"
    folder = write_series(slices)
    (info,) = describe(folder)
    assert not info.segmentable
    with pytest.raises(ReadError, match="frames of reference") as raised:
        read_volume(folder)
    assert raised.value.remedy is Remedy.MERGE_SERIES
    volume = read_volume(folder, merge_series=True)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert any("as asked" in note for note in volume.provenance.notes)
    assert describe(folder, merge_series=True)[0].segmentable


@pytest.mark.parametrize("part", [lambda i: i % 2, lambda i: i // 3])
def test_a_series_split_over_two_uids(slices, voxels, write_series, part):
    for i, one in enumerate(slices):
        one.SeriesInstanceUID = f"{ROOT}{part(i)}"
    folder = write_series(slices)
    infos = describe(folder)
    assert [info.files for info in infos] == [3, 3]
    assert all(any("even stack of 6" in note for note in info.notes) for info in infos)
    with pytest.raises(AmbiguousInputError):
        read_volume(folder)
    volume = read_volume(folder, merge_series=True)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    (found,) = find_series([folder], reading=ReadingOptions(merge_series=True))
    assert (found.verdict, len(found.files)) == ("queued", 6)


@pytest.mark.parametrize("change", ["gap", "other description", "other study"])
def test_what_does_not_fit_stays_apart(slices, write_series, change):
    for i, one in enumerate(slices):
        second = i >= 3
        one.SeriesInstanceUID = f"{ROOT}{second:d}"
        if second and change == "gap":
            one.ImagePositionPatient = [-10.0, -20.0, 130.0 + 2.5 * i]
        elif second and change == "other description":
            one.SeriesDescription = "thorax"
        elif second:
            one.StudyInstanceUID = f"{ROOT}99"
    folder = write_series(slices)
    assert len(describe(folder, merge_series=True)) == 2
    assert not any("even stack" in note for info in describe(folder) for note in info.notes)


def test_two_reconstructions_stay_two_series(slices, new_slice, voxels, write_series):
    again = [new_slice(i, plane, SeriesInstanceUID=f"{ROOT}5", SOPInstanceUID=f"{ROOT}6.{i}")
             for i, plane in enumerate(voxels)]  # fmt: skip
    folder = write_series([*slices, *again])
    assert [info.files for info in describe(folder, merge_series=True)] == [6, 6]


def test_images_sent_twice(slices, new_slice, voxels, write_series):
    twice = [new_slice(i, voxels[i], SOPInstanceUID=f"{ROOT}7.{i}") for i in (1, 4)]
    folder = write_series([*slices, *twice])
    with pytest.raises(ReadError, match="2 images repeat") as raised:
        read_volume(folder)
    assert raised.value.remedy is Remedy.DROP_DUPLICATES
    volume = read_volume(folder, drop_duplicates=True)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert volume.provenance.policy.slices_left_out == 2
    (refused,) = find_series([folder])
    assert (refused.verdict, refused.remedy) == ("refused", "drop_duplicates")
    (queued,) = find_series([folder], reading=ReadingOptions(drop_duplicates=True))
    assert queued.verdict == "queued"


def test_a_whole_series_sent_twice(slices, new_slice, voxels, write_series):
    twice = [new_slice(i, voxels[i], SOPInstanceUID=f"{ROOT}7.{i}") for i in range(6)]
    folder = write_series([*slices, *twice])
    np.testing.assert_array_equal(read_volume(folder, drop_duplicates=True).array[0], voxels.astype(int) - 1024)


def test_another_image_at_the_same_place_is_no_duplicate(slices, new_slice, voxels, write_series):
    folder = write_series([*slices, new_slice(1, voxels[5], SOPInstanceUID=f"{ROOT}7.1")])
    for drop in (False, True):
        with pytest.raises(ReadError, match="doubled slice"):
            read_volume(folder, drop_duplicates=drop)


def test_dropping_changes_nothing_without_duplicates(slices, voxels, write_series):
    volume = read_volume(write_series(slices), drop_duplicates=True, merge_series=True)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert not any("as asked" in note for note in volume.provenance.notes)
