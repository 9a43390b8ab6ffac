"""A DICOM series becomes a Volume: order, geometry, values, and what must not come along."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import uid

from medmaskrcnn.errors import AmbiguousInputError, ReadError
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR


def test_a_series_by_hand(slices, voxels, write_series):
    volume = read_volume(write_series(slices))
    assert volume.array.shape == (1, 6, 5, 4)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    # Row 2 (H) lies 2 * 0.8 mm behind the first, column 3 (W) 3 * 0.5 mm to the left: LPS (-8.5, -18.4, 35).
    np.testing.assert_allclose(volume.grid.index_to_ras([2, 2, 3]), [8.5, 18.4, 35.0], atol=1e-9)
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.8, 0.5))
    assert volume.modality == "CT"
    assert volume.window == (40.0, 400.0)
    assert volume.channel_kind == "scalar"
    assert volume.provenance.format == "DICOM"
    assert volume.provenance.sop_instance_uids == tuple(str(s.SOPInstanceUID) for s in slices)
    assert volume.provenance.generator is None


def test_geometry_is_that_of_simpleitk(slices, write_series):
    orientation = [0.0, 0.96, 0.28, 0.0, 0.28, -0.96]
    normal = np.cross(orientation[:3], orientation[3:])
    for i, one in enumerate(slices):
        one.ImageOrientationPatient = orientation
        one.ImagePositionPatient = [float(v) for v in np.round([3, -7, 11] + normal * 2.5 * i, 6)]
    folder = write_series(slices)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    for w, h, d in [(0, 0, 0), (3, 0, 0), (0, 4, 0), (0, 0, 5), (3, 4, 5)]:
        x, y, z = image.TransformIndexToPhysicalPoint((w, h, d))
        np.testing.assert_allclose(volume.grid.index_to_ras([d, h, w]), [-x, -y, z], atol=1e-4)


def test_names_do_not_matter(slices, voxels, write_series):
    names = ["zeta", "b.txt", "IM.0.1", "0009", "a b.dcm", "ümlaut"]
    volume = read_volume(write_series(slices, names=names))
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert [f.rsplit("/", 1)[1] for f in volume.provenance.files] == names


def test_order_follows_positions_not_instance_numbers(slices, voxels, write_series):
    for one in slices:
        one.InstanceNumber = 100 - int(one.InstanceNumber)
    np.testing.assert_array_equal(read_volume(write_series(slices)).array[0], voxels.astype(int) - 1024)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble(slices, voxels, tmp_path, implicit):
    for i, one in enumerate(slices):
        del one.file_meta  # the data set alone, as some old exporters write it
        one.save_as(tmp_path / f"{i}", implicit_vr=implicit, little_endian=True)
    assert (tmp_path / "0").read_bytes()[:4] == b"\x08\x00\x08\x00"
    np.testing.assert_array_equal(read_volume(tmp_path).array[0], voxels.astype(int) - 1024)


def test_each_slice_has_its_own_rescale(slices, voxels, write_series):
    for i, one in enumerate(slices):
        one.Modality, one.SOPClassUID = "PT", uid.PositronEmissionTomographyImageStorage
        one.RescaleSlope, one.RescaleIntercept = 0.25 * (i + 1), 0
    volume = read_volume(write_series(slices))
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array[0], voxels * 0.25 * np.arange(1, 7)[:, None, None], rtol=1e-6)


def test_whole_number_slopes_keep_integers(slices, voxels, write_series):
    for i, one in enumerate(slices):
        one.RescaleSlope, one.RescaleIntercept = 1 + i % 2, -i
    volume = read_volume(write_series(slices))
    assert volume.array.dtype == np.int16
    expected = voxels.astype(int) * (1 + np.arange(6) % 2)[:, None, None] - np.arange(6)[:, None, None]
    np.testing.assert_array_equal(volume.array[0], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_values_without_rescale_keep_their_type(new_slice, write_series, dtype):
    low = -500 if dtype is np.int16 else 0
    planes = np.arange(low, low + 60).reshape(3, 5, 4).astype(dtype)
    series = [new_slice(i, p, RescaleSlope=None, RescaleIntercept=None) for i, p in enumerate(planes)]
    volume = read_volume(write_series(series))
    assert volume.array.dtype == dtype
    np.testing.assert_array_equal(volume.array[0], planes)


def test_twelve_bits_signed_are_sign_extended(new_slice, write_series):
    stored = np.array([[-2048, -1], [0, 2047]], dtype=np.int16)
    one = new_slice(0, stored, RescaleIntercept=0, BitsStored=12, HighBit=11)
    one.PixelData = (stored.view(np.uint16) & 0x0FFF).tobytes()  # the four unused bits are zero
    np.testing.assert_array_equal(read_volume(write_series([one])).array[0, 0], stored)


def test_gantry_tilt_stays_in_the_affine(slices, write_series):
    for i, one in enumerate(slices):
        one.ImagePositionPatient = [-10.0, -20.0 + 0.5 * i, 30.0 + 2.5 * i]
    volume = read_volume(write_series(slices))
    np.testing.assert_allclose(volume.affine_vox_to_ras[:3, 0], [0, -0.5, 2.5])
    assert volume.grid.voxel_volume_unit3 == pytest.approx(2.5 * 0.8 * 0.5)  # not the sheared length 2.55 mm
    assert any("tilt of 11.31 degrees" in note for note in volume.provenance.notes)


def test_a_missing_slice_is_refused_with_its_neighbours(slices, write_series):
    del slices[3]
    with pytest.raises(
        ReadError, match=r"1 slice is missing.*slice 3 \(002.dcm\) at 35.00 mm.*slice 5 \(003.dcm\) at 40"
    ):
        read_volume(write_series(slices))


def test_uneven_spacing_is_refused(slices, write_series):
    slices[2].ImagePositionPatient = [-10.0, -20.0, 35.9]
    with pytest.raises(ReadError, match=r"unevenly spaced.*slice 2 \(001.dcm\)"):
        read_volume(write_series(slices))


def test_a_doubled_slice_is_refused(slices, new_slice, voxels, write_series):
    slices.append(new_slice(2, voxels[0], SOPInstanceUID="1.2.3", InstanceNumber=77))
    with pytest.raises(ReadError, match=r"doubled slice.*slice 3 \(002.dcm\).*slice 77 \(006.dcm\).*35.00 mm"):
        read_volume(write_series(slices))


def test_a_copied_file_is_used_once_and_told(slices, voxels, write_series):
    folder = write_series(slices)
    shutil.copy(folder / "002.dcm", folder / "002 (copy).dcm")
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert any("byte for byte" in note for note in volume.provenance.notes)


def test_a_slice_shifted_sideways_is_refused(slices, write_series):
    slices[3].ImagePositionPatient = [-8.0, -20.0, 37.5]
    with pytest.raises(ReadError, match=r"straight line: slice 4 \(003.dcm\) is 2.00 mm off"):
        read_volume(write_series(slices))


def test_repetitions_become_volumes(slices, voxels, new_slice, write_series):
    for one in slices:
        one.AcquisitionNumber = 1
    again = [new_slice(i, p + 1, SOPInstanceUID=f"1.2.9.{i}", AcquisitionNumber=2) for i, p in enumerate(voxels)]
    folder = write_series([*again, *slices])
    with pytest.raises(AmbiguousInputError, match=r"1\. .*AcquisitionNumber 1.*\n.*2\. .*AcquisitionNumber 2"):
        read_volume(folder)
    for number in (1, 2):
        volume = read_volume(folder, series=str(number))
        assert volume.channel_kind == "scalar"
        np.testing.assert_array_equal(volume.array[0], voxels.astype(int) + number - 1025)
        assert volume.provenance.policy.separated_by == f"AcquisitionNumber {number}"


def test_two_series_are_listed_and_chosen(slices, new_slice, voxels, write_series):
    other = [new_slice(i, p, SeriesInstanceUID="1.2.77", SeriesDescription="thin") for i, p in enumerate(voxels[:2])]
    folder = write_series(slices + other)
    with pytest.raises(AmbiguousInputError) as error:
        read_volume(folder)
    for part in ("1. CT series, 6 slices", "abdomen", "2. CT series, 2 slices", "thin", "UID 1.2.77"):
        assert part in str(error.value)
    assert read_volume(folder, series="1.2.77").array.shape[1] == 2
    assert read_volume(folder, series="2").array.shape[1] == 2
    assert read_volume(folder, series="1").array.shape[1] == 6
    assert read_volume(folder, series="largest").array.shape[1] == 6
    with pytest.raises(ReadError, match="no series '3'"):
        read_volume(folder, series="3")


def test_one_series_in_two_folders_is_two_scans(slices, write_series, tmp_path):
    write_series(slices, folder="all/a")
    for one in slices:
        one.SeriesDescription = "exported again"
    write_series(slices, folder="all/b")
    with pytest.raises(AmbiguousInputError, match="2 scans"):
        read_volume(tmp_path / "all")
    with pytest.raises(AmbiguousInputError, match="more than once"):
        read_volume(tmp_path / "all", series=str(slices[0].SeriesInstanceUID))
    assert read_volume(tmp_path / "all", series="2").array.shape == (1, 6, 5, 4)


def test_a_series_spread_over_folders_is_one_scan(slices, voxels, write_series, tmp_path):
    write_series(slices[::2], folder="all/a")
    write_series(slices[1::2], folder="all/b")
    np.testing.assert_array_equal(read_volume(tmp_path / "all").array[0], voxels.astype(int) - 1024)


def test_series_without_uids_go_by_folder(slices, new_slice, voxels, write_series, tmp_path):
    for one in slices:
        one.SeriesInstanceUID = one.StudyInstanceUID = one.SOPClassUID = ""
    write_series(slices, folder="all/a")
    write_series([new_slice(i, p, SeriesInstanceUID="") for i, p in enumerate(voxels[:3])], folder="all/b")
    assert read_volume(tmp_path / "all" / "a").array.shape == (1, 6, 5, 4)
    with pytest.raises(AmbiguousInputError, match="2 scans"):
        read_volume(tmp_path / "all")


def test_strays_and_localizers_are_set_aside(slices, new_slice, voxels, write_series):
    many = [new_slice(i, np.full((5, 4), i, np.uint16), SOPInstanceUID=f"1.2.5.{i}") for i in range(20)]
    stray = new_slice(0, np.zeros((8, 8), np.uint16), SOPInstanceUID="1.2.6")
    scout = new_slice(0, np.zeros((9, 9), np.uint16), SOPInstanceUID="1.2.7", SeriesInstanceUID="1.2.8")
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    folder = write_series([*many, stray, scout])
    assert read_volume(folder).array.shape == (1, 20, 5, 4)
    assert read_volume(folder, series="1.2.8").array.shape == (1, 1, 9, 9)  # asked for by name, it is given


@pytest.mark.parametrize("change", [{"pixels": (8, 8)}, {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}])
def test_one_odd_slice_in_a_series_is_left_out_and_told(slices, new_slice, write_series, change):
    odd = new_slice(9, np.zeros(change.pop("pixels", (5, 4)), np.uint16), **change)
    volume = read_volume(write_series([odd, *slices]))
    assert volume.array.shape == (1, 6, 5, 4)
    assert any("1 of the series' slices differ" in note for note in volume.provenance.notes)


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("slope", ["0", "nan"])
def test_a_useless_slope_is_refused(slices, write_series, slope):
    slices[1].RescaleSlope = slope
    with pytest.raises(ReadError, match=r"001\.dcm.*RescaleSlope"):
        read_volume(write_series(slices))


def test_a_single_file_is_one_slice_with_its_thickness(slices, voxels, write_series):
    volume = read_volume(write_series(slices) / "002.dcm")
    assert volume.is_planar
    assert volume.spacing_mm == pytest.approx((5.0, 0.8, 0.5))
    np.testing.assert_array_equal(volume.array[0, 0], voxels[2].astype(int) - 1024)
    assert any("thickness of 5 mm" in note for note in volume.provenance.notes)


def test_monochrome1_is_told_not_inverted(slices, voxels, write_series):
    for one in slices:
        one.PhotometricInterpretation = "MONOCHROME1"
    volume = read_volume(write_series(slices))
    np.testing.assert_array_equal(volume.array[0], voxels.astype(int) - 1024)
    assert any("MONOCHROME1" in note for note in volume.provenance.notes)


def test_a_colour_image_without_place(new_slice, write_series):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    gone = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"))
    one = new_slice(0, pixels, Modality="US", SOPClassUID=uid.UltrasoundImageStorage, **gone)
    volume = read_volume(write_series([one]))
    assert volume.channel_kind == "colour"
    assert volume.spacing_mm == pytest.approx((5.0, 0.8, 0.5))
    np.testing.assert_array_equal(volume.array[:, 0], np.moveaxis(pixels, -1, 0))


def test_the_phantom_is_recognised(slices, write_series):
    for one in slices:
        one.Manufacturer = PHANTOM_GENERATOR
    assert read_volume(write_series(slices)).provenance.generator == PHANTOM_GENERATOR
    slices[1].Manufacturer = "someone else"
    assert read_volume(write_series(slices)).provenance.generator is None


def test_no_patient_identity_comes_along(slices, write_series):
    volume = read_volume(write_series(slices))
    told = repr((dataclasses.asdict(volume.provenance), volume.modality, volume.window))
    assert "Doe" not in told
    assert "4711" not in told
