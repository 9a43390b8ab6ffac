"""Save As, training cases, SEG and RTSTRUCT that find their scan, and the sample."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import read_manifest
from medmaskrcnn.errors import OutputError, ReadError
from medmaskrcnn.export.write import write_result
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.structures.case_result import CaseResult, Review, RunRecord
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Provenance, Volume
from napari_medmaskrcnn.core.training_case import CaseExists, add_training_case
from napari_medmaskrcnn.io import samples
from napari_medmaskrcnn.io.reader import napari_get_reader, read_layers
from napari_medmaskrcnn.io.reopen import reopen
from napari_medmaskrcnn.io.writers import result_of_layers, write
from napari_medmaskrcnn.layers.result_layers import result_to_layers

RECORD = RunRecord("medmaskrcnn 0.1", "phantom-ct", "0" * 64, "CC0", "cpu", "fp32", settings={"classes": ["liver"]})


def on_scan(volume: Volume) -> CaseResult:
    """A liver with a tumour in it and another that overlaps it, on any scan."""
    blocks = [("liver", 0.9, (3, 10, 10), (6, 30, 30)), ("tumour", 0.8, (4, 15, 15), (2, 8, 8)),
              ("tumour", 0.7, (5, 20, 20), (2, 8, 8))]  # fmt: skip
    names = ("liver", "tumour")
    found = Instances(
        grid=volume.grid,
        class_names=names,
        labels=np.array([names.index(b[0]) for b in blocks]),
        scores=np.array([b[1] for b in blocks], np.float32),
        boxes=np.array([[*b[2], *np.add(b[2], b[3])] for b in blocks], np.float32),
        masks=tuple(Mask(b[2], np.ones(b[3], bool)) for b in blocks),
    )
    return CaseResult(found, 0.5, measure_instances(volume, found), RECORD)


def described(found: Instances) -> list[tuple[str, tuple[int, ...], bytes]]:
    rows = range(len(found))
    return sorted(
        (found.class_names[found.labels[i]], found.masks[i].start, found.masks[i].array.tobytes()) for i in rows
    )


def labels_of(result: CaseResult, volume: Volume) -> list:
    return [layer for layer in result_to_layers(result, volume) if layer[2] == "labels"]


def test_layers_hold_what_the_result_holds(small_volume):
    result = on_scan(small_volume)
    again, volume = result_of_layers(labels_of(result, small_volume))
    assert volume is small_volume and described(again.instances) == described(result.instances)
    assert again.instances.scores.tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert [m.volume_unit3 for m in again.measurements] == [m.volume_unit3 for m in result.measurements]


@pytest.mark.parametrize("form", ["seg", "instances", "nifti", "csv", "html"])
def test_save_as_writes_one_file_that_reads_back(small_volume, tmp_path: Path, form):
    result = on_scan(small_volume)
    target = tmp_path / f"out.{form}"
    assert write(form, str(target), labels_of(result, small_volume)) == [str(target)]
    assert [p.name for p in tmp_path.iterdir()] == [target.name]
    if form in ("seg", "instances"):
        assert described(read_labels(target, small_volume)) == described(result.instances)
    elif form == "csv":
        assert [line.split(",")[1] for line in target.read_text().splitlines()[1:]] == ["liver", "tumour", "tumour"]
    else:
        assert target.stat().st_size > 500


def test_layers_without_a_scan_cannot_be_written(small_volume, tmp_path: Path):
    with pytest.raises(OutputError, match="no Labels layer is selected"):
        write("seg", str(tmp_path / "x.dcm"), [])
    (layer, *_) = result_to_layers(on_scan(small_volume))
    with pytest.raises(OutputError, match="does not lie on an open scan"):
        write("seg", str(tmp_path / "x.dcm"), [layer])
    assert not list(tmp_path.iterdir())


def test_a_seg_finds_the_scan_it_lies_on(small_ct: Path, small_volume, tmp_path: Path):
    """Whether it is open, beside the file, or in a folder next to it; without it the reason is told."""
    study = tmp_path / "study"
    shutil.copytree(small_ct, study / "ct")
    result = on_scan(small_volume)
    write_result(result, small_volume, study / "result", formats=["seg"])
    seg = study / "result" / "segmentation.dcm"
    volume, again = reopen(seg, [])
    assert volume.grid == small_volume.grid and described(again.instances) == described(result.instances)
    assert reopen(seg, [small_volume])[0] is small_volume
    layers = read_layers(str(seg))
    assert [layer[1]["name"] for layer in layers] == ["CT", "liver", "tumour", "tumour (overlapping 2)", "boxes"]
    whole = read_layers(str(study))
    assert [layer[1]["name"] for layer in whole][:2] == ["CT", "liver"]
    alone = tmp_path / "alone" / "deeper" / "still" / "seg.dcm"
    alone.parent.mkdir(parents=True)
    seg.rename(alone)
    with pytest.raises(ReadError, match=r"the scan that seg\.dcm belongs to was not found.*Open the scan first"):
        reopen(alone, [])
    assert napari_get_reader(str(alone)) is not None


def test_a_result_is_reopened_with_all_that_was_decided(small_ct: Path, small_volume, tmp_path: Path):
    result = on_scan(small_volume)
    reviewed = CaseResult(
        result.candidates,
        0.5,
        result.measurements,
        RECORD,
        review=Review(rejected=(0,), class_thresholds={"liver": 0.1}),
    )
    write_result(reviewed, small_volume, tmp_path / "r", formats=[])
    volume, again = reopen(tmp_path / "r", [])  # by run.json
    assert volume.grid == small_volume.grid and again.review == reviewed.review and len(again.instances) == 2
    (tmp_path / "r" / "run.json").unlink()
    with pytest.raises(ReadError, match="neither open nor where it was"):
        reopen(tmp_path / "r" / "instances.npz", [])
    with pytest.raises(ReadError, match="there is no file"):
        reopen(tmp_path / "nowhere.npz", [])


def test_a_label_map_needs_the_scan_to_be_open(small_volume, tmp_path: Path):
    result = on_scan(small_volume)
    write("nifti", str(tmp_path / "labels.nii.gz"), labels_of(result, small_volume))
    volume, again = reopen(tmp_path / "labels.nii.gz", [small_volume])
    assert volume is small_volume and len(again.instances) == 3 and again.score_threshold == 0.5
    with pytest.raises(ReadError, match="Open the scan first"):
        reopen(tmp_path / "labels.nii.gz", [])


def test_a_corrected_result_becomes_a_training_case(small_volume, tmp_path: Path):
    result, path = on_scan(small_volume), tmp_path / "data" / "manifest.json"
    first_id = add_training_case(path, result, small_volume, "train")
    other = replace(small_volume, array=small_volume.array + 1)  # another series of the study
    assert add_training_case(path, result, other, "train") != first_id
    manifest = read_manifest(path)
    assert manifest.class_names == ("liver", "tumour") and manifest.modality == "CT"
    first, second = manifest.cases
    assert first.patient == second.patient  # one study, one patient: both stay in one split
    assert len(first.label_maps) == 3  # the tumours overlap the liver and each other
    scan = read_case(manifest, first)
    np.testing.assert_array_equal(scan.volume.array, small_volume.array)
    expected = described(result.instances)
    assert sorted((o.class_name, o.mask.start, o.mask.array.tobytes()) for o in scan.objects) == expected
    text = b"".join(p.read_bytes() for p in path.parent.rglob("*") if p.suffix == ".json")
    assert small_volume.provenance.study_uid.encode() not in text


def test_the_same_scan_is_one_case_and_one_patient(small_volume, tmp_path: Path):
    """Also where it was read from another file, which tells neither study nor series."""
    result, path = on_scan(small_volume), tmp_path / "m.json"
    copy = replace(small_volume, provenance=Provenance("NIfTI", files=("elsewhere.nii",)), array=small_volume.array * 1)
    case = add_training_case(path, result, copy, "train")
    with pytest.raises(CaseExists, match=case):
        add_training_case(path, result, replace(copy, provenance=Provenance()), "val")
    none = CaseResult(result.candidates, 1.0, result.measurements, RECORD)
    assert add_training_case(path, none, copy, "val", replace=True) == case
    (only,) = read_manifest(path).cases
    assert only.split == "val" and only.instances == ()


def test_a_file_that_is_no_manifest_is_left_alone(small_volume, tmp_path: Path):
    (tmp_path / "m.json").write_text('{"mine": 1}')
    with pytest.raises(ReadError, match="is no manifest"):
        add_training_case(tmp_path / "m.json", on_scan(small_volume), small_volume, None)
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]


def test_a_result_without_instances_is_a_case_without_labels(small_volume, tmp_path: Path):
    empty = on_scan(small_volume)
    none = CaseResult(empty.candidates, 1.0, empty.measurements, RECORD)
    add_training_case(tmp_path / "m.json", none, small_volume, None)
    (case,) = read_manifest(tmp_path / "m.json").cases
    assert case.label is None and case.instances == () and case.split is None


@pytest.mark.slow
def test_the_sample_is_the_phantom_with_its_result(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(samples.tempfile, "gettempdir", lambda: str(tmp_path))
    image, *others = samples.phantom_with_result_layers()
    volume = image[1]["metadata"]["medmaskrcnn"]["volume"]
    assert volume.provenance.format == "DICOM" and volume.provenance.generator
    result = others[0][1]["metadata"]["medmaskrcnn"]["result"]
    assert result.candidates.grid == volume.grid and len(result.instances) > 15
    found = result.instances
    liver = [found.class_names[label] for label in found.labels].index("liver")
    inside = volume.array[0][found.masks[liver].window][found.masks[liver].array]
    assert 40 < float(np.median(inside)) < 140  # HU of the phantom's liver: the result lies where it should
    files = {p: p.stat().st_mtime_ns for p in samples.phantom_folder().rglob("*")}
    (again,) = samples.phantom_layers()
    assert again[1]["name"] == "phantom CT"
    assert {p: p.stat().st_mtime_ns for p in samples.phantom_folder().rglob("*")} == files  # made once
