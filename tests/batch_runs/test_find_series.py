"""What is found below a folder: series to do, broken ones refused with their reason, what is no scan skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medmaskrcnn.batch_runs.find import FoundSeries, find_series
from medmaskrcnn.io.options import ReadingOptions


def verdicts(found: list[FoundSeries]) -> dict[str, str]:
    return {one.name: one.verdict for one in found}


def test_whose_a_series_is_comes_with_it(clean_archive: Path):
    found = find_series([clean_archive])
    assert [one.verdict for one in found] == ["queued"] * 5
    header = dcmread(next((clean_archive / "Miller^Anna0").rglob("IM*")))
    (one,) = (series for series in found if series.series_uid == header.SeriesInstanceUID)
    assert (one.patient_id, one.study_uid) == (header.PatientID, header.StudyInstanceUID)
    assert (one.modality, one.slices, len(one.files)) == ("CT", 6, 6)
    assert len({series.patient for series in found}) == 5


def test_a_source_given_twice_or_nested_counts_once(clean_archive: Path):
    assert len(find_series([clean_archive, clean_archive / "Miller^Anna1", clean_archive])) == 5


def test_broken_and_foreign_things_are_told_apart(archive: Path):
    whole = archive / "Miller^Anna0" / "ct"
    (archive / "notes.txt").write_text("see Anna")
    (archive / "scan.json").write_text("{}")
    (archive / "garbage.dcm").write_bytes(b"no image" * 99)
    (archive / "empty.nii.gz").write_bytes(b"")
    (archive / "DICOMDIR").write_bytes(b"not read here")
    (archive / "README").write_text("hello")
    Image.new("L", (8, 8)).save(archive / "photo.png")
    shutil.rmtree(archive / "Miller^Anna1")
    gap = shutil.copytree(whole, archive / "gap")
    sorted(gap.iterdir())[2].unlink()
    shutil.rmtree(whole)
    write_report(archive / "report.dcm")
    found = find_series([archive])
    told = verdicts(found)
    assert told["notes.txt"] == told["scan.json"] == told["DICOMDIR"] == told["README"] == "skipped"
    assert told["garbage.dcm"] == told["empty.nii.gz"] == told["gap"] == "refused"
    assert told["photo.png"] == told["report.dcm"] == "skipped"
    reasons = {one.name: one.reason or "" for one in found}
    assert "1 slice is missing" in reasons["gap"]
    assert "damaged or cut short" in reasons["garbage.dcm"]
    assert sum(one.verdict == "queued" for one in found) == 3
    irregular = verdicts(find_series([archive], reading=ReadingOptions(resample_irregular=True)))
    assert irregular["gap"] == "queued"


def write_report(path: Path) -> None:
    """A DICOM SR, which is no image."""
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.33", generate_uid()
    report.Modality, report.SeriesInstanceUID, report.PatientID = "SR", generate_uid(), "Anna"
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.save_as(path, enforce_file_format=True)


def test_pictures_are_scans_where_there_are_no_others(tmp_path: Path):
    Image.new("L", (8, 8)).save(tmp_path / "photo.png")
    assert verdicts(find_series([tmp_path])) == {"photo.png": "queued"}


def test_a_picture_that_is_named_is_meant(clean_archive: Path, tmp_path: Path):
    Image.new("L", (8, 8)).save(tmp_path / "photo.png")
    assert verdicts(find_series([clean_archive, tmp_path / "photo.png"]))["photo.png"] == "queued"


def test_sources_that_cannot_be_opened_stop_nothing(clean_archive: Path, tmp_path: Path):
    found = find_series([tmp_path / "missing", clean_archive])
    assert verdicts(found)["missing"] == "refused"
    assert sum(one.verdict == "queued" for one in found) == 5


def test_an_archive_is_looked_into(clean_archive: Path, tmp_path: Path):
    file = shutil.make_archive(str(tmp_path / "all"), "zip", clean_archive)
    found = find_series([Path(file)])
    assert [one.archive for one in found] == [(file, number) for number in range(5)]
    assert {one.identity for one in found} == {one.identity for one in find_series([clean_archive])}


def test_other_content_gives_another_fingerprint(archive: Path):
    before = {one.identity: one.fingerprint for one in find_series([archive])}
    assert {one.identity: one.fingerprint for one in find_series([archive])} == before
    file = next((archive / "Miller^Anna2").rglob("IM*"))
    file.write_bytes(file.read_bytes())  # its time is another
    after = {one.identity: one.fingerprint for one in find_series([archive])}
    assert sum(after[identity] != before[identity] for identity in before) == 1


def test_two_volumes_of_one_file_name_are_two_series(tmp_path: Path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(np.zeros((8, 8, 4), np.int16), np.eye(4)), tmp_path / folder / "scan.nii.gz")
    found = find_series([tmp_path])
    assert len({one.identity for one in found}) == len({one.patient for one in found}) == 2


@pytest.mark.parametrize("n_copies", [2])
def test_scans_that_share_a_uid_are_told_apart(clean_archive: Path, tmp_path: Path, n_copies: int):
    for number in range(n_copies):
        for file in sorted((clean_archive / "Miller^Anna0" / "ct").iterdir()):
            header = dcmread(file)
            header.Rows, header.Columns = (
                (header.Rows, header.Columns) if number else (header.Rows // 2, header.Columns)
            )
            header.PixelData = header.PixelData[: header.Rows * header.Columns * 2]
            header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            header.save_as(tmp_path / f"{number}{file.name}")
    found = find_series([tmp_path])
    assert len({one.identity for one in found}) == n_copies
    assert [one.verdict for one in found] == ["queued"] * n_copies
