"""Headers as hospitals and bad anonymisers write them: every DICOM object is written, valid, and names the patient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom.config
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.valuerep import PersonName

from medmaskrcnn.errors import UnwrittenFormatsError
from medmaskrcnn.export.check import check_formats
from medmaskrcnn.export.patient import valid_header
from medmaskrcnn.export.write import write_result
from medmaskrcnn.settings import OutputOptions
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]
DICOM = ("seg", "rtstruct", "sr")

NAMES = {
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "japanese halfwidth": (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": (["", "ISO 2022 IR 58"], "Zhang^XiaoDong=张^小东="),
    "chinese gb18030": ("GB18030", "Wang^XiaoDong=王^小东"),
    "greek": ("ISO_IR 126", "Διονυσιος"),
    "arabic": ("ISO_IR 127", "قباني^لنزار"),
    "russian": ("ISO_IR 144", "Люкceмбypг"),
    "utf-8": ("ISO_IR 192", "Buc^Jérôme"),
    "latin": ("ISO_IR 100", "Müller^Jörg"),
}
MISSPELT = {
    "2022 alone": ("ISO_IR 100", "ISO 2022 IR 100", "Müller^Jörg"),
    "ir 6": ("ISO_IR 100", "ISO_IR 6", "Smith^A"),
    "dashes": ("ISO_IR 100", "ISO-IR 100", "Müller^Jörg"),
    "nonsense": ("ISO_IR 100", "WESTERN", "Smith^A"),
    "korean alone": ("ISO_IR 100", "ISO_IR 149", "Smith^A"),
    "utf-8 without a word": ("ISO_IR 192", None, "Buc^Jérôme"),
    "latin 1 as utf-8": ("ISO_IR 100", "ISO_IR 192", "Smith^A"),
}
BROKEN = {
    "slashes": ("PatientBirthDate", "1981/03/02"),
    "zeros": ("PatientBirthDate", "00000000"),
    "dashes": ("PatientBirthDate", "0000-00-00"),
    "a name": ("PatientBirthDate", "Amadeus"),
    "no such day": ("PatientBirthDate", "20230230"),
    "a range": ("PatientBirthDate", "19810302-19810303"),
    "sex": ("PatientSex", "ANON"),
    "sex in words": ("PatientSex", "Female"),
    "study date": ("StudyDate", "2020.13.01"),
    "study time": ("StudyTime", "25:61:00"),
    "age": ("PatientAge", "42"),
    "weight": ("PatientWeight", "70,5"),
    "size": ("PatientSize", "1.80 m"),
    "id too long": ("PatientID", "x" * 80),
    "name too long": ("PatientName", "x" * 80),
    "line breaks": ("PatientName", "Smith\r\nA"),
    "two ids": ("PatientID", "a\\b"),
    "description too long": ("StudyDescription", "x" * 80),
    "accession too long": ("AccessionNumber", "12345678901234567"),
    "state": ("PregnancyStatus", 9),
    "identity removed": ("PatientIdentityRemoved", "maybe"),
    "comments": ("PatientComments", "a\x00b\x07"),
}


@contextmanager
def unchecked() -> Iterator[None]:
    """What pydicom would refuse to write is what these tests need."""
    before = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        yield
    finally:
        pydicom.config.settings.writing_validation_mode = before


def with_header(case: Case, folder: Path, edit: Callable[[FileDataset], None]) -> Case:
    """The case with the headers of its scan changed."""
    result, volume = case
    folder.mkdir(exist_ok=True)
    files = []
    with unchecked():
        for file in volume.provenance.files:
            dataset = dcmread(file)
            edit(dataset)
            files.append(str(folder / Path(file).name))
            dataset.save_as(files[-1])
    return result, replace(volume, provenance=replace(volume.provenance, files=tuple(files)))


def put_raw(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set a value that pydicom would not take."""
    setattr(dataset, keyword, 1 if isinstance(value, int) else "1")
    dataset[keyword]._value = PersonName(value) if keyword == "PatientName" else value


def check(case: Case, folder: Path, errors_of: Callable[[Path], list[str]]) -> dict[str, FileDataset]:
    """The three objects, which the standard's checker finds no error in."""
    paths = write_result(*case, folder, formats=[*DICOM, "csv"])
    assert {name: errors_of(paths[name]) for name in DICOM} == {name: [] for name in DICOM}
    return {name: dcmread(paths[name]) for name in DICOM}


@pytest.mark.needs("dciodvfy", package="dicom3tools")
@pytest.mark.parametrize("language", NAMES)
def test_names_of_every_script_come_back(
    ct_case: Case, tmp_path: Path, errors_of: Callable[[Path], list[str]], language: str
) -> None:
    character_set, name = NAMES[language]

    def edit(dataset: FileDataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = character_set, name
        if language == "chinese":  # PS3.5, annex K.2; pydicom leaves the escape sequences out
            raw = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab= "
            tag = dataset["PatientName"].tag
            dataset[tag] = RawDataElement(tag, "PN", len(raw), raw, 0, False, True)

    for written in check(with_header(ct_case, tmp_path / "scan", edit), tmp_path / "out", errors_of).values():
        assert str(written.PatientName).rstrip("=") == name.rstrip("=")


@pytest.mark.needs("dciodvfy", package="dicom3tools")
@pytest.mark.parametrize("typo", MISSPELT)
def test_a_misspelt_character_set_costs_nothing(
    ct_case: Case, tmp_path: Path, errors_of: Callable[[Path], list[str]], typo: str
) -> None:
    meant, written_as, name = MISSPELT[typo]

    def edit(dataset: FileDataset) -> None:
        dataset.SpecificCharacterSet, dataset.PatientName = meant, name

    case = with_header(ct_case, tmp_path / "scan", edit)
    for file in case[1].provenance.files:
        data = Path(file).read_bytes()
        old = b"\x08\0\x05\0CS" + len(meant).to_bytes(2, "little") + meant.encode()
        text = b"" if written_as is None else written_as.encode() + b" " * (len(written_as) % 2)
        assert data.count(old) == 1
        Path(file).write_bytes(data.replace(old, b"\x08\0\x05\0CS" + len(text).to_bytes(2, "little") + text))
    for written in check(case, tmp_path / "out", errors_of).values():
        assert str(written.PatientName) == name


@pytest.mark.needs("dciodvfy", package="dicom3tools")
@pytest.mark.parametrize("what", BROKEN)
def test_an_invalid_value_is_emptied_and_told(
    ct_case: Case, tmp_path: Path, errors_of: Callable[[Path], list[str]], what: str
) -> None:
    keyword, value = BROKEN[what]

    def edit(dataset: FileDataset) -> None:
        put_raw(dataset, keyword, value)

    case = with_header(ct_case, tmp_path / "scan", edit)
    for written in check(case, tmp_path / "out", errors_of).values():
        assert written.get(keyword) in (None, "") or (what == "two ids" and written.PatientID == "a")
    if what != "two ids":
        notes = check_formats(case[1], OutputOptions(formats=("seg", "csv"))).provenance.notes
        assert any(keyword in note for note in notes)
        assert not any(str(value) in note for note in notes)


def test_whole_values_are_kept(ct_case: Case, tmp_path: Path) -> None:
    kept = {
        "PatientBirthDate": "19810302", "PatientSex": "F", "StudyTime": "120000.123", "PatientAge": "042Y",
        "PatientWeight": "70.5", "AccessionNumber": "A-1", "PatientID": "P 1", "OtherPatientIDs": ["a", "b"],
        "StudyDescription": "Thorax, nativ",
    }  # fmt: skip

    def edit(dataset: FileDataset) -> None:
        for keyword, value in kept.items():
            setattr(dataset, keyword, value)

    header = dcmread(with_header(ct_case, tmp_path, edit)[1].provenance.files[0])
    assert valid_header(header) == ()
    assert {keyword: header[keyword].value for keyword in kept} == kept


def test_an_incomplete_code_is_left_out_of_its_sequence() -> None:
    whole, half = Dataset(), Dataset()
    whole.CodeValue, whole.CodingSchemeDesignator, whole.CodeMeaning = "1", "99X", "one"
    half.CodeValue = "2"
    header = Dataset()
    header.ProcedureCodeSequence, header.ReferencedStudySequence = [whole, half], [Dataset()]
    assert valid_header(header) == ("ReferencedStudySequence",)
    assert [item.CodeValue for item in header.ProcedureCodeSequence] == ["1"]


@pytest.mark.parametrize("keyword", ["SOPClassUID", "FrameOfReferenceUID", "StudyInstanceUID"])
def test_a_scan_without_its_uids_costs_the_dicom_objects_alone(ct_case: Case, tmp_path: Path, keyword: str) -> None:
    def edit(dataset: FileDataset) -> None:
        delattr(dataset, keyword)

    case = with_header(ct_case, tmp_path / "scan", edit)
    with pytest.raises(UnwrittenFormatsError, match=keyword) as raised:
        write_result(*case, tmp_path / "out", formats=["nifti", "csv", "seg"])
    assert set(raised.value.failed) == {"seg"}
    assert raised.value.files["nifti"].is_file()
