"""An archive takes what we write, files it under the scan's own study, and gives it back element for element."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_objects import write_rtstruct, write_seg, write_sr
from pydicom import dcmread

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]
PLUGINS = ("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "/usr/lib/orthanc/libOrthancDicomWeb.so")
OBJECTS = {"seg.dcm": write_seg, "rtstruct.dcm": write_rtstruct, "sr.dcm": write_sr}


def without_network() -> list[str]:
    """A prefix that leaves a program no network but itself, where the system allows that."""
    prefix = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if shutil.which("unshare") and not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        return prefix
    return []


@pytest.fixture
def dicomweb_plugin() -> Path:
    found = [Path(path) for path in PLUGINS if Path(path).exists()]
    if not found:
        pytest.skip("needs Orthanc's DICOMweb plugin (system package orthanc-dicomweb)")
    return found[0]


@pytest.mark.needs("Orthanc", package="orthanc")
def test_stored_and_retrieved(ct_case: Case, dicomweb_plugin: Path, tmp_path: Path) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    sent.mkdir()
    received.mkdir()
    for name, write in OBJECTS.items():
        stream = io.BytesIO()
        write(*ct_case, stream)
        (sent / name).write_bytes(stream.getvalue())
    for file in ct_case[1].provenance.files:
        shutil.copy(file, sent)
    program = [sys.executable, str(Path(__file__).with_name("orthanc_round_trip.py"))]
    done = subprocess.run(
        [*without_network(), *program, str(sent), str(received), str(dicomweb_plugin)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (study,) = told["studies"]  # all in one study: that of the scan
    assert study["0020000D"]["Value"] == [ct_case[1].provenance.study_uid]
    assert set(study["00080061"]["Value"]) == {"CT", "SEG", "RTSTRUCT", "SR"}
    assert told["counts"]["CountInstances"] == len(list(sent.iterdir()))  # sent twice, there once
    for name in OBJECTS:
        before, after = (dcmread(folder / name) for folder in (sent, received))
        assert after == before, name
