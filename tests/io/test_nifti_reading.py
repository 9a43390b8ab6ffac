"""NIfTI in all its moods: axes, types, scaling, affines, units, and every way to be damaged."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR

AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.8, 0.1, -20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
HDR_DIM, HDR_PIXDIM, HDR_QFORM, HDR_SFORM, HDR_SROW = 40, 76, 252, 254, 280  # byte offsets, nifti1.h


@pytest.fixture
def stored() -> np.ndarray:
    """``(4, 5, 6)`` int16 in NIfTI's order x, y, z."""
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 50


def save(array, path, affine=AFFINE, **header):
    image = nib.Nifti1Image(array, affine)
    for field, value in header.items():
        image.header[field] = value
    nib.save(image, path)
    return path


def patch(path, *edits):
    """Overwrite bytes of the header: ``(offset, dtype, values)``."""
    data = bytearray(path.read_bytes())
    for offset, dtype, values in edits:
        raw = np.atleast_1d(np.asarray(values, dtype)).tobytes()
        data[offset : offset + len(raw)] = raw
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img"])
def test_voxels_and_affine_are_nibabels(stored, tmp_path, name):
    path = save(stored, tmp_path / name) if name != "a.img" else tmp_path / name
    if name == "a.img":
        nib.save(nib.Nifti1Pair(stored, AFFINE), path)
    volume = read_volume(path)
    assert volume.array.shape == (1, 6, 5, 4)
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    assert volume.provenance.format == "NIfTI"
    assert volume.provenance.notes == ()
    for x, y, z in [(0, 0, 0), (3, 1, 2), (2, 4, 5)]:
        assert volume.array[0, z, y, x] == stored[x, y, z]
        np.testing.assert_allclose(volume.grid.index_to_ras([z, y, x]), (AFFINE @ [x, y, z, 1])[:3], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_types_are_kept_in_native_byte_order(stored, tmp_path, dtype):
    array = np.abs(stored).astype(dtype)
    image = nib.Nifti1Image(array, AFFINE, nib.Nifti1Header(endianness=">" if ">" in str(dtype) else "<"))
    image.set_data_dtype(array.dtype)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert volume.array.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(volume.array[0], array.T)


@pytest.mark.parametrize(("slope", "inter", "dtype"), [(1, -1024, np.int16), (2, 0, np.int16), (1000, 5, np.int32)])
def test_whole_number_scaling_keeps_integers(stored, tmp_path, slope, inter, dtype):
    path = patch(save(stored, tmp_path / "a.nii"), (112, "<f4", [slope, inter]))  # scl_slope, scl_inter
    volume = read_volume(path)
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array[0], stored.T.astype(int) * slope + inter)


def test_fractional_scaling_gives_float32(stored, tmp_path):
    volume = read_volume(patch(save(stored, tmp_path / "a.nii"), (112, "<f4", [0.5, 0.25])))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], stored.T * 0.5 + 0.25)


@pytest.mark.parametrize("slope", [0.0, np.nan])
def test_unset_scaling_means_none(stored, tmp_path, slope):
    volume = read_volume(patch(save(stored, tmp_path / "a.nii"), (112, "<f4", [slope, np.nan])))
    np.testing.assert_array_equal(volume.array[0], stored.T)


def test_a_fourth_axis_is_the_channel_axis(tmp_path):
    array = np.arange(4 * 5 * 6 * 3, dtype=np.int16).reshape(4, 5, 6, 3)
    volume = read_volume(save(array, tmp_path / "a.nii.gz"))
    assert volume.array.shape == (3, 6, 5, 4)
    assert volume.channel_kind == "unknown"
    assert volume.array[2, 5, 1, 3] == array[3, 1, 5, 2]
    assert read_volume(save(array[..., :1], tmp_path / "b.nii.gz")).channel_kind == "scalar"


def test_rgb_is_colour(tmp_path):
    array = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    array["G"][3, 1, 2] = 77
    volume = read_volume(save(array, tmp_path / "a.nii"))
    assert volume.channel_kind == "colour"
    assert volume.array.shape == (3, 6, 5, 4)
    assert volume.array[1, 2, 1, 3] == 77


def test_one_slice(tmp_path):
    volume = read_volume(save(np.ones((4, 5), np.float32), tmp_path / "a.nii"))
    assert volume.is_planar


def test_disagreement_of_sform_and_qform_is_told(stored, tmp_path):
    image = nib.Nifti1Image(stored, AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(np.diag([0.5, 0.8, 2.5, 1]), code=1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.affine_vox_to_ras[:, [2, 1, 0, 3]], AFFINE, atol=1e-6)
    assert any("sform and qform disagree" in note for note in volume.provenance.notes)
    assert any("sform and qform disagree" in note for note in describe(tmp_path / "a.nii")[0].notes)


def test_qform_alone_is_used(stored, tmp_path):
    rotated = np.array([[0, -0.8, 0, 5], [0.5, 0, 0, 6], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    image = nib.Nifti1Image(stored, None)
    image.set_qform(rotated, code=1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.affine_vox_to_ras[:, [2, 1, 0, 3]], rotated, atol=1e-6)


def test_no_orientation_is_told(stored, tmp_path):
    path = patch(save(stored, tmp_path / "a.nii"), (HDR_QFORM, "<i2", [0, 0]))
    volume = read_volume(path)
    np.testing.assert_allclose(volume.spacing_mm, (2.502, 0.8, 0.5), atol=1e-3)
    assert any("no orientation" in note for note in volume.provenance.notes)


@pytest.mark.parametrize(("code", "factor"), [(1, 1000.0), (3, 1e-3)])
def test_other_units_become_mm(stored, tmp_path, code, factor):
    volume = read_volume(patch(save(stored, tmp_path / "a.nii"), (123, "u1", code)))
    np.testing.assert_allclose(volume.affine_vox_to_ras[:3][:, [2, 1, 0, 3]], AFFINE[:3] * factor, rtol=1e-6)


def test_the_phantom_is_recognised(stored, tmp_path):
    path = save(stored, tmp_path / "a.nii.gz", descrip=f"{PHANTOM_GENERATOR} 7")
    assert read_volume(path).provenance.generator == PHANTOM_GENERATOR


@pytest.mark.parametrize(
    "rows", [np.zeros((3, 4)), np.full((3, 4), np.nan), AFFINE[[0, 0, 2]]], ids=["zero", "nan", "singular"]
)
def test_unusable_affines_are_refused(stored, tmp_path, rows):
    path = patch(save(stored, tmp_path / "bad.nii"), (HDR_QFORM, "<i2", [0, 1]), (HDR_SROW, "<f4", rows))
    for read in (read_volume, describe):
        with pytest.raises(ReadError, match=r"bad\.nii: the affine (is zero|holds values|is singular)"):
            read(path)


@pytest.mark.parametrize("size", [0.0, np.nan])
def test_voxel_sizes_of_zero_are_not_mended_to_one(stored, tmp_path, size):
    path = patch(save(stored, tmp_path / "bad.nii"), (HDR_QFORM, "<i2", [0, 0]), (HDR_PIXDIM + 4, "<f4", [size] * 3))
    with pytest.raises(ReadError, match=r"bad\.nii: the affine is zero or not a number"):
        read_volume(path)


@pytest.mark.parametrize("name", ["huge.nii", "huge.nii.gz"])
def test_a_claim_of_a_trillion_voxels_is_refused(stored, tmp_path, name):
    plain = patch(save(stored, tmp_path / "a.nii"), (HDR_DIM, "<i2", [3, 10000, 10000, 10000]))
    data = plain.read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    for read in (read_volume, describe):
        with pytest.raises(ReadError, match=r"huge.*claims 2 TB"):
            read(tmp_path / name)


@pytest.mark.parametrize("dims", [[0, 4, 5, 6], [9, 4, 5, 6], [3, -4, 5, 6], [3, 4, 0, 6]])
def test_impossible_extents_are_refused(stored, tmp_path, dims):
    path = patch(save(stored, tmp_path / "bad.nii"), (HDR_DIM, "<i2", dims))
    with pytest.raises(ReadError, match=r"bad\.nii"):
        read_volume(path)


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused_and_named(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(-999, 999, (20, 20, 20)).astype(np.int16)
    data = save(noise, tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ReadError, match=r"cut\.nii"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize(("made", "named"), [("a.nii.gz", "b.nii"), ("a.nii", "b.nii.gz"), ("a.nii", "b")])
def test_names_do_not_matter(stored, tmp_path, made, named):
    path = save(stored, tmp_path / made).rename(tmp_path / named)
    np.testing.assert_array_equal(read_volume(path).array[0], stored.T)


def test_a_wrong_checksum_is_noticed(stored, tmp_path):
    path = save(stored, tmp_path / "rotten.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # a bit of the CRC-32 that stands for all voxels
    path.write_bytes(data)
    with pytest.raises(ReadError, match=r"rotten\.nii\.gz cannot be read.*CRC"):
        read_volume(path)


def test_the_array_may_be_written(stored, tmp_path):
    volume = read_volume(save(stored, tmp_path / "a.nii"))
    assert volume.array.flags.writeable
    assert volume.array.flags.owndata or volume.array.base is not None


def test_complex_values_and_five_axes_are_refused(tmp_path):
    with pytest.raises(ReadError, match="complex"):
        read_volume(save(np.ones((3, 3, 3), np.complex64), tmp_path / "a.nii"))
    with pytest.raises(ReadError, match="at most four"):
        read_volume(save(np.ones((3, 3, 3, 2, 2), np.float32), tmp_path / "b.nii"))


@pytest.mark.parametrize("seed", range(30))
def test_scrambled_headers_never_escape_as_another_error(stored, tmp_path, seed):
    random = np.random.default_rng(seed)
    path = save(stored, tmp_path / "scrambled.nii")
    data = bytearray(path.read_bytes())
    for i in random.integers(0, 352, 8):
        data[i] = random.integers(256)
    path.write_bytes(data)
    try:
        assert read_volume(path).array.size
    except ReadError as error:
        assert "scrambled.nii" in str(error)
