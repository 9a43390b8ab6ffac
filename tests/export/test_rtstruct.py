"""RTSTRUCT: contours on the image planes that give the mask back, in a file that the standard's checker accepts."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_objects import write_rtstruct
from pydicom import dcmread

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export.rtstruct import decimal
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import LPS_FROM_RAS, Grid
from medmaskrcnn.structures.volume import Provenance, Volume

Case = tuple[CaseResult, Volume]
OFF_PLANE = 1e-3  # of a slice step: coordinates are rounded to 0.0001 mm


def written(case: Case, **options: str) -> bytes:
    stream = io.BytesIO()
    write_rtstruct(*case, stream, **options)
    return stream.getvalue()


def read(data: bytes) -> pydicom.FileDataset:
    return dcmread(io.BytesIO(data))


def rasterised(dataset: pydicom.Dataset, number: int, grid: Grid) -> np.ndarray:
    """A region's mask by the even-odd rule on pixel centres: an independent reader, slow and plain."""
    mask = np.zeros(grid.shape, int)
    to_lps = LPS_FROM_RAS @ grid.affine_vox_to_ras
    (item,) = [c for c in dataset.ROIContourSequence if c.ReferencedROINumber == number]
    for contour in item.get("ContourSequence", ()):
        points = np.reshape([float(v) for v in contour.ContourData], (-1, 3))
        assert len(points) == contour.NumberOfContourPoints
        index = (points - to_lps[:3, 3]) @ np.linalg.inv(to_lps[:3, :3]).T
        slices = np.round(index[:, 0])
        assert np.ptp(slices) == 0
        assert np.abs(index[:, 0] - slices).max() < OFF_PLANE
        plane = mask[int(slices[0])]
        for (r0, c0), (r1, c1) in zip(index[:, 1:], np.roll(index[:, 1:], -1, axis=0), strict=True):
            for row in range(int(np.ceil(min(r0, r1))), int(np.ceil(max(r0, r1)))):
                plane[row, np.arange(plane.shape[1]) >= c0 + (row - r0) / (r1 - r0) * (c1 - c0)] += 1
    return mask % 2 == 1


def test_masks_come_back(ct_case: Case) -> None:
    """The tilted series' planes are shifted against each other; the liver has a hole, the kidney one voxel."""
    result, volume = ct_case
    dataset = read(written(ct_case))
    for i, mask in enumerate(result.instances.masks):
        back = rasterised(dataset, i + 1, volume.grid)
        np.testing.assert_array_equal(back, mask.dense(volume.grid.shape))


def test_contours_name_their_images(ct_case: Case) -> None:
    volume = ct_case[1]
    dataset = read(written(ct_case))
    to_lps = LPS_FROM_RAS @ volume.affine_vox_to_ras
    for item in dataset.ROIContourSequence:
        for contour in item.ContourSequence:
            d = np.linalg.solve(to_lps[:3, :3], np.array(contour.ContourData[:3], float) - to_lps[:3, 3])[0]
            (image,) = contour.ContourImageSequence
            assert image.ReferencedSOPInstanceUID == volume.provenance.sop_instance_uids[round(d)]
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == volume.provenance.series_uid
    images = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert tuple(images) == volume.provenance.sop_instance_uids


def test_whose_it_is_and_what_it_says(ct_case: Case) -> None:
    scan, dataset = dcmread(ct_case[1].provenance.files[0]), read(written(ct_case))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID"):
        assert dataset[keyword].value == scan[keyword].value, keyword
    assert dataset.SeriesDescription.startswith("RESEARCH")
    assert dataset.ApprovalStatus == "UNAPPROVED"
    regions = dataset.StructureSetROISequence
    assert [item.ROIName for item in regions] == ["liver 1", "liver tumour 2", "left kidney 3"]
    assert {item.ROIGenerationAlgorithm for item in regions} == {"AUTOMATIC"}
    kidney = dataset.RTROIObservationsSequence[2].RTROIIdentificationCodeSequence[0]
    assert kidney.CodeMeaning == "Kidney"
    colours = [tuple(item.ROIDisplayColor) for item in dataset.ROIContourSequence]
    assert colours == list(class_colours(("liver", "liver tumour", "left kidney")))
    corrected = read(written(ct_case, algorithm="SEMIAUTOMATIC"))
    assert {item.ROIGenerationAlgorithm for item in corrected.StructureSetROISequence} == {"SEMIAUTOMATIC"}


def test_decimal_strings_are_short_whatever_the_place(ct_folder: Path, put_masks: Callable[..., CaseResult]) -> None:
    for value in (-123456.789012, 1 / 3, 1e-9, -1e-9, 99999999.99999):
        assert len(decimal(value)) <= 16
        assert float(decimal(value)) == pytest.approx(value, abs=5.1e-5)


def test_a_contour_longer_than_an_explicit_vr_allows(
    ct: Volume, put_masks: Callable[..., CaseResult], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros(ct.grid.shape, bool)
    mask[2] = rng.random(ct.grid.shape[1:]) < 0.72
    case = put_masks(ct, {"liver": [mask]}), ct
    dataset = read(written(case))
    longest = max(len("\\".join(map(str, c.ContourData))) for c in dataset.ROIContourSequence[0].ContourSequence)
    assert longest > 15_000
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    np.testing.assert_array_equal(rasterised(dataset, 1, ct.grid), mask)


def test_same_work_is_the_same_bytes(ct_case: Case) -> None:
    result, volume = ct_case
    first = written(ct_case)
    assert written(ct_case) == first
    other = replace(result, record=replace(result.record, model_sha256="cd" * 32))
    assert read(written((other, volume))).SOPInstanceUID != read(first).SOPInstanceUID


def test_nothing_found(ct: Volume, put_masks: Callable[..., CaseResult]) -> None:
    dataset = read(written((put_masks(ct, {"liver": [], "spleen": []}), ct)))
    assert [item.ROIName for item in dataset.StructureSetROISequence] == ["liver: none found", "spleen: none found"]
    assert not any("ContourSequence" in item for item in dataset.ROIContourSequence)


@pytest.mark.needs("dciodvfy", package="dicom3tools")
@pytest.mark.parametrize("empty", [False, True])
def test_the_standards_checker_finds_no_error(
    ct_case: Case,
    put_masks: Callable[..., CaseResult],
    errors_of: Callable[[Path], list[str]],
    empty: bool,
    tmp_path: Path,
) -> None:
    case = (put_masks(ct_case[1], {"liver": []}), ct_case[1]) if empty else ct_case
    path = tmp_path / "rtstruct.dcm"
    path.write_bytes(written(case))
    assert errors_of(path) == []
    broken = read(path.read_bytes())
    del broken.StructureSetLabel
    broken.save_as(path)
    assert errors_of(path)


def test_names_in_any_script(ct: Volume, put_masks: Callable[..., CaseResult]) -> None:
    mask = np.zeros(ct.grid.shape, bool)
    mask[2, 3:6, 3:6] = True
    dataset = read(written((put_masks(ct, {"肝臓\\x": [mask]}), ct)))
    assert dataset.StructureSetROISequence[0].ROIName == "肝臓_x 1"


def test_a_scan_that_is_no_dicom_is_refused(ct_case: Case) -> None:
    result, volume = ct_case
    with pytest.raises(OutputError, match="DICOM RTSTRUCT belongs to a DICOM series"):
        written((result, replace(volume, provenance=Provenance("NIfTI", ("a.nii.gz",)))))
