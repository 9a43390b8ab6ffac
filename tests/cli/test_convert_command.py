"""``convert`` from every form of labels into every other, back again, and what it refuses."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from typer.testing import CliRunner

from medmaskrcnn.cli.convert_forms import read_any_labels
from medmaskrcnn.cli.main import app
from medmaskrcnn.export.deidentify import deidentified_uid
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.label_maps import label_map as paint
from medmaskrcnn.structures.store import load_case

FORMS = {"nifti": "labels.nii.gz", "seg": "seg.dcm", "rtstruct": "contours.dcm", "npz": "i.npz", "coco": "c.json"}


@pytest.fixture(scope="session")
def label_map(ct_series: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two objects that touch, on the series' grid."""
    grid = read_volume(ct_series).grid
    array = np.zeros(grid.shape, np.uint8)
    array[1:4, 10:30, 12:25] = 1
    array[2, 15:20, 15:18] = 0
    array[2:5, 30:36, 12:25] = 2
    path = tmp_path_factory.mktemp("labels") / "map.nii.gz"
    nib.save(nib.Nifti1Image(array.T, grid.affine_vox_to_ras[:, [2, 1, 0, 3]]), path)
    return path


@pytest.fixture(scope="session")
def in_every_form(ct_series: Path, label_map: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("forms")
    paths = {form: folder / name for form, name in FORMS.items()}
    for form, path in paths.items():
        arguments = ["convert", label_map, path, "--to", form, "--image", ct_series, "--names", "1=liver,2=spleen"]
        done = CliRunner().invoke(app, [str(a) for a in arguments])
        assert done.exit_code == 0, done.output
    return paths


@pytest.fixture(scope="session")
def ct_scan(ct_series):
    return read_volume(ct_series)


@pytest.mark.parametrize(("source", "target"), list(product(FORMS, FORMS)))
def test_there_and_back(run, ct_series, ct_scan, label_map, in_every_form, tmp_path, source, target):
    out = tmp_path / f"out-{FORMS[target]}"
    ran = run("convert", in_every_form[source], out, "--to", target, "--image", ct_series)
    assert ran.code == 0, ran.err
    back = read_any_labels(out, ct_scan, names=None, kind="instance")
    assert back is not None
    np.testing.assert_array_equal(paint(back.instances).T, np.asarray(nib.load(label_map).dataobj))


@pytest.mark.parametrize("form", ["seg", "rtstruct"])
def test_class_names_and_who_drew_it(ct_series, in_every_form, form):
    labels = read_labels(in_every_form[form], read_volume(ct_series))
    assert labels.class_names == ("liver", "spleen")
    dataset = dcmread(in_every_form[form])
    items = dataset.SegmentSequence if form == "seg" else dataset.StructureSetROISequence
    kinds = {i.SegmentAlgorithmType if form == "seg" else i.ROIGenerationAlgorithm for i in items}
    assert kinds == {"MANUAL"}


def test_a_result_of_a_model_stays_automatic_and_keeps_its_scores(run, ct_series, tiny_model, tmp_path):
    ran = run("segment", ct_series, "-o", tmp_path / "r", "--model", tiny_model, "--allow-out-of-domain", "-q")
    assert ran.code == 0, ran.err
    npz, seg = tmp_path / "r" / "instances.npz", tmp_path / "seg.dcm"
    assert run("convert", npz, seg, "--image", ct_series).code == 0
    result = load_case(npz)
    items = dcmread(seg).SegmentSequence
    assert {item.SegmentAlgorithmType for item in items} == {"AUTOMATIC"}
    assert len(items) == len(result.kept) > 0
    assert [item.SegmentDescription for item in items] == [
        f"{result.instances.class_names[label]}; score {score:.3f}"
        for label, score in zip(result.instances.labels, result.instances.scores, strict=True)
    ]


def test_semantic_maps_and_values_without_a_name(run, ct_series, label_map, tmp_path):
    array = np.asarray(nib.load(label_map).dataobj).copy()
    array[:4, :4, 0] = 1  # a second part of class 1
    semantic = tmp_path / "semantic.nii.gz"
    nib.save(nib.Nifti1Image(array, nib.load(label_map).affine), semantic)
    out = tmp_path / "i.npz"
    ran = run("convert", semantic, out, "--names", "1=liver", "--numbers", "semantic")
    assert ran.code == 0, ran.err
    assert "Value 2 has no class name" in ran.err
    result = load_case(out)
    assert (result.instances.class_names, len(result.instances)) == (("liver",), 2)
    assert result.measurements[0].mean_intensity is None


def test_pictures(run, tmp_path):
    """A picture's label map to COCO and back; its pixels have no size."""
    values = np.zeros((20, 30), np.uint16)
    values[2:8, 3:9], values[10:15, 20:28] = 1, 300
    Image.fromarray(values).save(tmp_path / "cells.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "image.png")
    assert run("convert", tmp_path / "cells.png", tmp_path / "cells.json").code == 0
    assert len(json.loads((tmp_path / "cells.json").read_text())["annotations"]) == 2
    ran = run("convert", tmp_path / "cells.json", tmp_path / "back.nii.gz", "--image", tmp_path / "image.png")
    assert ran.code == 0, ran.err
    found = np.asarray(nib.load(tmp_path / "back.nii.gz").dataobj).T[0]
    np.testing.assert_array_equal(found > 0, values > 0)


def test_the_table_and_the_report(run, ct_series, in_every_form, tmp_path):
    for name in ("t.csv", "r.html"):
        assert run("convert", in_every_form["seg"], tmp_path / name, "--image", ct_series).code == 0
    assert (tmp_path / "t.csv").read_text().splitlines()[1].startswith("1,liver,1,")
    assert "Not for clinical use" in (tmp_path / "r.html").read_text()


def test_a_tilted_scan_and_its_labels_put_straight(run, tmp_path):
    affine = np.array([[-1.5, 0, 0, 4], [0, -2.0, -1.0, 9], [0, 0, 3.0, -7], [0, 0, 0, 1.0]])
    labels = np.zeros((16, 20, 6), np.uint8)
    labels[3:9, 5:12, 1:5] = 1
    nib.save(nib.Nifti1Image(np.arange(16 * 20 * 6, dtype=np.int16).reshape(16, 20, 6), affine), tmp_path / "scan.nii")
    nib.save(nib.Nifti1Image(labels, affine), tmp_path / "labels.nii")
    assert run("convert", tmp_path / "scan.nii", tmp_path / "s.nii.gz", "--regular").code == 0
    ran = run("convert", tmp_path / "labels.nii", tmp_path / "l.nii.gz", "--regular", "--image", tmp_path / "scan.nii")
    assert ran.code == 0, ran.err
    scan, straight = (nib.load(tmp_path / name) for name in ("s.nii.gz", "l.nii.gz"))
    np.testing.assert_allclose(scan.affine, straight.affine, atol=1e-5)
    assert scan.shape == straight.shape
    unit = scan.affine[:3, :3] / np.linalg.norm(scan.affine[:3, :3], axis=0)
    np.testing.assert_allclose(unit.T @ unit, np.eye(3), atol=1e-6)
    assert np.asarray(straight.dataobj).sum() == labels.sum()


def test_a_scan_as_nifti_has_its_voxels(run, ct_series, tmp_path):
    ran = run("convert", ct_series, tmp_path / "ct.nii.gz")
    assert ran.code == 0, ran.err
    volume, image = read_volume(ct_series), nib.load(tmp_path / "ct.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume.array[0])
    np.testing.assert_allclose(image.affine, volume.affine_vox_to_ras[:, [2, 1, 0, 3]], atol=1e-4)


def test_a_deidentified_series_and_its_segmentation_belong_together(run, ct_series, label_map, tmp_path):
    clean = tmp_path / "clean"
    ran = run("convert", ct_series, clean, "--deidentify")
    assert ran.code == 0, ran.err
    assert "pixels were not changed" in ran.err
    before, after = read_volume(ct_series), read_volume(clean)
    np.testing.assert_array_equal(before.array, after.array)
    assert after.provenance.series_uid == deidentified_uid(before.provenance.series_uid)
    assert not any(b"PHANTOM^SEED" in path.read_bytes() for path in clean.iterdir())
    seg = tmp_path / "seg.dcm"
    assert run("convert", label_map, seg, "--image", ct_series, "--deidentify").code == 0
    assert b"PHANTOM^SEED" not in seg.read_bytes()
    assert len(read_labels(seg, after)) == 2


def test_what_may_show_names_is_left_out(run, ct_series, in_every_form, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    first, second, *_ = sorted(ct_series.iterdir())
    (source / "a.dcm").write_bytes(first.read_bytes())
    burned = dcmread(second)
    burned.BurnedInAnnotation = "YES"
    burned.save_as(source / "b.dcm")
    (source / "c.dcm").write_bytes(in_every_form["seg"].read_bytes())
    ran = run("convert", source, tmp_path / "out", "--deidentify")
    assert ran.code == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["IM00001.dcm"]
    assert "1 left out: a picture that has text burned in" in ran.err
    assert "1 left out: no image" in ran.err
    again = run("convert", source, tmp_path / "out", "--deidentify")
    assert again.code == 1
    assert "exists" in again.err


@pytest.mark.parametrize(
    ("source", "target", "options", "code", "words"),
    [
        ("missing.dcm", "o.nii.gz", [], 1, "does not exist"),
        ("seg", "o.nii.gz", [], 1, "--image"),
        ("npz", "o.dcm", [], 1, "--image"),
        ("npz", "o.xyz", [], 2, "--to"),
        ("nifti", "o.npz", ["--names", "liver"], 2, "1=liver"),
        ("nifti", "no/such/folder/o.npz", [], 1, "cannot write"),
        ("ct", "o.npz", [], 1, "is a scan, not labels"),
        ("ct", "o.nii.gz", ["--series", "9"], 1, "no series"),
    ],
)
def test_what_is_refused_and_nothing_half_written(
    run, ct_series, in_every_form, tmp_path, source, target, options, code, words
):
    given = {**in_every_form, "ct": ct_series}.get(source, tmp_path / source)
    ran = run("convert", given, tmp_path / target, *options)
    assert ran.code == code, ran.err
    assert words in ran.err + ran.out
    assert list(tmp_path.iterdir()) == []


def test_labels_of_another_scan_are_refused(run, in_every_form, scan, tmp_path):
    ran = run("convert", in_every_form["npz"], tmp_path / "o.nii.gz", "--image", scan)
    assert ran.code == 1
    assert "Give the scan that it was made from" in ran.err


def test_a_label_map_cannot_be_written_as_dicom_of_a_nifti(run, scan, tmp_path):
    labels = tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((48, 40, 4), np.uint8), nib.load(scan).affine), labels)
    ran = run("convert", labels, tmp_path / "o.dcm", "--image", scan)
    assert ran.code == 1
    assert "belongs to a DICOM series" in ran.err


def test_the_log_names_no_patient(run, ct_series, tmp_path):
    """The folder and the header carry a name; the libraries warn of values that are too long and quote them."""
    folder = tmp_path / "SECRET_JANE"
    folder.mkdir()
    for k, file in enumerate(sorted(ct_series.iterdir())):
        dataset = dcmread(file)
        dataset.PatientName, dataset.AccessionNumber = "SECRETNAME", "SECRET"
        dataset.add_new("StudyID", "SH", "SECRET-IS-TOO-LONG-FOR-IT")
        dataset.save_as(folder / f"{k}.dcm")
    labels = tmp_path / "l.nii.gz"
    grid = read_volume(folder).grid
    array = np.zeros(grid.shape, np.uint8)
    array[2, 4:9, 4:9] = 1
    nib.save(nib.Nifti1Image(array.T, grid.affine_vox_to_ras[:, [2, 1, 0, 3]]), labels)
    for out in (tmp_path / "o.dcm", tmp_path / "no" / "o.dcm"):
        run("convert", labels, out, "--image", folder, "--log", tmp_path / "log.txt")
        text = (tmp_path / "log.txt").read_text()
        assert "medmaskrcnn" in text
        assert "SECRET" not in text
    assert "SECRETNAME" in str(dcmread(tmp_path / "o.dcm").PatientName)
