"""DICOM SEG: what the standard's checker, dcmqi, highdicom and SimpleITK say of it, and that each voxel is there."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_objects import write_rtstruct, write_seg, write_sr
from pydicom import dcmread

from medmaskrcnn.errors import OutputError
from medmaskrcnn.export import dicom_seg
from medmaskrcnn.export.dicom_seg import cielab
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.label_maps import label_map
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Provenance, Volume

Case = tuple[CaseResult, Volume]


def written(case: Case, **options: str) -> bytes:
    stream = io.BytesIO()
    write_seg(*case, stream, **options)
    return stream.getvalue()


def read(data: bytes) -> pydicom.FileDataset:
    return dcmread(io.BytesIO(data))


def dense(case: Case) -> np.ndarray:
    """``(D, H, W, N)``."""
    found = case[0].instances
    return np.stack([mask.dense(found.grid.shape) for mask in found.masks], axis=-1)


def apart(case: Case) -> Case:
    """The same without the tumour, so that nothing overlaps."""
    result, volume = case
    chosen = [i for i in range(3) if i != 1]
    measured = tuple(result.measurements[i] for i in chosen)
    return replace(result, candidates=result.candidates.select(chosen), measurements=measured), volume


def test_overlapping_instances_come_back_voxel_for_voxel(case_of: Callable[[str], Case]) -> None:
    case = case_of("overlapping")
    seg = hd.seg.segread(io.BytesIO(written(case)))
    back = seg.get_pixels_by_source_instance(
        list(case[1].provenance.sop_instance_uids), assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(back.astype(bool), dense(case))
    assert seg.SegmentsOverlap == "YES"
    frames = dense(case).any(axis=(1, 2)).sum()
    assert seg.NumberOfFrames == frames


def test_layers_of_one_frame_and_of_one_segment(
    ct: Volume, put_masks: Callable[..., CaseResult], tmp_path: Path
) -> None:
    """What frames of a layer have in common is said once for all by highdicom, and must not spread to other layers."""
    rng = np.random.default_rng(0)
    masks = [np.zeros(ct.grid.shape, bool) for _ in range(5)]
    masks[0][1:5, 5:30, 5:30] = masks[1][2, 6:20, 6:9] = True
    masks[2][4, 6:20, 6:40] = masks[3][2:4, 6:30, 6:40] = True
    masks[4] = rng.random(ct.grid.shape) < 0.3
    case = put_masks(ct, {"liver": masks}), ct
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(case))
    seg = hd.seg.segread(path)
    back = seg.get_pixels_by_source_instance(
        list(ct.provenance.sop_instance_uids), assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(back.astype(bool), dense(case))
    indices = [tuple(i.FrameContentSequence[0].DimensionIndexValues) for i in seg.PerFrameFunctionalGroupsSequence]
    assert len(set(indices)) == len(indices) == dense(case).any(axis=(1, 2)).sum()


@pytest.fixture
def case_of(ct_case: Case) -> Callable[[str], Case]:
    return lambda kind: ct_case if kind == "overlapping" else apart(ct_case)


@pytest.mark.parametrize(("kind", "encoding"), [("overlapping", "auto"), ("apart", "binary")])
def test_binary_where_segments_overlap_or_nothing_else_is_allowed(
    case_of: Callable[[str], Case], kind: str, encoding: str
) -> None:
    seg = read(written(case_of(kind), encoding=encoding))
    assert (seg.SegmentationType, seg.BitsAllocated) == ("BINARY", 1)


def test_label_map_where_it_may_be(case_of: Callable[[str], Case]) -> None:
    case = case_of("apart")
    data = written(case, encoding="auto")
    seg = hd.seg.segread(io.BytesIO(data))
    assert seg.SegmentationType == "LABELMAP"
    assert seg.file_meta.TransferSyntaxUID == pydicom.uid.RLELossless
    back = seg.get_pixels_by_source_instance(
        list(case[1].provenance.sop_instance_uids), assert_missing_frames_are_empty=True, combine_segments=True
    )
    np.testing.assert_array_equal(back, label_map(case[0].instances))
    assert read(data).SOPInstanceUID != read(written(case)).SOPInstanceUID


def test_odd_sizes_of_frames_are_joined_bit_by_bit(ct: Volume, put_masks: Callable[..., CaseResult]) -> None:
    """40 x 44 pixels fill whole bytes; a cut scan's frames do not, and the layers' bits must close up."""
    layers = [np.random.default_rng(seed).random((3, 5, 7)) < 0.5 for seed in range(3)]
    parts = []
    for layer in layers:
        part = pydicom.Dataset()
        part.Rows, part.Columns, part.NumberOfFrames = 5, 7, 3
        part.PixelData = np.packbits(layer, axis=None, bitorder="little").tobytes() + b"\0"
        parts.append(part)
    bits = np.unpackbits(np.frombuffer(dicom_seg._joined_bits(parts), np.uint8), bitorder="little", count=315)
    np.testing.assert_array_equal(bits.reshape(9, 5, 7), np.concatenate(layers))


def test_patient_study_and_frame_of_reference_are_the_scans(ct_case: Case) -> None:
    scan = dcmread(ct_case[1].provenance.files[0])
    seg = read(written(ct_case))
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "FrameOfReferenceUID", "StudyID"):
        assert seg[keyword].value == scan[keyword].value, keyword
    assert seg.SeriesInstanceUID != scan.SeriesInstanceUID
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == scan.SeriesInstanceUID
    referred = {str(item.ReferencedSOPInstanceUID) for item in series.ReferencedInstanceSequence}
    assert referred == set(ct_case[1].provenance.sop_instance_uids)


def test_what_a_segment_says_of_itself(ct_case: Case) -> None:
    seg = read(written(ct_case))
    liver, tumour, kidney = seg.SegmentSequence
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver 1", "liver tumour 2", "left kidney 3"]
    assert liver.SegmentDescription == "liver; score 0.900"
    assert {item.SegmentAlgorithmType for item in seg.SegmentSequence} == {"AUTOMATIC"}
    assert len({item.TrackingUID for item in seg.SegmentSequence}) == 3
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert tumour.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert tumour.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert seg.SeriesDescription.startswith("RESEARCH")
    assert seg.Modality == "SEG"
    colours = [list(item.RecommendedDisplayCIELabValue) for item in seg.SegmentSequence]
    assert colours == [cielab(rgb) for rgb in class_colours(("liver", "liver tumour", "left kidney"))]


def test_a_corrected_result_is_semiautomatic_and_another_object(ct_case: Case) -> None:
    made, corrected = read(written(ct_case)), read(written(ct_case, algorithm="SEMIAUTOMATIC"))
    assert {item.SegmentAlgorithmType for item in corrected.SegmentSequence} == {"SEMIAUTOMATIC"}
    assert made.SOPInstanceUID != corrected.SOPInstanceUID


def test_codes_of_the_models_card_come_first(ct_case: Case) -> None:
    result, volume = ct_case
    codes = {"liver": {"type": ["99X", "1", "My liver"], "modifier": ["99X", "2", "Mine"]}}
    record = replace(result.record, settings={**result.record.settings, "codes": codes})
    kind = (
        read(written((replace(result, record=record), volume))).SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    )
    assert (kind.CodingSchemeDesignator, kind.CodeMeaning) == ("99X", "My liver")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Mine"


def test_out_of_domain_is_said(ct_case: Case) -> None:
    result, volume = ct_case
    seg = read(written((replace(result, record=replace(result.record, out_of_domain=True)), volume)))
    assert seg.SeriesDescription.startswith("RESEARCH OUT OF DOMAIN")
    assert "OUT OF DOMAIN" in seg.ContentDescription


def test_same_work_is_the_same_bytes_and_other_work_another_object(
    ct_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = written(ct_case)
    monkeypatch.setattr("time.time", lambda: 1.0)
    assert written(ct_case) == first
    result, volume = ct_case
    uid = read(first).SOPInstanceUID
    assert uid.startswith("2.25.")
    for change in ({"software": "medmaskrcnn 0.2.0"}, {"model_sha256": "cd" * 32}, {"settings": {"score": 0.4}}):
        other = replace(result, record=replace(result.record, **change))
        assert read(written((other, volume))).SOPInstanceUID != uid, change
    masks = list(result.candidates.masks)
    crop = masks[0].array.copy()
    crop[1, 5, 5] ^= True
    masks[0] = Mask(masks[0].start, crop)
    other = replace(result, candidates=replace(result.candidates, masks=tuple(masks)))
    assert read(written((other, volume))).SOPInstanceUID != uid


@pytest.mark.parametrize("encoding", ["binary", "auto"])
def test_nothing_found_is_a_valid_object(ct: Volume, put_masks: Callable[..., CaseResult], encoding: str) -> None:
    case = put_masks(ct, {"liver": [], "spleen": []}), ct
    data = written(case, encoding=encoding)
    seg = read(data)
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["liver: none found", "spleen: none found"]
    assert not seg.pixel_array.any()
    assert data == written(case, encoding=encoding)


@pytest.mark.needs("dciodvfy", package="dicom3tools")
@pytest.mark.parametrize("kind", ["overlapping", "apart", "empty"])
def test_the_standards_checker_finds_no_error(
    case_of: Callable[[str], Case],
    ct: Volume,
    put_masks: Callable[..., CaseResult],
    errors_of: Callable[[Path], list[str]],
    kind: str,
    tmp_path: Path,
) -> None:
    case = (put_masks(ct, {"liver": []}), ct) if kind == "empty" else case_of(kind)
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(case))
    assert errors_of(path) == []
    broken = read(path.read_bytes())
    del broken.SegmentSequence[0].SegmentAlgorithmType
    broken.save_as(path)
    assert errors_of(path)


def test_simpleitk_opens_it(ct_case: Case, tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(written(ct_case))
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    masks = dense(ct_case)
    assert sorted(np.count_nonzero(frame) for frame in array) == sorted(
        int(n) for n in masks.sum(axis=(1, 2)).ravel() if n
    )


def test_a_scan_that_is_no_dicom_is_refused(ct_case: Case) -> None:
    result, volume = ct_case
    with pytest.raises(OutputError, match="DICOM SEG belongs to a DICOM series"):
        written((result, replace(volume, provenance=Provenance("NIfTI", ("a.nii.gz",)))))


def test_files_that_have_gone_or_changed_are_told(ct_case: Case, tmp_path: Path) -> None:
    result, volume = ct_case
    gone = replace(volume.provenance, files=(str(tmp_path / "gone.dcm"), *volume.provenance.files[1:]))
    with pytest.raises(OutputError, match=r"gone\.dcm cannot be read again"):
        written((result, replace(volume, provenance=gone)))
    swapped = replace(volume.provenance, files=volume.provenance.files[::-1])
    with pytest.raises(OutputError, match="holds other images now"):
        written((result, replace(volume, provenance=swapped)))


def test_a_resampled_scan_is_refused(ct_case: Case) -> None:
    result, volume = ct_case
    fewer = replace(
        volume.provenance, files=volume.provenance.files[:3], sop_instance_uids=volume.provenance.sop_instance_uids[:3]
    )
    with pytest.raises(OutputError, match="no image of the series lies at slice 4 of 6"):
        written((result, replace(volume, provenance=fewer)))


def test_colours_in_cielab() -> None:
    assert cielab((255, 255, 255)) == pytest.approx([65535, 32896, 32896], abs=10)
    assert cielab((0, 0, 0)) == pytest.approx([0, 32896, 32896], abs=10)
    assert cielab((255, 0, 0)) == pytest.approx([35582, 53535, 50819], rel=0.01)  # L 54.3, a 80.8, b 69.9 (D50)


def test_no_warning_quotes_the_patient(ct_case: Case, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """highdicom warns of names of one part and quotes them; pydicom quotes values that are too long."""
    result, volume = ct_case
    files = []
    for file in volume.provenance.files:
        header = dcmread(file)
        header.PatientName = "SECRETNAME"
        header.add_new("StudyID", "SH", "SECRET-NUMBER-TOO-LONG")
        header.add_new("AccessionNumber", "SH", "12345678901234567")
        files.append(tmp_path / Path(file).name)
        header.save_as(files[-1])
    recwarn.clear()
    named = replace(volume, provenance=replace(volume.provenance, files=tuple(map(str, files))))
    seg = read(written((result, named)))
    assert seg.PatientName == "SECRETNAME"
    assert seg.StudyID == ""
    assert seg.AccessionNumber == ""
    assert not [w for w in recwarn if "SECRET" in str(w.message)]


def test_a_scan_that_says_the_least_it_may(ct_case: Case, tmp_path: Path) -> None:
    """Badly anonymised series lack even what must be there but may be empty."""
    result, volume = ct_case
    needed = {
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
        "Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "PixelData",
        "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    }  # fmt: skip
    files = []
    for file in volume.provenance.files:
        dataset = dcmread(file)
        for element in list(dataset):
            if element.keyword not in needed:
                del dataset[element.tag]
        files.append(str(tmp_path / Path(file).name))
        dataset.save_as(files[-1])
    bare = replace(volume, provenance=replace(volume.provenance, files=tuple(files)))
    for write in (write_seg, write_rtstruct, write_sr):
        stream = io.BytesIO()
        write(result, bare, stream)
        assert dcmread(io.BytesIO(stream.getvalue())).PatientID == ""
        if write is write_seg:
            measures = read(stream.getvalue()).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            assert float(measures.SliceThickness) == pytest.approx(40.0)
