"""TIFF: channels are channels, times are times, slices are slices; every number type; the scale that is stated."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.labels.label_volume import read_label_volume
from medmaskrcnn.io.read import read_volume

RNG = np.random.default_rng(0)
UM = 1e-3


def stack(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return RNG.integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.tif", {"imagej": True}), ("a.ome.tif", {}), ("b.tif", {"photometric": "minisblack", "bigtiff": True})],
)
@pytest.mark.parametrize(
    ("axes", "shape", "extents", "kind"),
    [
        ("CYX", (2, 7, 9), (2, 1, 7, 9), "unknown"),
        ("ZYX", (5, 7, 9), (1, 5, 7, 9), "scalar"),
        ("TYX", (6, 7, 9), (1, 6, 7, 9), "scalar"),
        ("ZCYX", (4, 2, 7, 9), (2, 4, 7, 9), "unknown"),
        ("TZYX", (3, 4, 7, 9), (3, 4, 7, 9), "unknown"),
    ],
)
def test_axes(tmp_path, name, options, axes, shape, extents, kind):
    pixels = stack(*shape)
    tifffile.imwrite(tmp_path / name, pixels, metadata={"axes": axes}, **options)
    (info,) = describe(tmp_path / name)
    volume = read_volume(tmp_path / name)
    assert info.shape == volume.array.shape == extents
    assert volume.channel_kind == kind
    assert (volume.film is not None) == (axes == "TYX")
    order = [axes.index(a) for a in "CTZYX" if a in axes]
    np.testing.assert_array_equal(volume.array.ravel(), pixels.transpose(order).ravel())
    told = any(word in note for note in info.notes for word in ("channel", "times"))
    assert told == ("C" in axes or "T" in axes)


def test_more_axes_than_a_scan_has_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", stack(2, 3, 2, 7, 9), metadata={"axes": "TZCYX"})
    with pytest.raises(ReadError, match="T 2, Z 3, C 2"):
        read_volume(tmp_path / "a.ome.tif")


def test_one_directory_for_many_slices(tmp_path):
    """ImageJ writes stacks beyond 4 GB with a single directory; only its description tells of the other slices."""
    pixels = stack(6, 7, 9)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        at = [page.offset for page in tif.pages]
        order, pages = tif.byteorder, len(tif.pages)
    if pages > 1:  # end the chain of directories after the first one
        data = bytearray((tmp_path / "a.tif").read_bytes())
        n_tags = int.from_bytes(data[at[0] : at[0] + 2], "little" if order == "<" else "big")
        end = at[0] + 2 + 12 * n_tags
        data[end : end + 4] = b"\0\0\0\0"
        (tmp_path / "a.tif").write_bytes(bytes(data))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[0], pixels)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_number_type_keeps_its_values(tmp_path, dtype):
    pixels = (RNG.integers(0, 100, (7, 9)) - (50 if dtype[0] != "u" else 0)).astype(dtype)
    for order in "<>":
        tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order)
        volume = read_volume(tmp_path / "a.tif")
        assert volume.array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(volume.array[0, 0], pixels)


def test_half_precision_and_black_and_white(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((7, 9), 1.5, np.float16))
    assert (read_volume(tmp_path / "a.tif").array == np.float32(1.5)).all()
    tifffile.imwrite(tmp_path / "b.tif", np.eye(8, dtype=bool), photometric="minisblack")
    np.testing.assert_array_equal(read_volume(tmp_path / "b.tif").array[0, 0], np.eye(8) * 255)
    tifffile.imwrite(tmp_path / "mask.tif", np.eye(8, dtype=bool), photometric="miniswhite")
    np.testing.assert_array_equal(read_label_volume(tmp_path / "mask.tif").array[0, 0], np.eye(8) * 255)
    tifffile.imwrite(tmp_path / "c.tif", stack(7, 9), photometric="miniswhite")
    assert read_volume(tmp_path / "c.tif").array.max() > 65000


def test_complex_numbers_are_refused_by_name(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((7, 9), np.complex64))
    with pytest.raises(ReadError, match="complex64"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", [None, "zlib", "packbits", "tiff_lzw", "jpeg"])
def test_compressions(tmp_path, compression):
    smooth = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)
    pages = [Image.fromarray(smooth + i) for i in range(3)]
    how = {"zlib": "tiff_adobe_deflate"}.get(compression, compression)
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=how)
    array = read_volume(tmp_path / "a.tif").array
    assert array.shape == (1, 3, 32, 48)
    off = np.abs(array[0].astype(int) - np.stack([np.asarray(page) for page in pages])).max()
    assert off <= (4 if compression == "jpeg" else 0)


def test_channels_in_a_compression_that_tifffile_lacks(tmp_path):
    pages = [Image.fromarray(stack(7, 9)) for _ in range(4)]
    note = "ImageJ=1.54f\nimages=4\nchannels=2\nslices=2\nhyperstack=true\nunit=micron\nspacing=2.0\n"
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw",
        tiffinfo={270: note, 282: 4.0, 283: 2.0, 296: 1},
    )  # fmt: skip
    volume = read_volume(tmp_path / "a.tif")
    assert volume.array.shape == (2, 2, 7, 9)
    np.testing.assert_array_equal(volume.array[1, 0], np.asarray(pages[1]))
    assert volume.spacing_mm == pytest.approx((2 * UM, 0.5 * UM, 0.25 * UM))


def test_colour(tmp_path):
    colours = stack(7, 9, 3, dtype=np.uint8)
    for planar in ("contig", "separate"):
        pixels = colours if planar == "contig" else np.moveaxis(colours, -1, 0)
        tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", planarconfig=planar)
        volume = read_volume(tmp_path / "a.tif")
        assert volume.channel_kind == "colour"
        np.testing.assert_array_equal(volume.array[:, 0], np.moveaxis(colours, -1, 0))
    tifffile.imwrite(tmp_path / "b.tif", stack(7, 9, 4, dtype=np.uint8), photometric="rgb", extrasamples=["unassalpha"])
    assert read_volume(tmp_path / "b.tif").array.shape == (3, 1, 7, 9)
    tifffile.imwrite(tmp_path / "c.tif", stack(7, 9, 3) * 256, photometric="rgb")
    volume = read_volume(tmp_path / "c.tif")
    assert volume.array.dtype == np.uint8
    assert any("8 bits" in note for note in volume.provenance.notes)


def test_a_palette_is_colours_in_a_scan_and_numbers_in_a_label_map(tmp_path):
    indices = stack(7, 9, dtype=np.uint8) % 4
    palette = np.zeros((3, 256), np.uint16)
    palette[:, 1:4] = [[0xFFFF, 0, 0x8080], [0, 0xFFFF, 0], [0, 0, 0x1010]]
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=palette)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").array[:, 0], (palette >> 8)[:, indices])
    np.testing.assert_array_equal(read_label_volume(tmp_path / "a.tif").array[0, 0], indices)


def test_two_samples_are_two_channels(tmp_path):
    pixels = stack(7, 9, 2)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", planarconfig="contig")
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.array[:, 0], np.moveaxis(pixels, -1, 0))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_label_maps_of_every_type(tmp_path, dtype):
    labels = np.arange(63).reshape(7, 9).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    np.testing.assert_array_equal(read_label_volume(tmp_path / "a.tif").array[0, 0], labels)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("um", UM), ("micron", UM), ("\\u00B5m", UM), ("nm", 1e-6), ("mm", 1), ("cm", 10), ("inch", 25.4)],
)
def test_imagej_states_the_scale(tmp_path, unit, factor):
    tifffile.imwrite(
        tmp_path / "a.tif", stack(4, 7, 9), imagej=True, resolution=(4, 2),
        metadata={"axes": "ZYX", "spacing": 1.5, "unit": unit},
    )  # fmt: skip
    assert read_volume(tmp_path / "a.tif").spacing_mm == pytest.approx((1.5 * factor, 0.5 * factor, 0.25 * factor))
    assert describe(tmp_path / "a.tif")[0].spacing_mm == pytest.approx((1.5 * factor, 0.5 * factor, 0.25 * factor))


def test_ome_states_the_scale(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 500, "PhysicalSizeYUnit": "nm"}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack(4, 7, 9), metadata=metadata)
    assert read_volume(tmp_path / "a.ome.tif").spacing_mm is None  # the distance between slices is not told
    tifffile.imwrite(tmp_path / "b.ome.tif", stack(4, 7, 9), metadata={**metadata, "PhysicalSizeZ": 2})
    assert read_volume(tmp_path / "b.ome.tif").spacing_mm == pytest.approx((2 * UM, 0.5 * UM, 0.25 * UM))


def test_the_resolution_of_print_is_no_scale(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", stack(7, 9), resolution=(72, 72), resolutionunit="INCH")
    assert read_volume(tmp_path / "a.tif").spacing_mm is None


def test_a_picture_beyond_pillows_limit_for_the_web(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(stack(32, 32, dtype=np.uint8)).save(tmp_path / name)
        assert describe(tmp_path / name)[0].segmentable
        assert read_volume(tmp_path / name).array.shape == (1, 1, 32, 32)
