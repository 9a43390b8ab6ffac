"""A result's folder: what is ours is written anew, what is not stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from result_case import SHAPE, make_case, put, spl_affine

from medmaskrcnn.errors import OutputError, Remedy
from medmaskrcnn.export.write import write_result
from medmaskrcnn.structures.grid import Grid


def write(case, out: Path, *formats: str, **options: object) -> None:
    write_result(*case, out, formats=formats or ("json", "csv"), **options)


def test_the_same_scan_is_written_anew_without_what_is_stale(case, tmp_path: Path):
    write(case, tmp_path, "json", "csv", "stl")
    write(case, tmp_path, "json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["instances.npz", "result.json", "run.json"]


@pytest.mark.parametrize("name", ["contours.dcm", "labels.nii.gz", "notes.txt", "report.html", "tracks.csv"])
def test_what_is_not_ours_stays(case, tmp_path: Path, name: str):
    write(case, tmp_path)
    (tmp_path / name).write_text("of another study")
    write(case, tmp_path)
    write(case, tmp_path, "json")
    assert (tmp_path / name).read_text() == "of another study"


def test_an_export_that_was_changed_since_stays(case, tmp_path: Path):
    write(case, tmp_path, "csv", "stl")
    (tmp_path / "instances.csv").write_text("corrected by hand")
    mesh = next((tmp_path / "meshes").iterdir())
    (tmp_path / "meshes" / "mine.stl").write_bytes(b"solid")
    write(case, tmp_path, "json")
    assert (tmp_path / "instances.csv").read_text() == "corrected by hand"
    assert [p.name for p in (tmp_path / "meshes").iterdir()] == ["mine.stl"] and not mesh.exists()


@pytest.mark.parametrize("name", ["segmentation.dcm", "result.json", "run.json", "instances.npz"])
def test_a_file_of_somebody_else_is_not_replaced(ct_case, tmp_path: Path, name: str):
    pytest.importorskip("highdicom")
    (tmp_path / name).write_text("of another study")
    with pytest.raises(OutputError, match=r"is there already.*overwrite=True") as caught:
        write(ct_case, tmp_path, "seg", "json")
    assert caught.value.remedy is Remedy.OVERWRITE
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "of another study"
    write(ct_case, tmp_path, "seg", "json", overwrite=True)
    assert (tmp_path / "segmentation.dcm").stat().st_size > 1000


def test_a_file_of_somebody_else_beside_our_result_is_not_replaced(case, tmp_path: Path):
    write(case, tmp_path, "json")
    (tmp_path / "instances.csv").write_text("of another study")
    with pytest.raises(OutputError, match="not written by this program"):
        write(case, tmp_path, "json", "csv")
    (tmp_path / "instances.csv").unlink()
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes" / "mine.stl").write_bytes(b"solid")
    with pytest.raises(OutputError, match="not written by this program"):
        write(case, tmp_path, "json", "stl")
    assert (tmp_path / "meshes" / "mine.stl").exists()


def others(case) -> list:
    """Results of other scans: of another size, of other files."""
    result, volume = case
    elsewhere = replace(volume, provenance=replace(volume.provenance, files=("/patients/ROE^JOHN/scan.nii.gz",)))
    shifted = spl_affine()
    shifted[0, 3] += 5
    return [make_case(Grid(SHAPE, shifted)), (result, elsewhere)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_result_of_another_scan_is_not_replaced(case, tmp_path: Path, number: int):
    write(case, tmp_path, "json")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="another scan"):
        write(others(case)[number], tmp_path, "json")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    write(others(case)[number], tmp_path, "csv", overwrite=True)
    assert not (tmp_path / "result.json").exists()  # of the other scan, and ours to remove


def test_series_are_told_apart_by_their_uids(ct_case, tmp_path: Path):
    result, volume = ct_case
    record = replace(result.record, source={"series_uid": volume.provenance.series_uid})
    own = replace(result, record=record)
    write((own, volume), tmp_path, "json")
    write((own, volume), tmp_path, "json", deidentify=True)  # the same series with its UIDs hashed
    write((own, volume), tmp_path, "json")
    other = replace(volume, provenance=replace(volume.provenance, series_uid="1.2.3"))
    with pytest.raises(OutputError, match="another scan"):
        write((put(other, {"liver": []}), other), tmp_path, "json")


def test_a_result_of_an_older_version_is_written_anew(case, tmp_path: Path):
    write(case, tmp_path, "json", "csv")
    run = json.loads((tmp_path / "run.json").read_text())
    assert set(run.pop("files")) == {"instances.npz", "result.json", "instances.csv"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    write(case, tmp_path, "json")
    assert not (tmp_path / "instances.csv").exists()
