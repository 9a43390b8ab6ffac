"""SR: the measurements as an independent reader finds them, bound to the segments of the SEG."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_objects import write_seg, write_sr
from pydicom import dcmread

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]


def written(case: Case, **options: str) -> bytes:
    stream = io.BytesIO()
    write_sr(*case, stream, **options)
    return stream.getvalue()


def seg_of(case: Case, **options: str) -> pydicom.Dataset:
    stream = io.BytesIO()
    write_seg(*case, stream, **options)
    stream.seek(0)
    return dcmread(stream)


def read_by_dcmqi(dcmqi: Callable[..., str], data: bytes, folder: Path) -> dict:
    (folder / "sr.dcm").write_bytes(data)
    dcmqi("tid1500reader", "--inputDICOM", folder / "sr.dcm", "--outputMetadata", folder / "sr.json")
    return json.loads((folder / "sr.json").read_text())


def test_dcmqi_reads_the_same_figures(ct_case: Case, dcmqi: Callable[..., str], tmp_path: Path) -> None:
    result = ct_case[0]
    found = read_by_dcmqi(dcmqi, written(ct_case), tmp_path)
    segments = seg_of(ct_case).SegmentSequence
    assert len(found["Measurements"]) == 3
    for group, measured, segment in zip(found["Measurements"], result.measurements, segments, strict=True):
        values = {}
        for item in group["measurementItems"]:
            how = item.get("derivationModifier", {}).get("CodeMeaning", "")
            values[item["quantity"]["CodeMeaning"], how] = (float(item["value"]), item["units"]["CodeValue"])
        assert values["Volume", ""] == (pytest.approx(measured.volume_unit3), "mm3")
        assert values["Long axis", ""] == (pytest.approx(measured.longest_axial_diameter), "mm")
        assert values["Short axis", ""] == (pytest.approx(measured.perpendicular_diameter), "mm")
        assert values["Attenuation Coefficient", "Mean"] == (pytest.approx(measured.mean_intensity), "[hnsf'U]")
        assert values["Attenuation Coefficient", "Minimum"][0] == pytest.approx(measured.min_intensity)
        assert values["Attenuation Coefficient", "Maximum"][0] == pytest.approx(measured.max_intensity)
        assert group["TrackingUniqueIdentifier"] == segment.TrackingUID
        assert group["ReferencedSegment"] == segment.SegmentNumber
        assert group["Finding"]["CodeValue"] == segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
        assert group["SourceSeriesForImageSegmentation"] == ct_case[1].provenance.series_uid
    assert found["Measurements"][1]["FindingSite"]["CodeMeaning"] == "Liver"
    assert found["Measurements"][2]["Laterality"]["CodeMeaning"] == "Left"
    assert found["VerificationFlag"] == "UNVERIFIED"


def test_dcmqi_reads_the_seg_with_the_same_voxels(ct_case: Case, dcmqi: Callable[..., str], tmp_path: Path) -> None:
    """An upright series: ITK, which dcmqi writes with, knows no sheared grid."""
    path = tmp_path / "seg.dcm"
    seg_of(ct_case).save_as(path)
    dcmqi("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd")
    counts = []
    for number in (1, 2, 3):
        image = sitk.ReadImage(str(tmp_path / f"{number}.nrrd"))
        counts.append(np.count_nonzero(sitk.GetArrayFromImage(image)))
        volume = counts[-1] * np.prod(image.GetSpacing())
        assert volume == pytest.approx(ct_case[0].measurements[number - 1].volume_mm3, rel=1e-4)
    assert counts == [mask.n_voxels for mask in ct_case[0].instances.masks]


def test_dcmqi_reads_the_label_map(
    ct: Volume, put_masks: Callable[..., CaseResult], dcmqi: Callable[..., str], tmp_path: Path
) -> None:
    masks = [np.zeros(ct.grid.shape, bool) for _ in range(2)]
    masks[0][2:4, 3:6, 3:6] = masks[1][3, 10:30, 3:6] = True
    seg_of((put_masks(ct, {"spleen": [masks[0]], "liver": [masks[1]]}), ct), encoding="auto").save_as(
        tmp_path / "s.dcm"
    )
    dcmqi("segimage2itkimage", "--inputDICOM", tmp_path / "s.dcm", "--outputDirectory", tmp_path, "-t", "nrrd")
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "1.nrrd")))
    assert [np.count_nonzero(array == value) for value in (1, 2)] == [mask.sum() for mask in masks]


@pytest.mark.parametrize("encoding", ["binary", "auto"])
def test_it_refers_to_the_seg_that_is_written(ct: Volume, put_masks: Callable[..., CaseResult], encoding: str) -> None:
    mask = np.zeros(ct.grid.shape, bool)
    mask[2, 3:6, 3:6] = True
    case = put_masks(ct, {"spleen": [mask]}), ct
    sr, seg = hd.sr.srread(io.BytesIO(written(case, encoding=encoding))), seg_of(case, encoding=encoding)
    (group,) = sr.content.get_volumetric_roi_measurement_groups()
    referred = group.referenced_segment
    assert referred.referenced_sop_instance_uid == seg.SOPInstanceUID
    assert referred.referenced_sop_class_uid == seg.SOPClassUID
    evidence = [
        (series.SeriesInstanceUID, item.ReferencedSOPInstanceUID)
        for study in sr.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
    assert (seg.SeriesInstanceUID, seg.SOPInstanceUID) in evidence


def test_whose_it_is_and_that_no_person_has_read_it(ct_case: Case) -> None:
    scan, sr = dcmread(ct_case[1].provenance.files[0]), dcmread(io.BytesIO(written(ct_case)))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate"):
        assert sr[keyword].value == scan[keyword].value, keyword
    assert (sr.VerificationFlag, sr.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    assert sr.SeriesDescription.startswith("RESEARCH")


def test_same_work_is_the_same_bytes(ct_case: Case) -> None:
    assert written(ct_case) == written(ct_case)


def test_nothing_found_is_a_volume_of_zero(
    ct: Volume, put_masks: Callable[..., CaseResult], dcmqi: Callable[..., str], tmp_path: Path
) -> None:
    found = read_by_dcmqi(dcmqi, written((put_masks(ct, {"liver": []}), ct)), tmp_path)
    (group,) = found["Measurements"]
    (item,) = group["measurementItems"]
    assert (item["quantity"]["CodeMeaning"], float(item["value"])) == ("Volume", 0)


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
    path = tmp_path / "sr.dcm"
    path.write_bytes(written(case))
    assert errors_of(path) == []
    broken = dcmread(path)
    del broken.VerificationFlag
    broken.save_as(path)
    assert errors_of(path)
