"""Which layers are scans, and what is said of those that are none."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.image_layers import volume_to_layer
from napari_medmaskrcnn.layers.scan_of_layer import NoScan, scan_of_layer

layers = pytest.importorskip("napari.layers", reason="napari is not installed")


def test_our_own_layers_carry_their_scan():
    volume = Volume(np.zeros((1, 4, 5, 6), np.int16), Grid((4, 5, 6), np.diag([3.0, 1, 1, 1])), modality="MR")
    data, settings, _ = volume_to_layer(volume, "MR")
    assert scan_of_layer(layers.Image(data, **settings)) is volume


def test_other_layers_lie_where_napari_shows_them():
    layer = layers.Image(np.zeros((4, 5, 6)), scale=(3, 2, 1), translate=(10, 20, 30), units=("mm",) * 3)
    volume = scan_of_layer(layer)
    assert volume.spacing_mm == (3, 2, 1) and volume.modality is None
    data, settings, _ = volume_to_layer(volume, "again")
    assert data.shape == (4, 5, 6)
    np.testing.assert_allclose(settings["scale"], layer.scale)
    np.testing.assert_allclose(settings["translate"], layer.translate)


def test_pixels_of_unknown_size_are_no_millimetres():
    assert scan_of_layer(layers.Image(np.zeros((4, 5, 6)))).spacing_mm is None
    micro = scan_of_layer(layers.Image(np.zeros((5, 6)), scale=(500, 500), units=("um",) * 2))
    assert micro.is_planar and micro.spacing_mm[1:] == pytest.approx((0.5, 0.5))


def test_colour_is_kept_as_colour():
    volume = scan_of_layer(layers.Image(np.zeros((5, 6, 3), np.uint8), rgb=True))
    assert volume.channel_kind == "colour" and volume.array.shape == (3, 1, 5, 6)


def test_what_is_no_scan_is_told_with_what_to_do():
    with pytest.raises(NoScan, match=r"There is no image layer\. Open a scan first"):
        scan_of_layer(None)
    with pytest.raises(NoScan, match=r"time has 4 axes \(7 volumes.*Split Stack"):
        scan_of_layer(layers.Image(np.zeros((7, 4, 5, 6)), name="time"))
    grid = Grid((4, 5, 6), np.eye(4))
    data, settings, _ = volume_to_layer(Volume(np.zeros((3, 4, 5, 6)), grid, channel_kind="unknown"), "echoes")
    with pytest.raises(NoScan, match="echoes has 4 axes"):
        scan_of_layer(layers.Image(data, **settings))
