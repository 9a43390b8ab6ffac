"""De-identification by the standard's table, nested datasets included, references kept whole."""

from __future__ import annotations

from copy import deepcopy

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medmaskrcnn.export.deidentify import _table, deidentified_result, deidentified_uid, deidentify, pseudonym_of
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.instances import empty_instances

SECRET = "SECRET"
SECRETS = {
    "PatientName": "SECRET^JANE",
    "PatientID": "SECRET1",
    "OtherPatientIDs": "SECRET2",
    "PatientComments": "SECRET3",
    "PatientAddress": "SECRET4",
    "AccessionNumber": "SECRET5",
    "StudyID": "SECRET6",
    "StudyDescription": "SECRET7",
    "SeriesDescription": "SECRET8",
    "InstitutionName": "SECRET9",
    "ReferringPhysicianName": "SECRET^DOC",
    "OperatorsName": "SECRET^OP",
    "StationName": "SECRET10",
    "DeviceSerialNumber": "SECRET11",
    "ProtocolName": "SECRET12",
    "RequestedProcedureDescription": "SECRET13",
    "ImageComments": "SECRET14",
}
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "InstanceCreationDate")


@pytest.fixture
def image() -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.file_meta.SourceApplicationEntityTitle = SECRET
    for keyword, value in SECRETS.items():
        setattr(dataset, keyword, value)
    for keyword in DATES:
        setattr(dataset, keyword, "20111213")
    dataset.PatientAge, dataset.PatientSex, dataset.PatientWeight = "047Y", "F", "71.5"
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = "1.2.3", "1.2.5", "1.2.6"
    dataset.add_new(0x00091001, "LO", "SECRET15")
    dataset.add_new(0x60003000, "OW", b"SECRET16")
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, "1.2.3.4"
    item.OperatorsName = "SECRET^NESTED"
    dataset.SourceImageSequence = [item]
    dataset.Rows, dataset.Columns, dataset.PixelData = 1, 2, b"\1\2\3\4"
    dataset.ImagePositionPatient, dataset.PixelSpacing = [1, 2, 3], [0.5, 0.5]
    return dataset


def deidentified(image: Dataset) -> Dataset:
    copy = deepcopy(image)
    deidentify(copy)
    return copy


def test_nothing_that_identifies_is_left(image: Dataset) -> None:
    clean = deidentified(image)
    text = f"{clean}{clean.file_meta}"
    assert SECRET not in text
    assert "2011" not in text
    assert "047Y" not in text
    assert "71.5" not in text
    assert not [element for element in clean.iterall() if element.tag.is_private]
    assert "1.2.3" not in text.replace(deidentified_uid("1.2.3"), "")


def test_pixels_and_geometry_are_as_they_were(image: Dataset) -> None:
    clean = deidentified(image)
    for keyword in ("PixelData", "Rows", "ImagePositionPatient", "PixelSpacing", "SOPClassUID"):
        assert clean[keyword].value == image[keyword].value


def test_references_stay_whole(image: Dataset) -> None:
    clean = deidentified(image)
    assert clean.SOPInstanceUID == clean.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert clean.SOPInstanceUID == clean.file_meta.MediaStorageSOPInstanceUID == deidentified_uid("1.2.3.4")
    assert len({clean.StudyInstanceUID, clean.SeriesInstanceUID, clean.FrameOfReferenceUID}) == 3


def test_it_says_that_it_was_done(image: Dataset) -> None:
    clean = deidentified(image)
    assert clean.PatientIdentityRemoved == "YES"
    assert len(clean.DeidentificationMethod) <= 64
    assert clean.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert clean.PatientID == pseudonym_of("1.2.3") != pseudonym_of("1.2.4")


def test_the_same_input_gives_the_same_output(image: Dataset) -> None:
    assert deidentified(image) == deidentified(image)


def test_uids_of_the_standard_stay() -> None:
    assert deidentified_uid(CTImageStorage) == CTImageStorage
    assert deidentified_uid("") == ""
    assert deidentified_uid("1.2.3").startswith("2.25.")


def test_the_table_is_the_standards() -> None:
    """A few rows of PS3.15 table E.1-1, copied by hand."""
    table = _table()
    rows = {
        (0x0010, 0x0010): "Z",
        (0x0010, 0x0030): "Z",
        (0x0008, 0x0018): "U",
        (0x0020, 0x000D): "U",
        (0x0008, 0x103E): "X",
        (0x0010, 0x4000): "X",
        (0x0008, 0x0050): "Z",
    }
    assert {tag: table[tag] for tag in rows} == rows
    assert len(table) > 600


def test_a_result_without_places_and_uids() -> None:
    source = {
        "modality": "CT",
        "study_uid": "1.2.3",
        "sop_instance_uids": ["1.2.4"],
        "series_uid": None,
        "notes": ["x"],
    }
    record = RunRecord("s", "m", "", "", "cpu", "fp32", {}, source)
    run = {"seconds": {"read": 1}, "host": "ward-7", "files": ["/patients/DOE"]}
    result = CaseResult(empty_instances(pixel_grid((1, 2, 2)), ("a",)), 0.5, (), record, run)
    clean = deidentified_result(result)
    assert clean.run == {"seconds": {"read": 1}}
    assert clean.record.source == {
        "modality": "CT",
        "study_uid": deidentified_uid("1.2.3"),
        "sop_instance_uids": [deidentified_uid("1.2.4")],
        "series_uid": None,
        "notes": [],
    }
