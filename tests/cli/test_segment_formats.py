"""``segment --format``: DICOM objects and the rest from the command line; what cannot be is refused before the work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from medmaskrcnn.export.deidentify import deidentified_uid
from medmaskrcnn.export.write import ALL_FORMATS, FILE_NAMES
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.store import load_case


@pytest.fixture
def segment(run, ct_series: Path, tiny_model: Path):
    def run_segment(out: Path, *options: str):
        ran = run("segment", ct_series, "-o", out, "--model", tiny_model, "--allow-out-of-domain", "-q", *options)
        assert ran.code == 0, ran.err
        return load_case(out / "instances.npz")

    return run_segment


def test_every_format(segment, ct_series, tmp_path):
    result = segment(tmp_path / "out", "--format", ",".join(ALL_FORMATS))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        {*FILE_NAMES.values()} - {FILE_NAMES["tracks"]}
    )
    seg = read_labels(tmp_path / "out" / "segmentation.dcm", read_volume(ct_series))
    assert [m.n_voxels for m in seg.masks] == [m.n_voxels for m in result.instances.masks]
    names = [seg.class_names[label] for label in seg.labels]
    assert names == [result.instances.class_names[label] for label in result.instances.labels]


def test_the_same_command_gives_the_same_objects(segment, tmp_path):
    for name in "ab":
        segment(tmp_path / name, "--format", "seg,rtstruct,sr,coco,html")
    for name in ("segmentation.dcm", "contours.dcm", "measurements.dcm", "coco.json", "report.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_deidentify(segment, ct_series, tmp_path):
    segment(tmp_path / "out", "--format", "json,seg,html", "--deidentify")
    study = read_volume(ct_series).provenance.study_uid
    assert study is not None
    for file in (tmp_path / "out").iterdir():
        data = file.read_bytes()
        assert not [word for word in (b"PHANTOM^SEED", study.encode(), str(ct_series).encode()) if word in data], file
    source = json.loads((tmp_path / "out" / "result.json").read_text())["source"]
    seg = dcmread(tmp_path / "out" / "segmentation.dcm")
    assert seg.StudyInstanceUID == source["study_uid"] == deidentified_uid(study)


def test_dicom_of_a_nifti_is_refused_before_the_work(run, scan, tiny_model, tmp_path, monkeypatch):
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("the scan was segmented for nothing")

    monkeypatch.setattr("medmaskrcnn.inference.pipeline.segment", never)
    ran = run("segment", scan, "-o", tmp_path / "out", "--model", tiny_model, "--format", "seg")
    assert ran.code == 1
    assert "belongs to a DICOM series" in ran.err
    assert not (tmp_path / "out").exists()
