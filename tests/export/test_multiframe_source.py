"""Objects about an enhanced multi-frame scan name the frames that it was read from."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dicom_objects import write_rtstruct, write_seg, write_sr
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian

from medmaskrcnn.errors import OutputError
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import ReadingPolicy, Volume


def group(name: str, **values: object) -> Dataset:
    item, outer = Dataset(), Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    setattr(outer, name, [item])
    return outer


def save_enhanced(path: Path, heights: list[float], echoes: list[float]) -> Path:
    """One frame of 9 x 11 pixels (an odd number) per height and echo time."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID, one.Modality = EnhancedMRImageStorage, "1.2.3.1", "MR"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.3.2", "1.2.3.3", "1.2.3.4"
    one.PatientName, one.PatientID = "DOE^JANE", "4711"
    one.StudyDate, one.StudyTime, one.ContentDate, one.ContentTime = "20250101", "120000", "20250101", "120000"
    pixels = np.random.default_rng(0).integers(0, 1000, (len(heights), 9, 11)).astype(np.uint16)
    one.Rows, one.Columns, one.NumberOfFrames = 9, 11, len(pixels)
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
    one.PixelData = pixels.tobytes()
    shared = group("PixelMeasuresSequence", PixelSpacing=[0.8, 0.5], SliceThickness=3.0)
    shared.update(group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = []
    for height, echo in zip(heights, echoes, strict=True):
        frame = group("PlanePositionSequence", ImagePositionPatient=[-10.0, -20.0, height])
        frame.update(group("MREchoSequence", EffectiveEchoTime=echo))
        one.PerFrameFunctionalGroupsSequence.append(frame)
    one.save_as(path, enforce_file_format=True)
    return path


def written(write: Callable[..., None], result: CaseResult, scan: Volume, path: Path) -> Dataset:
    stream = io.BytesIO()
    write(result, scan, stream)
    path.write_bytes(stream.getvalue())
    return dcmread(path)


@pytest.fixture
def block() -> np.ndarray:
    mask = np.zeros((4, 9, 11), bool)
    mask[1:3, 2:7, 3:9] = True
    return mask


def test_masks_come_back_and_frames_are_named(
    put_masks: Callable[..., CaseResult], block: np.ndarray, tmp_path: Path
) -> None:
    heights = [6.0, 0.0, 9.0, 3.0]
    scan = read_volume(save_enhanced(tmp_path / "mr.dcm", heights, [10.0] * 4))
    result = put_masks(scan, {"liver": [block]})
    rtstruct = written(write_rtstruct, result, scan, tmp_path / "rtstruct.dcm")
    written(write_seg, result, scan, tmp_path / "seg.dcm")
    written(write_sr, result, scan, tmp_path / "sr.dcm")
    for name in ("seg", "rtstruct"):
        (mask,) = read_labels(tmp_path / f"{name}.dcm", scan).masks
        assert mask.n_voxels == block.sum()
    (item,) = rtstruct.ROIContourSequence
    frames = {heights[int(c.ContourImageSequence[0].ReferencedFrameNumber) - 1] for c in item.ContourSequence}
    assert frames == {3.0, 6.0} == {float(c.ContourData[2]) for c in item.ContourSequence}


def test_of_two_echoes_the_one_that_was_read(
    put_masks: Callable[..., CaseResult], block: np.ndarray, tmp_path: Path
) -> None:
    path = save_enhanced(tmp_path / "mr.dcm", [0.0, 3.0, 6.0, 9.0] * 2, [10.0] * 4 + [20.0] * 4)
    for series, expected in (("1", {2, 3}), ("2", {6, 7})):
        scan = read_volume(path, series=series)
        rtstruct = written(write_rtstruct, put_masks(scan, {"liver": [block]}), scan, tmp_path / "r.dcm")
        (item,) = rtstruct.ROIContourSequence
        assert {int(c.ContourImageSequence[0].ReferencedFrameNumber) for c in item.ContourSequence} == expected
        policy = replace(scan.provenance.policy, separated_by="")
        unsure = replace(scan, provenance=replace(scan.provenance, policy=policy))
        with pytest.raises(OutputError, match=r"frames 1 and 5 of image .* lie at one place"):
            written(write_seg, put_masks(scan, {"liver": [block]}), unsure, tmp_path / "s.dcm")


def test_a_scan_of_which_we_know_that_it_was_resampled(put_masks: Callable[..., CaseResult], ct: Volume) -> None:
    scan = replace(ct, provenance=replace(ct.provenance, policy=ReadingPolicy(resampled=True)))
    with pytest.raises(OutputError, match="was resampled from them"):
        write_seg(put_masks(ct, {"liver": []}), scan, io.BytesIO())
