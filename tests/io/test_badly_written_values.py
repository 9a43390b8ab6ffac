"""Values that are written badly, but can be understood in one way only, are read; what is in doubt is not guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

SPACING = (2.5, 0.8, 0.5)


def put_text(dataset: Dataset, keyword: str, text: str, vr: str = "DS") -> None:
    """Set an attribute to a text that pydicom would not take, under any value representation."""
    tag = Tag(tag_for_keyword(keyword))
    raw = text.encode("latin-1")
    raw += b" " * (len(raw) % 2)
    dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)


WRITTEN: dict[str, tuple[str, Any, str]] = {
    "spaces": ("PixelSpacing", " 0.8 \\ 0.5 ", "DS"),
    "decimal commas": ("PixelSpacing", "0,8\\0,5", "DS"),
    "a comma between": ("PixelSpacing", "0.8,0.5", "DS"),
    "a space between": ("PixelSpacing", "0.8 0.5", "DS"),
    "exponents": ("PixelSpacing", "8e-1\\5E-1", "DS"),
    "long text": ("PixelSpacing", "0.8\\0.5", "LT"),
    "another text": ("PixelSpacing", "0.8\\0.5", "LO"),
    "unknown": ("PixelSpacing", "0.8\\0.5", "UN"),
    "nulls": ("PixelSpacing", "0.8\\0.5\0", "DS"),
    "too many digits": ("PixelSpacing", "0.80000000000000004\\0.50000000000000000", "DS"),
    "orientation as text": ("ImageOrientationPatient", "1\\0\\0\\0\\1\\0", "ST"),
    "orientation with commas": ("ImageOrientationPatient", "1,0,0,0,1,0", "DS"),
    "orientation with decimal commas": ("ImageOrientationPatient", "1,0\\0,0\\0,0\\0,0\\1,0\\0,0", "DS"),
    "slope with a comma": ("RescaleSlope", "1,0", "DS"),
    "intercept with spaces": ("RescaleIntercept", " -1024 ", "LO"),
    "a number of no value": ("InstanceNumber", "first", "IS"),
    "a number as a decimal": ("InstanceNumber", "1.0", "IS"),
    "a window in words": ("WindowCenter", "soft tissue", "DS"),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_badly_written_values(slices, voxels, write_series, what):
    keyword, text, vr = WRITTEN[what]
    for one in slices:
        put_text(one, keyword, text, vr)
    folder = write_series(slices)
    assert describe(folder)[0].segmentable
    volume = read_volume(folder)
    assert volume.spacing_mm == pytest.approx(SPACING)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)


@pytest.mark.parametrize("vr", ["DS", "LO", "UT", "UN"])
def test_positions_under_any_representation(slices, voxels, write_series, vr):
    for i, one in enumerate(slices):
        put_text(one, "ImagePositionPatient", f"-10,0\\-20,0\\{30 + 2.5 * i:.2f}".replace(".", ","), vr)
    volume = read_volume(write_series(slices))
    assert volume.spacing_mm == pytest.approx(SPACING)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)


@pytest.mark.parametrize("text", ["wide", "0.8\\", "0.8\\x"])
def test_what_is_no_number_is_refused(slices, write_series, text):
    for one in slices:
        put_text(one, "PixelSpacing", text)
    with pytest.raises(ReadError):
        read_volume(write_series(slices))


def test_an_empty_pet_slice_has_no_slope(slices, voxels, write_series):
    for i, one in enumerate(slices):
        one.Modality, one.RescaleIntercept, one.RescaleSlope = "PT", 0, 0 if i == 2 else 0.5
    volume = read_volume(write_series(slices))
    assert (volume.array[0, 2] == 0).all()
    np.testing.assert_allclose(volume.array[0, 3], voxels[3] * 0.5)
    assert any("slope" in note for note in volume.provenance.notes)


def test_a_pet_without_any_slope_is_refused(slices, write_series):
    for one in slices:
        one.Modality, one.RescaleSlope = "PT", 0
    with pytest.raises(ReadError, match="RescaleSlope"):
        read_volume(write_series(slices))


@pytest.mark.parametrize(
    ("keyword", "drifting"),
    [
        ("PixelSpacing", lambda i: [0.8 * (1 + 4e-4 * (i % 3)), 0.5]),
        ("ImageOrientationPatient", lambda i: [1, 4e-4 * (i % 3), 0, -4e-4 * (i % 3), 1, 0]),
        ("ImageOrientationPatient", lambda i: [1, 5e-4 * i, 0, -5e-4 * i, 1, 0]),
    ],
)
def test_drift_in_the_fourth_digit_is_one_series(slices, voxels, write_series, keyword, drifting):
    for i, one in enumerate(slices):
        setattr(one, keyword, drifting(i))
    folder = write_series(slices)
    (info,) = describe(folder)
    assert info.segmentable
    volume = read_volume(folder)
    assert volume.spacing_mm == pytest.approx(SPACING, rel=1e-3)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert any("differ by" in note for note in info.notes)


def test_slices_that_really_turn_are_refused(new_slice, voxels, write_series):
    turned = [
        new_slice(i, voxels[0], ImageOrientationPatient=[np.cos(a), np.sin(a), 0, -np.sin(a), np.cos(a), 0])
        for i, a in enumerate(np.arange(12) * 1e-3)
    ]
    with pytest.raises(ReadError, match="change by up to"):
        read_volume(write_series(turned))
