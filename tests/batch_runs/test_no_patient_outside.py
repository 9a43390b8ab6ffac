"""A canary patient: no output of a batch, and nothing that it prints or logs, says who it is.

Searched are summary.csv, summary.json and summary.html, the thumbnail, every file of each result (compressed ones are
unpacked), the log of --log, standard output and standard error. The ledger and, without --deidentify, DICOM objects
hold the patient by intent: for their owner alone.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom import config, dcmread

from medmaskrcnn.settings import ALL_FORMATS
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

pytest.importorskip("highdicom", reason="needs highdicom (pip install 'medmaskrcnn[dicom]')")

CANARY = {
    "PatientName": "CANARYNAME^ANNA", "PatientID": "CANARY-ID-4711", "PatientBirthDate": "19570313",
    "PatientComments": "CANARYCOMMENT", "AccessionNumber": "CANARYACC99", "InstitutionName": "CANARYHOSPITAL",
    "InstitutionAddress": "CANARYSTREET", "ReferringPhysicianName": "CANARYDOCTOR", "StudyDate": "20190607",
    "SeriesDate": "20190608", "AcquisitionDate": "20190609", "ContentDate": "20190610", "StudyID": "CANARYSTUDY",
    "OtherPatientIDs": "CANARYOTHER", "PatientAddress": "CANARYHOME", "OperatorsName": "CANARYOPERATOR",
    "StationName": "CANARYSTATION", "StudyDescription": "CANARYSTUDYDESC", "ImageComments": "CANARYIMAGE",
    "SeriesDescription": "CANARYSERIES", "ProtocolName": "CANARYPROTOCOL", "DeviceSerialNumber": "CANARYSERIAL",
    "PatientTelephoneNumbers": "CANARYPHONE", "RequestedProcedureDescription": "CANARYREQUEST",
}  # fmt: skip
BROKEN = {
    "date": {"PatientBirthDate": "1957CANARY"},
    "time": {"StudyTime": "CANARYTIME"},
    "sex": {"PatientSex": "CANARYSEX"},
    "age": {"PatientAge": "CANARYAGE"},
    "long": {"PatientID": "CANARY" * 40},
    "number": {"SliceThickness": "CANARYMM"},
    "window": {"WindowCenter": "CANARYHU"},
    "slope": {"RescaleSlope": "CANARYSLOPE"},
    "spacing": {"PixelSpacing": ["CANARYMM", "1"]},
}  # fmt: skip
SECRETS = [b"CANARY", b"19570313", b"20190607", b"20190608", b"20190609", b"20190610", b"1957-03-13", b"2019-06-07"]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``CANARYFOLDER/<kind>``: a sound scan, and one for each kind of broken value."""
    root = tmp_path_factory.mktemp("archive") / "CANARYFOLDER"
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.IGNORE
    try:
        for number, (kind, broken) in enumerate({"sound": {}, **BROKEN}.items()):
            settings = PhantomSettings(seed=number, shape=(4, 40, 40), spacing_mm=(60.0, 9.0, 9.0), tumours=0)
            write_dicom_series(make_phantom(settings), root / kind)
            for file in (root / kind).iterdir():
                one = dcmread(file)
                for keyword, value in (CANARY | broken).items():
                    element = one.data_element(keyword) if keyword in one else None
                    if element is not None:
                        del one[keyword]
                    one.add_new(keyword, "LO" if keyword in broken else _vr(keyword), value)
                one.private_block(0x0099, "CANARYMAKER", create=True).add_new(1, "LO", "CANARYPRIVATE")
                one.save_as(file)
    finally:
        config.settings.writing_validation_mode = before
    (root / "CANARYBROKEN.dcm").write_bytes(b"\0" * 128 + b"DICMCANARY")
    return root


def _vr(keyword: str) -> str:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(keyword)


def contents(file: Path) -> Iterator[bytes]:
    content = file.read_bytes()
    yield content
    if file.name.endswith(".gz"):
        yield gzip.decompress(content)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def hits(file: Path) -> list[bytes]:
    return [secret for secret in SECRETS for content in contents(file) if secret in content]


@pytest.mark.slow  # two batches of a few scans with a worker of their own
@pytest.mark.parametrize("deidentify", [False, True])
def test_nobody_is_named(hospital: Path, tiny_model: Path, tmp_path: Path, start: Callable, deidentify: bool):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    more = ["--deidentify"] if deidentify else []
    program = start(
        hospital, "-o", out, "--model", tiny_model, "--log", log, "--format", ",".join(ALL_FORMATS),
        "--allow-out-of-domain", *more,
    )  # fmt: skip
    printed, said = program.communicate(timeout=240)
    assert "1 failed" not in printed or program.returncode
    files = [file for file in sorted(out.rglob("*")) if file.is_file() and "ledger" not in file.name]
    shared = [file for file in files if deidentify or file.suffix != ".dcm"]
    names = {file.name for file in shared}
    assert {"summary.csv", "summary.json", "summary.html", "instances.npz", "result.json", "run.json"} <= names
    found = {file.relative_to(out).as_posix(): hits(file) for file in [*shared]}
    assert {name: secrets for name, secrets in found.items() if secrets} == {}
    assert hits(log) == []
    root = str(hospital)
    for text in (printed, said):
        assert not any(secret in text.replace(root, "").encode() for secret in SECRETS)
    for file in files:
        if file.suffix == ".dcm" and not deidentify:
            assert file.stat().st_mode & 0o077 == 0
