"""A folder of results: whole or not at all, the same bytes for the same work, and no word of the patient."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from medmaskrcnn.errors import OutputError, UnwrittenFormatsError
from medmaskrcnn.export import write
from medmaskrcnn.export.deidentify import deidentify
from medmaskrcnn.export.write import ALL_FORMATS, FILE_NAMES, FORMATS, write_result
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Provenance, Volume

Case = tuple[CaseResult, Volume]


ALWAYS = ["instances", "run", *FORMATS]


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_all_files_are_written(case: Case, tmp_path: Path) -> None:
    paths = write_result(*case, tmp_path / "deep" / "out")
    assert {name: path.name for name, path in paths.items()} == {name: FILE_NAMES[name] for name in ALWAYS}
    assert sorted(content(tmp_path / "deep" / "out")) == sorted(FILE_NAMES[name] for name in ALWAYS)
    assert all(path.stat().st_size > 50 for path in paths.values())
    assert load_case(paths["instances"]).record == case[0].record


def test_result_and_run_are_always_written(case: Case, tmp_path: Path) -> None:
    assert list(write_result(*case, tmp_path, formats=["csv"])) == ["instances", "run", "csv"]
    assert sorted(content(tmp_path)) == ["instances.csv", "instances.npz", "run.json"]


def test_same_work_is_the_same_bytes(case: Case, tmp_path: Path) -> None:
    result, volume = case
    write_result(result, volume, tmp_path / "a")
    write_result(replace(result, run={"host": "elsewhere"}), volume, tmp_path / "b")
    first, second = content(tmp_path / "a"), content(tmp_path / "b")
    assert first.pop("run.json") != second.pop("run.json")
    assert first == second


def test_no_path_and_no_patient_outside_run_json(case: Case, tmp_path: Path) -> None:
    paths = write_result(*case, tmp_path)
    for name, path in paths.items():
        data = path.read_bytes()
        if name == "nifti":
            data = gzip.decompress(data)
        if name == "instances":
            with zipfile.ZipFile(path) as archive:
                data = b"".join(archive.read(entry) for entry in archive.namelist())
        found = any(word in data for word in (b"DOE", b"patients", b"ward-7", os.fsencode(tmp_path)))
        assert found == (name == "run"), name


def test_a_later_run_replaces_an_earlier_one_and_removes_what_is_stale(case: Case, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    write_result(*case, tmp_path)
    before = content(tmp_path)
    result, volume = case
    write_result(replace(result, score_threshold=0.85), volume, tmp_path, formats=["json"])
    after = content(tmp_path)
    assert sorted(after) == ["instances.npz", "notes.txt", "result.json", "run.json"]
    assert after["result.json"] != before["result.json"] and after["notes.txt"] == b"mine"


def test_files_of_others_are_left_alone(case: Case, tmp_path: Path) -> None:
    (tmp_path / "preview.png").write_text("not ours: there is no instances.npz beside it")
    write_result(*case, tmp_path, formats=["csv"])
    assert "preview.png" in content(tmp_path)


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EROFS, "read-only"), (errno.EIO, "error")],
)
def test_a_failure_leaves_everything_as_it_was(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int, message: str
) -> None:
    def fails(result: CaseResult, volume: Volume, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    write_result(*case, tmp_path / "out", formats=["csv"])
    before = content(tmp_path / "out")
    monkeypatch.setitem(write._WRITERS, name, fails)
    with pytest.raises(OutputError, match=message):
        write_result(*case, tmp_path / "out")
    assert content(tmp_path / "out") == before
    with pytest.raises(OutputError, match="Nothing was left half-written"):
        write_result(*case, tmp_path / "new" / "deeper")
    assert sorted(content_names(tmp_path)) == ["out"]


def content_names(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir()]


LIMITED = """
import resource, sys
sys.path.insert(0, {folder!r})
from result_case import SHAPE, make_case, spl_affine
from medmaskrcnn.errors import OutputError, UnwrittenFormatsError
from medmaskrcnn.export.write import write_result
from medmaskrcnn.structures.grid import Grid
case = make_case(Grid(SHAPE, spl_affine()))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write_result(*case, {out!r})
except OutputError as error:
    sys.exit(f"refused: {{error}}")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the size of files as Linux does")
@pytest.mark.parametrize("limit", [100, 3000])
def test_the_systems_own_refusal_in_the_middle_of_a_file(tmp_path: Path, limit: int) -> None:
    """A real short write: at 100 bytes the first file fails, at 3,000 the preview, with five files complete."""
    out = tmp_path / "out"
    code = LIMITED.format(folder=str(Path(__file__).parents[1] / "support"), limit=limit, out=str(out))
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("refused: cannot write the result"), done.stderr
    assert "larger than the system allows" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_folder_without_permission(case: Case, locked_folder: Path) -> None:
    with pytest.raises(OutputError, match="no permission"):
        write_result(*case, locked_folder / "out")


def test_output_is_a_file(case: Case, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write_result(*case, tmp_path / "out")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        write_result(*case, tmp_path / "out" / "deeper")


def test_a_folder_is_in_the_way(case: Case, tmp_path: Path) -> None:
    (tmp_path / "labels.nii.gz").mkdir()
    with pytest.raises(OutputError, match="in the way"):
        write_result(*case, tmp_path)
    assert content_names(tmp_path) == ["labels.nii.gz"]


def test_the_scan_itself_is_never_overwritten(case: Case, tmp_path: Path) -> None:
    result, volume = case
    scan = tmp_path / "labels.nii.gz"
    scan.write_text("the scan")
    volume = replace(volume, provenance=Provenance(files=(str(tmp_path / "." / "labels.nii.gz"),)))
    with pytest.raises(OutputError, match="it is the scan itself"):
        write_result(result, volume, tmp_path)
    assert content(tmp_path) == {"labels.nii.gz": b"the scan"}


def test_wrong_arguments(case: Case, picture: Case, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="formats must be a list out of"):
        write_result(*case, tmp_path, formats=["dicom"])
    with pytest.raises(ValueError, match="formats must be a list"):
        write_result(*case, tmp_path, formats="csv")
    with pytest.raises(ValueError, match="the result lies on"):
        write_result(case[0], picture[1], tmp_path)
    assert FORMATS == ("nifti", "csv", "json", "png") and content_names(tmp_path) == []


DICOM = ("seg", "rtstruct", "sr")


def test_every_format_into_one_folder(ct_case: Case, tmp_path: Path) -> None:
    paths = write_result(*ct_case, tmp_path / "out", formats=ALL_FORMATS)
    names = {name: file for name, file in FILE_NAMES.items() if name != "tracks"}  # these are of a film alone
    assert {name: path.name for name, path in paths.items()} == names
    assert sorted(content_names(tmp_path / "out")) == sorted(names.values())
    assert sorted(content_names(paths["stl"])) == ["001_liver.stl", "002_liver_tumour.stl", "003_left_kidney.stl"]
    assert {dcmread(paths[name]).StudyInstanceUID for name in DICOM} == {ct_case[1].provenance.study_uid}


def test_every_format_is_the_same_bytes_again(ct_case: Case, tmp_path: Path) -> None:
    first, second = (
        write_result(*ct_case, tmp_path / name, formats=ALL_FORMATS, label_map_seg=name == "a") for name in "ab"
    )
    for name in set(first) - {"run", "stl"}:
        assert first[name].read_bytes() == second[name].read_bytes(), name
    assert content(first["stl"]) == content(second["stl"])


def test_a_report_brings_the_segments_that_it_refers_to(ct_case: Case, tmp_path: Path) -> None:
    assert list(write_result(*ct_case, tmp_path, formats=["sr"])) == ["instances", "run", "seg", "sr"]


def test_exports_of_an_earlier_run_go(ct_case: Case, tmp_path: Path) -> None:
    write_result(*ct_case, tmp_path, formats=["stl", "seg"])
    write_result(*ct_case, tmp_path, formats=["stl"])
    assert content_names(tmp_path / "meshes")
    write_result(*ct_case, tmp_path, formats=["csv"])
    assert sorted(content_names(tmp_path)) == ["instances.csv", "instances.npz", "run.json"]


def test_a_folder_that_is_not_ours_stays(ct_case: Case, tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="in the way"):
        write_result(*ct_case, tmp_path, formats=["stl"])
    write_result(*ct_case, tmp_path, formats=["csv"])
    write_result(*ct_case, tmp_path, formats=["csv"])
    assert (tmp_path / "meshes" / "thesis.txt").exists()


@pytest.mark.parametrize("name", DICOM)
def test_dicom_of_what_is_no_dicom_costs_that_file_alone(case: Case, name: str, tmp_path: Path) -> None:
    with pytest.raises(UnwrittenFormatsError, match="belongs to a DICOM series") as raised:
        write_result(*case, tmp_path / "out", formats=[name, "csv", "nifti"])
    assert name in raised.value.failed
    assert set(raised.value.files) == {"instances", "run", "csv", "nifti"}
    assert all(path.is_file() for path in raised.value.files.values())
    assert not (tmp_path / "out" / FILE_NAMES[name]).exists()


def test_an_export_that_fails_in_the_middle_costs_that_file_alone(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(result: CaseResult, volume: Volume, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("no such colour")

    monkeypatch.setitem(write._WRITERS, "coco", fails)
    with pytest.raises(UnwrittenFormatsError) as raised:
        write_result(*case, tmp_path, formats=["coco", "json", "csv"])
    assert set(raised.value.failed) == {"coco"}
    assert (tmp_path / FILE_NAMES["json"]).is_file()
    assert not (tmp_path / FILE_NAMES["coco"]).exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_deidentified_exports_name_nobody_and_refer_to_the_deidentified_scan(
    ct_case: Case, named_scan: Volume, tmp_path: Path
) -> None:
    result = replace(ct_case[0], run={"host": "ward-7", "files": ["/patients/SECRET"], "seconds": {}})
    source = {"study_uid": named_scan.provenance.study_uid, "modality": "CT"}
    result = replace(result, record=replace(result.record, source=source))
    write_result(result, named_scan, tmp_path / "open", formats=ALL_FORMATS)
    paths = write_result(result, named_scan, tmp_path / "clean", formats=ALL_FORMATS, deidentify=True)
    words = [b"SECRET", b"19991231", b"ward-7", os.fsencode(tmp_path), named_scan.provenance.study_uid.encode()]
    for name, path in paths.items():
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            data = file.read_bytes() if name != "nifti" else gzip.decompress(file.read_bytes())
            assert not [word for word in words if word in data], file
    assert b"SECRET" in (tmp_path / "open" / FILE_NAMES["seg"]).read_bytes()  # the test would see it
    clean_image = dcmread(named_scan.provenance.files[0])
    deidentify(clean_image)
    seg = dcmread(paths["seg"])
    assert seg.PatientID == clean_image.PatientID
    assert seg.StudyInstanceUID == clean_image.StudyInstanceUID
    assert seg.FrameOfReferenceUID == clean_image.FrameOfReferenceUID
    referred = {i.ReferencedSOPInstanceUID for i in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert clean_image.SOPInstanceUID in referred
    assert {dcmread(paths[name]).PatientIdentityRemoved for name in DICOM} == {"YES"}


@pytest.mark.needs("dciodvfy", package="dicom3tools")
def test_the_standards_checker_on_deidentified_objects(
    ct_case: Case, named_scan: Volume, errors_of: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    paths = write_result(ct_case[0], named_scan, tmp_path, formats=DICOM, deidentify=True)
    assert {name: errors_of(paths[name]) for name in DICOM} == {name: [] for name in DICOM}


@pytest.fixture
def named_scan(ct: Volume, tmp_path: Path) -> Volume:
    """The tilted series with a patient's name, IDs and dates in every place that is usual."""
    (tmp_path / "scan").mkdir()
    for file in ct.provenance.files:
        dataset = dcmread(file)
        dataset.PatientName, dataset.PatientID, dataset.AccessionNumber = "SECRET^JANE", "SECRET1", "SECRET2"
        dataset.PatientBirthDate = dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = "19991231"
        dataset.AcquisitionDate, dataset.StudyDescription = "19991231", "SECRET3"
        dataset.InstitutionName, dataset.ReferringPhysicianName = "SECRET4", "SECRET^DOC"
        dataset.save_as(tmp_path / "scan" / Path(file).name)
    return read_volume(tmp_path / "scan")
