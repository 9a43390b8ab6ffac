"""A scan as layer data, in numbers."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.image_layers import SOFT_TISSUE_HU, contrast_limits, volume_to_layer


def axial_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float] = (5.0, 0.8, 0.7)) -> Grid:
    """Slices up, rows to the back, columns to the left."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing_mm[0], -spacing_mm[1], -spacing_mm[2], 1
    return Grid(shape, affine)


def sagittal_grid(shape: tuple[int, int, int]) -> Grid:
    """Slices to the left, rows down, columns to the back."""
    affine = np.zeros((4, 4))
    affine[0, 0], affine[2, 1], affine[1, 2], affine[3, 3] = -4, -1, -1.5, 1
    return Grid(shape, affine)


def test_axial_ct_is_shown_head_first_and_otherwise_as_stored():
    array = np.arange(24, dtype=np.int16).reshape(1, 2, 3, 4)
    data, settings, kind = volume_to_layer(Volume(array, axial_grid((2, 3, 4)), modality="CT"), "CT")
    assert kind == "image"
    np.testing.assert_array_equal(data, array[0, ::-1])
    assert settings["scale"] == (5.0, 0.8, 0.7)
    assert settings["units"] == ("mm", "mm", "mm")
    assert settings["axis_labels"] == ("inferior", "posterior", "left")
    assert settings["contrast_limits"] == SOFT_TISSUE_HU
    assert np.shares_memory(data, array)


def test_sagittal_series_is_turned_onto_the_axes_of_the_world():
    array = np.arange(24).reshape(1, 2, 3, 4)  # L, I, P
    data, settings, _ = volume_to_layer(Volume(array, sagittal_grid((2, 3, 4))), "MR")
    assert data.shape == (3, 4, 2)
    assert data[2, 1, 0] == array[0, 0, 2, 1]
    assert settings["scale"] == (1.0, 1.5, 4.0)


def test_single_sagittal_image_becomes_a_plane_with_the_head_up():
    array = np.arange(12).reshape(1, 1, 3, 4)
    data, settings, _ = volume_to_layer(Volume(array, sagittal_grid((1, 3, 4))), "DX")
    np.testing.assert_array_equal(data, array[0, 0])
    assert settings["axis_labels"] == ("inferior", "posterior")
    assert settings["scale"] == (1.0, 1.5)


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint8, 51), (np.uint16, 0.2)])
def test_colour_picture_becomes_rgb(dtype, expected):
    array = np.full((3, 1, 2, 4), np.iinfo(dtype).max // 5, dtype=dtype)
    volume = Volume(array, pixel_grid((1, 2, 4)), channel_kind="colour")
    data, settings, _ = volume_to_layer(volume, "slide")
    assert data.shape == (2, 4, 3)
    assert settings["rgb"] is True
    assert settings["units"] == ("pixel", "pixel")
    np.testing.assert_allclose(data, expected, rtol=1e-6)


def test_a_fourth_axis_gets_a_slider_of_its_own():
    array = np.arange(48).reshape(2, 2, 3, 4)
    volume = Volume(array, axial_grid((2, 3, 4)), channel_kind="unknown")
    data, settings, _ = volume_to_layer(volume, "MR")
    np.testing.assert_array_equal(data, array[:, ::-1])
    assert settings["axis_labels"] == ("channel", "inferior", "posterior", "left")
    assert settings["scale"] == (1.0, 5.0, 0.8, 0.7)


def test_the_header_s_window_gives_the_contrast():
    volume = Volume(np.zeros((1, 1, 2, 2)), axial_grid((1, 2, 2)), modality="CT", window=(50.0, 400.0))
    assert contrast_limits(volume) == (-150.0, 250.0)


def test_without_window_the_percentiles_do_and_nan_is_left_out():
    values = np.concatenate([np.arange(101.0), [np.nan, np.inf]]).reshape(1, 1, 1, -1)
    assert contrast_limits(Volume(values, axial_grid((1, 1, 103)))) == pytest.approx((1.0, 99.0))


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_flat_scan_still_has_contrast_limits_that_rise(value):
    low, high = contrast_limits(Volume(np.full((1, 2, 3, 4), value), axial_grid((2, 3, 4))))
    assert np.isfinite([low, high]).all()
    assert low < high
