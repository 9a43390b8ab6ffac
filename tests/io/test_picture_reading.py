"""PNG, TIFF and JPEG: values as stored, no invented millimetre."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(("dtype", "high"), [(np.uint8, 256), (np.uint16, 65536)])
def test_grey(tmp_path, name, dtype, high):
    pixels = RNG.integers(0, high, (7, 9)).astype(dtype)
    Image.fromarray(pixels).save(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array, pixels[None, None])
    assert volume.spacing_mm is None
    assert volume.is_planar
    assert volume.channel_kind == "scalar"
    (info,) = describe(tmp_path / name)
    assert (info.shape, info.spacing_mm, info.orientation) == ((1, 1, 7, 9), None, None)
    assert info.segmentable


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.jpg"])
def test_colour(tmp_path, name):
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :, 0], pixels[:, 12:, 2] = 200, 100
    Image.fromarray(pixels).save(tmp_path / name, **({"quality": 95, "subsampling": 0} if "jpg" in name else {}))
    volume = read_volume(tmp_path / name)
    assert volume.channel_kind == "colour"
    assert volume.array.shape == (3, 1, 16, 24)
    difference = np.abs(volume.array[:, 0].astype(int) - np.moveaxis(pixels, -1, 0))
    assert difference.max() <= (6 if "jpg" in name else 0)
    assert describe(tmp_path / name)[0].kind.startswith("colour")


def test_palette_and_transparency_become_rgb(tmp_path):
    pixels = RNG.integers(0, 4, (6, 5)).astype(np.uint8)
    palette = Image.fromarray(pixels, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    palette.save(tmp_path / "p.png")
    volume = read_volume(tmp_path / "p.png")
    np.testing.assert_array_equal(volume.array[:, 0], np.moveaxis(10 * (3 * pixels[..., None] + [1, 2, 3]), -1, 0))
    Image.fromarray(RNG.integers(0, 255, (6, 5, 4)).astype(np.uint8), "RGBA").save(tmp_path / "t.png")
    volume = read_volume(tmp_path / "t.png")
    assert volume.array.shape == (3, 1, 6, 5)
    assert any("transparency" in note for note in volume.provenance.notes)


def test_black_and_white(tmp_path):
    Image.fromarray(np.eye(6, dtype=bool)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.png").array[0, 0], np.eye(6) * 255)


def test_tiff_pages_are_slices(tmp_path):
    pages = RNG.integers(0, 60000, (4, 6, 5)).astype(np.uint16)
    first, *rest = [Image.fromarray(p) for p in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array, pages[None])
    assert describe(tmp_path / "a.tif")[0].kind == "grey TIFF stack of 4"


def test_pages_of_different_size_are_refused(tmp_path):
    first, second = Image.new("L", (5, 6)), Image.new("L", (3, 2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(ReadError, match=r"page 2 is 3 x 2 uint8, page 1 is 5 x 6 uint8"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["cut.png", "cut.tif", "cut.jpg"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_truncated_pictures_are_refused_and_named(tmp_path, name, share):
    Image.fromarray(RNG.integers(0, 255, (64, 64)).astype(np.uint8)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ReadError, match="cut"):
        read_volume(tmp_path / name)


def test_pictures_beside_a_scan_are_not_taken_for_one(slices, write_series):
    folder = write_series(slices)
    Image.new("L", (5, 6)).save(folder / "preview.jpg")
    assert read_volume(folder).modality == "CT"
