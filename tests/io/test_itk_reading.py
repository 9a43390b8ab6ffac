"""NRRD and MetaImage: geometry as SimpleITK itself computes it, and damage refused."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume

NAMES = ["a.nrrd", "a.nhdr", "a.mha", "a.mhd"]
ROTATION = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def oblique_image(array: np.ndarray, *, vector: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing((0.5, 0.8, 2.5))
    image.SetDirection(ROTATION)
    image.SetOrigin((11.0, -22.0, 33.0))
    return image


@pytest.fixture
def array() -> np.ndarray:
    return np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4) - 60


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_voxels_and_geometry_are_simpleitks(array, tmp_path, name, compressed):
    image = oblique_image(array)
    sitk.WriteImage(image, str(tmp_path / name), compressed)
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array[0], array)
    for w, h, d in [(0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (3, 4, 5)]:
        x, y, z = image.TransformIndexToPhysicalPoint((w, h, d))
        np.testing.assert_allclose(volume.grid.index_to_ras([d, h, w]), [-x, -y, z], atol=1e-9)
    assert volume.provenance.format == ("NRRD" if "n" in name.split(".")[1][0] else "MetaImage")
    info = describe(tmp_path / name)[0]
    assert (info.shape, info.orientation) == ((1, 6, 5, 4), "S P L")
    assert info.spacing_mm == pytest.approx((2.5, 0.8, 0.5))


@pytest.mark.parametrize("name", NAMES)
def test_components_are_channels(tmp_path, name):
    array = np.random.default_rng(0).integers(0, 255, (6, 5, 4, 3)).astype(np.uint8)
    sitk.WriteImage(oblique_image(array, vector=True), str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    assert volume.channel_kind == "colour"
    np.testing.assert_array_equal(volume.array, np.moveaxis(array, -1, 0))
    sitk.WriteImage(oblique_image(array.astype(np.float32), vector=True), str(tmp_path / name))
    assert read_volume(tmp_path / name).channel_kind == "unknown"


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_fourth_axis_is_the_channel_axis(tmp_path, name):
    array = np.arange(2 * 6 * 5 * 4, dtype=np.float32).reshape(2, 6, 5, 4)
    sitk.WriteImage(sitk.JoinSeries([oblique_image(a) for a in array]), str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    assert volume.channel_kind == "unknown"
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.5))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_a_2d_picture_has_no_spacing(tmp_path, name):
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((5, 4), np.uint8)), str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    assert volume.array.shape == (1, 1, 5, 4)
    assert volume.spacing_mm is None


def test_nrrd_in_ras_space(tmp_path):
    header = "NRRD0004\ntype: uint8\ndimension: 3\nspace: right-anterior-superior\nsizes: 4 5 6\n"
    header += "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (7,8,9)\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + bytes(range(120)))
    volume = read_volume(tmp_path / "a.nrrd")
    np.testing.assert_allclose(volume.affine_vox_to_ras, [[0, 0, 2, 7], [0, 3, 0, 8], [4, 0, 0, 9], [0, 0, 0, 1]])
    assert volume.array[0, 0, 0, 3] == 3


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.nrrd", "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n\n"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 4 5 6\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"),
    ],
)
def test_a_header_without_sizes_gives_no_spacing(tmp_path, name, header):
    (tmp_path / name).write_bytes(header.encode() + bytes(range(120)))
    volume = read_volume(tmp_path / name)
    assert volume.spacing_mm is None
    assert volume.array[0, 5, 4, 3] == 119


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["cut.nrrd", "cut.mha"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.97])
def test_truncated_files_are_refused_and_named(tmp_path, name, compressed, share):
    noise = np.random.default_rng(0).integers(-999, 999, (20, 20, 20)).astype(np.int16)
    sitk.WriteImage(oblique_image(noise), str(tmp_path / name), compressed)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ReadError, match="cut"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["huge.nrrd", "huge.mha"])
def test_a_claim_of_a_trillion_voxels_is_refused(array, tmp_path, name, compressed):
    sitk.WriteImage(oblique_image(array), str(tmp_path / name), compressed)
    data = (tmp_path / name).read_bytes()
    changed = data.replace(b" 4 5 6\n", b" 10000 10000 10000\n", 1)
    assert changed != data
    (tmp_path / name).write_bytes(changed)
    for read in (read_volume, describe):
        with pytest.raises(ReadError, match=r"huge.*claims 2 TB"):
            read(tmp_path / name)


def test_a_missing_data_file_is_named(array, tmp_path):
    sitk.WriteImage(oblique_image(array), str(tmp_path / "a.mhd"))
    (tmp_path / "a.raw").unlink()
    with pytest.raises(ReadError, match=r"a\.raw, which does not exist"):
        read_volume(tmp_path / "a.mhd")


def test_the_data_file_is_no_scan_of_its_own(array, tmp_path):
    sitk.WriteImage(oblique_image(array), str(tmp_path / "a.mhd"))
    assert read_volume(tmp_path).array.shape == (1, 6, 5, 4)
    reasons = {info.path.rsplit("/", 1)[1]: info.reason for info in describe(tmp_path)}
    assert reasons == {"a.mhd": None, "a.raw": "the voxels that belong to a.mhd"}


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1.0), ("um", 1e-3), ("cm", 10.0), ("furlong", 1.0)])
def test_units_of_a_nrrd(array, tmp_path, unit, factor):
    head = (
        "NRRD0004\ntype: int16\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 5 6\nencoding: raw\n"
        "space directions: (0.5,0,0) (0,0.8,0) (0,0,2.5)\nspace origin: (1,2,3)\nendian: little\n"
        f'space units: "{unit}" "{unit}" "{unit}"\n\n'
    )
    (tmp_path / "a.nrrd").write_bytes(head.encode() + array.tobytes())
    volume = read_volume(tmp_path / "a.nrrd")
    assert volume.spacing_mm == pytest.approx((2.5 * factor, 0.8 * factor, 0.5 * factor))
    np.testing.assert_allclose(volume.affine_vox_to_ras[:3, 3], np.array([-1, -2, 3]) * factor)
