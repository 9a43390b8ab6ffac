"""The scale of images without a place in the patient, with its meaning; SPECT; whole-slide images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.discover import describe
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask

NOWHERE = {
    "ImagePositionPatient": None, "ImageOrientationPatient": None, "PixelSpacing": None, "SliceThickness": None,
    "RescaleSlope": None, "RescaleIntercept": None, "FrameOfReferenceUID": None,
}  # fmt: skip
PLANE = np.zeros((12, 10), np.uint16)


@pytest.fixture
def write(new_slice, save_dicom, tmp_path):
    """Write an image of a modality with attributes, and return its path."""

    def one(
        modality: str = "DX", sop_class: str = uid.DigitalXRayImageStorageForPresentation, **attributes: Any
    ) -> Path:
        dataset = new_slice(0, PLANE, **{**NOWHERE, "Modality": modality, "SOPClassUID": sop_class})
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        return save_dicom(dataset, tmp_path / "a.dcm")

    return one


def region(delta: tuple[float, float] = (0.02, 0.03), kind: int = 1, units: int = 3) -> Dataset:
    one = Dataset()
    one.RegionSpatialFormat, one.RegionDataType, one.RegionFlags = kind, 1, 0
    one.RegionLocationMinX0, one.RegionLocationMinY0, one.RegionLocationMaxX1, one.RegionLocationMaxY1 = 0, 0, 9, 11
    one.PhysicalUnitsXDirection = one.PhysicalUnitsYDirection = units
    one.PhysicalDeltaX, one.PhysicalDeltaY = delta
    return one


SCALES: dict[str, tuple[dict[str, Any], tuple[float, float] | None, str]] = {
    "pixel spacing": ({"PixelSpacing": [0.143, 0.143]}, (0.143, 0.143), "header"),
    "not square": ({"PixelSpacing": [0.3, 0.1]}, (0.3, 0.1), "header"),
    "calibrated": ({"PixelSpacing": [0.2, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.2, 0.2), "calibrated"),
    "the detector's": ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "detector"),
    "imager": ({"ImagerPixelSpacing": [0.2, 0.2]}, None, "detector"),
    "estimated": (
        {"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25}, (0.08, 0.08), "estimate"
    ),
    "ultrasound": ({"SequenceOfUltrasoundRegions": [region()]}, (0.3, 0.2), "ultrasound"),
    "with doppler": ({"SequenceOfUltrasoundRegions": [region(), region(kind=3, units=4)]}, (0.3, 0.2), "ultrasound"),
    "two scales": ({"SequenceOfUltrasoundRegions": [region(), region((0.04, 0.04))]}, None, "different scales"),
    "doppler alone": ({"SequenceOfUltrasoundRegions": [region(kind=3, units=4)]}, None, "does not tell"),
    "film": ({"NominalScannedPixelSpacing": [0.1, 0.1]}, None, "film"),
    "nothing": ({}, None, "does not tell"),
    "zeros": ({"PixelSpacing": [0, 0]}, None, "does not tell"),
}  # fmt: skip


@pytest.mark.parametrize("what", SCALES)
def test_scale_and_what_it_means(write, what):
    attributes, expected, word = SCALES[what]
    path = write(**attributes)
    (info,) = describe(path)
    volume = read_volume(path)
    assert info.segmentable
    assert any(word in note for note in info.notes)
    assert info.orientation is None
    if expected is None:
        assert volume.spacing_mm is None
    else:
        assert volume.spacing_mm[1:] == info.spacing_mm[1:] == pytest.approx(expected)


def test_lengths_are_in_mm_along_both_axes(write):
    volume = read_volume(write(PixelSpacing=[0.3, 0.1]))
    square = Mask((0, 0, 0), np.ones((1, 5, 5), bool))
    (found,) = measure_instances(volume, Instances.from_masks(volume.grid, ("a",), [0], [square]))
    assert found.unit == "mm"
    assert found.longest_axial_diameter == pytest.approx(np.hypot(1.5, 0.5))


@pytest.mark.parametrize("modality", ["CR", "MG", "US", "OT"])
def test_every_modality(write, modality):
    assert read_volume(write(modality, PixelSpacing=[0.1, 0.2])).spacing_mm[1:] == pytest.approx((0.1, 0.2))


def test_an_aspect_ratio_is_kept_in_pixels(write):
    volume = read_volume(write(PixelAspectRatio=[3, 1]))
    assert volume.spacing_mm is None
    assert volume.grid.voxel_size == pytest.approx((1, 3, 1))


def test_a_film_keeps_its_scale(write):
    path = write("US", uid.UltrasoundMultiFrameImageStorage, SequenceOfUltrasoundRegions=[region()], NumberOfFrames=4,
                 PixelData=np.zeros((4, 12, 10), np.uint16).tobytes())  # fmt: skip
    volume = read_volume(path)
    assert volume.spacing_mm is None  # time has no length
    assert volume.film.pixel_mm == pytest.approx((0.3, 0.2))


def test_a_slice_without_thickness_keeps_its_place(new_slice, voxels, save_dicom, tmp_path):
    volume = read_volume(save_dicom(new_slice(0, voxels[0], SliceThickness=None), tmp_path / "a.dcm"))
    assert volume.spacing_mm == pytest.approx((1.0, 0.8, 0.5))
    np.testing.assert_allclose(volume.affine_vox_to_ras[:3, 3], [10, 20, 30])
    assert any("thickness" in note for note in volume.provenance.notes)


def spect(new_slice, n: int = 6, step: float = 4.0, **attributes: Any) -> Dataset:
    planes = np.arange(n * 12 * 10, dtype=np.uint16).reshape(n, 12, 10)
    one = new_slice(0, planes[0], **{**NOWHERE, "Modality": "NM", "SOPClassUID": uid.NuclearMedicineImageStorage})
    one.ImageType = ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
    one.PixelSpacing, one.SliceThickness, one.SpacingBetweenSlices = [4.0, 3.0], 4, step
    one.NumberOfFrames, one.NumberOfSlices, one.SliceVector = n, n, list(range(1, n + 1))
    one.PixelData = planes.tobytes()
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [-64, -60, 10], [1, 0, 0, 0, 1, 0]
    one.DetectorInformationSequence = [detector]
    for keyword, value in attributes.items():
        setattr(one, keyword, value)
    return one


@pytest.mark.parametrize("step", [4.0, -4.0])
def test_spect_lies_where_its_detector_says(new_slice, save_dicom, tmp_path, step):
    path = save_dicom(spect(new_slice, step=step), tmp_path / "a.dcm")
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((4, 4, 3))
    first = 0 if step > 0 else 5  # slices are sorted along the normal
    np.testing.assert_allclose(volume.grid.index_to_ras([first, 0, 0]), [64, 60, 10])
    assert volume.array[0, first, 0, 0] == 0


def test_energy_windows_are_volumes_of_their_own(new_slice, save_dicom, tmp_path):
    one = spect(new_slice, SliceVector=[1, 2, 3, 1, 2, 3], EnergyWindowVector=[1, 1, 1, 2, 2, 2], NumberOfSlices=3)
    infos = describe(save_dicom(one, tmp_path / "a.dcm"))
    assert [info.shape for info in infos] == [(1, 3, 12, 10)] * 2


def test_a_whole_body_scan_has_no_planes(new_slice, save_dicom, tmp_path):
    one = spect(new_slice, ImageType=["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"])
    assert read_volume(save_dicom(one, tmp_path / "a.dcm")).spacing_mm is None


def slide(
    new_slice, *, sparse: bool = False, size: tuple[int, int] = (20, 17), tile: int = 8
) -> tuple[Dataset, np.ndarray]:
    """A slide whose last tiles reach beyond it, and its picture ``(rows, columns, 3)``."""
    picture = np.random.default_rng(3).integers(0, 255, (*size, 3)).astype(np.uint8)
    down, across = (-(-n // tile) for n in size)
    padded = np.zeros((down * tile, across * tile, 3), np.uint8)
    padded[: size[0], : size[1]] = picture
    tiles = [padded[r * tile : (r + 1) * tile, c * tile : (c + 1) * tile] for r in range(down) for c in range(across)]
    one = new_slice(0, tiles[0], **{**NOWHERE, "Modality": "SM", "SOPClassUID": uid.VLWholeSlideMicroscopyImageStorage})
    one.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    one.TotalPixelMatrixRows, one.TotalPixelMatrixColumns = size
    one.DimensionOrganizationType = "TILED_SPARSE" if sparse else "TILED_FULL"
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.0005, 0.0004], 0.001
    shared.PixelMeasuresSequence = [measures]
    one.SharedFunctionalGroupsSequence = [shared]
    if sparse:
        order = np.random.default_rng(4).permutation(len(tiles)).tolist()
        groups = []
        for i in order:
            group, place = Dataset(), Dataset()
            place.RowPositionInTotalImagePixelMatrix = i // across * tile + 1
            place.ColumnPositionInTotalImagePixelMatrix = i % across * tile + 1
            group.PlanePositionSlideSequence = [place]
            groups.append(group)
        tiles = [tiles[i] for i in order]
        one.PerFrameFunctionalGroupsSequence = groups
    one.NumberOfFrames, one.PixelData = len(tiles), np.stack(tiles).tobytes()
    return one, picture


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_tiles_of_a_slide_are_one_picture(new_slice, save_dicom, tmp_path, sparse, compressed):
    one, picture = slide(new_slice, sparse=sparse)
    if compressed:
        one.compress(uid.RLELossless)
    path = save_dicom(one, tmp_path / "a.dcm")
    (info,) = describe(path)
    assert (info.shape, info.segmentable) == ((3, 1, 20, 17), True)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array[:, 0], np.moveaxis(picture, -1, 0))
    assert volume.spacing_mm[1:] == pytest.approx((0.0005, 0.0004))


def test_focal_planes_of_a_slide_are_refused(new_slice, save_dicom, tmp_path):
    one, _ = slide(new_slice, sparse=True)
    one.PerFrameFunctionalGroupsSequence[1] = one.PerFrameFunctionalGroupsSequence[0]
    path = save_dicom(one, tmp_path / "a.dcm")
    with pytest.raises(ReadError, match="focal planes"):
        read_volume(path)


@pytest.mark.parametrize("kind", ["LABEL", "OVERVIEW"])
def test_the_label_of_a_slide_is_no_scan(new_slice, save_dicom, tmp_path, kind):
    one, _ = slide(new_slice)
    one.ImageType = ["ORIGINAL", "PRIMARY", kind, "NONE"]
    (info,) = describe(save_dicom(one, tmp_path / "a.dcm"))
    assert not info.segmentable


@pytest.mark.parametrize("words", ["Exam Summary", "Dose Report", "Patient Protocol", "ExamCard", "DOSE_INFO"])
def test_images_of_reports_are_no_scans(slices, write_series, words):
    for one in slices:
        one.SeriesDescription = words
    (info,) = describe(write_series(slices))
    assert not info.segmentable


@pytest.mark.parametrize("words", ["Low dose chest", "Thorax summary recon", "Protocol A"])
def test_words_that_only_look_like_a_report(slices, write_series, words):
    for one in slices:
        one.SeriesDescription = words
    assert describe(write_series(slices))[0].segmentable
