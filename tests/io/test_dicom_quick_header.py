"""The quick header says what pydicom says, and leaves to pydicom what is not plain."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pydicom
import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom import header as dicom_header
from medmaskrcnn.io.dicom.frames import read_frames
from medmaskrcnn.io.dicom.header import read_header
from medmaskrcnn.io.dicom.quick_header import quick_attributes, wanted_tags

PYDICOM_FILES = sorted((Path(pydicom.__file__).parent / "data" / "test_files").rglob("*.dcm"))
WANTED = wanted_tags(["Rows", "SeriesDescription", "ImagePositionPatient", "EchoTime", "ImageType"])


def outcome(path: Path) -> object:
    """Everything that is known of a file and its frames, or why it cannot be read."""
    try:
        header, frames = read_frames(path)
    except ReadError as error:
        return str(error)
    return asdict(header), [asdict(frame) for frame in frames]


@pytest.mark.parametrize("path", PYDICOM_FILES, ids=lambda p: p.name)
def test_both_ways_give_the_same(path, monkeypatch):
    quick = outcome(path)
    monkeypatch.setattr(dicom_header, "quick_attributes", lambda head, wanted: None)
    assert outcome(path) == quick


def test_real_series_are_read_the_quick_way(medmaskrcnn_data, monkeypatch):
    paths = [next((medmaskrcnn_data / "dicom" / name).iterdir()) for name in ("STS_001/CT/image", "STS_003/PET/image")]
    monkeypatch.setattr(dicom_header, "_parsed_by_pydicom", None)
    assert [read_header(path).modality for path in paths] == ["CT", "PT"]


@pytest.fixture
def nested(new_slice, voxels) -> Dataset:
    """A header with sequences of defined and undefined length in front of what is wanted."""
    one = new_slice(0, voxels[0], EchoTime=4.5)
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "1", "Rows"
    outer.ProcedureCodeSequence, outer.Rows = [inner, inner], 77
    one.ReferencedStudySequence = [outer, outer]
    one.RequestAttributesSequence = [inner]
    return one


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_sequences_are_stepped_over(nested, save_dicom, tmp_path, syntax, undefined):
    nested.file_meta.TransferSyntaxUID = syntax
    for keyword in ("ReferencedStudySequence", "RequestAttributesSequence"):
        nested[keyword].is_undefined_length = undefined
        for item in nested[keyword].value:
            item.is_undefined_length_sequence_item = undefined
    path = save_dicom(nested, tmp_path / "a.dcm")
    found = quick_attributes(path.read_bytes(), WANTED)
    assert found is not None
    attributes, pixel_data_offset = found
    assert attributes == {
        "MediaStorageSOPClassUID": nested.SOPClassUID,
        "TransferSyntaxUID": syntax,
        "Rows": 5,
        "SeriesDescription": "abdomen",
        "ImagePositionPatient": [-10.0, -20.0, 30.0],
        "EchoTime": 4.5,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }
    assert path.read_bytes()[pixel_data_offset:] == nested.PixelData
    assert dcmread(path).Rows == 5


def test_what_is_not_plain_is_left_to_pydicom(nested, save_dicom, tmp_path):
    nested.SpecificCharacterSet, nested.SeriesDescription = "ISO_IR 192", "Größe"
    path = save_dicom(nested, tmp_path / "a.dcm")
    assert quick_attributes(path.read_bytes(), WANTED) is None
    assert read_header(path).description == "Größe"
    nested.SeriesDescription = "plain"
    good = save_dicom(nested, tmp_path / "b.dcm").read_bytes()
    assert quick_attributes(good, WANTED) is not None
    for broken in (b"", good[:131], good[:300], good.replace(b"DICM", b"XXXX"), good[:200] + b"\xff" * 40 + good[240:]):
        assert quick_attributes(broken, WANTED) is None
