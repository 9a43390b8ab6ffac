"""What napari is offered for a path, and what a path becomes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import save_case
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom
from napari_medmaskrcnn.io.reader import napari_get_reader, read_layers

SHAPE = (5, 40, 48)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(PhantomSettings(seed=4, shape=SHAPE, spacing_mm=(40.0, 9.0, 8.0), tumours=0))


@pytest.fixture
def study(tmp_path, phantom) -> Path:
    """A folder of DICOM, without endings, named after a patient."""
    write_dicom_series(phantom, tmp_path / "DOE^JANE" / "ct")
    return tmp_path / "DOE^JANE"


def write_result(phantom, folder: Path) -> Path:
    """A result with one block of liver."""
    block = Instances(
        grid=phantom.volume.grid,
        class_names=("liver",),
        labels=np.zeros(1, np.int64),
        scores=np.full(1, 0.9, np.float32),
        boxes=np.array([[1, 10, 12, 3, 20, 30]], np.float32),
        masks=(Mask((1, 10, 12), np.ones((2, 10, 18), bool)),),
    )
    size = Measurement("mm", 1.0, 1.0, 1.0, (0.0, 0.0, 0.0), 1.0, 1.0, 1.0)
    record = RunRecord("medmaskrcnn 0", "m", "0" * 64, "CC0", "cpu", "fp32")
    folder.mkdir()
    save_case(CaseResult(block, 0.5, (size,), record), folder / "instances.npz")
    return folder


def test_a_dicom_folder_becomes_an_image_right_way_round(study, phantom):
    ((data, settings, kind),) = read_layers(str(study))
    assert kind == "image"
    np.testing.assert_array_equal(data, phantom.volume.array[0, ::-1])
    assert settings["scale"] == pytest.approx((40.0, 9.0, 8.0))
    assert settings["contrast_limits"] == (-150.0, 250.0)


def test_names_hold_no_patient_data(study):
    ((_, settings, _),) = read_layers(str(study))
    assert settings["name"] == "CT"
    assert "DOE" not in str({key: value for key, value in settings.items() if key != "metadata"})


def test_several_series_open_all_and_show_the_first(study, tmp_path):
    other = make_phantom(PhantomSettings(seed=5, shape=(3, 32, 32), spacing_mm=(60.0, 12.0, 12.0), tumours=0))
    write_dicom_series(other, study / "second")
    layers = read_layers(str(study))
    assert [(layer[1]["name"], layer[1]["visible"]) for layer in layers] == [("CT 1", True), ("CT 2", False)]
    assert [layer[0].shape for layer in layers] == [SHAPE, (3, 32, 32)]


def test_a_series_that_cannot_be_read_is_told_and_the_others_open(study):
    shutil.copytree(study / "ct", study / "odd")
    files = sorted((study / "odd").iterdir())
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), study / "atlas.nii.gz")
    layers = read_layers(str(study))
    assert {layer[1]["name"] for layer in layers} >= {"atlas"}


def test_a_zip_archive_opens_as_the_folder_does(study, phantom, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), study / "atlas.nii.gz")
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", study)
    assert napari_get_reader(archive) is read_layers
    layers = {layer[0].shape: layer[0] for layer in read_layers(archive)}
    assert layers.keys() == {SHAPE, (6, 5, 4)}
    np.testing.assert_array_equal(layers[SHAPE], phantom.volume.array[0, ::-1])


def test_a_nifti_keeps_its_own_name(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2, 2, 3, 1])), tmp_path / "brain_01.nii.gz")
    ((data, settings, _),) = read_layers(str(tmp_path / "brain_01.nii.gz"))
    assert settings["name"] == "brain_01"
    assert data.shape == (6, 5, 4)


def test_a_picture_becomes_rgb(tmp_path):
    Image.fromarray(np.full((7, 9, 3), 200, np.uint8)).save(tmp_path / "slide.png")
    ((data, settings, _),) = read_layers([str(tmp_path / "slide.png")])
    assert data.shape == (7, 9, 3)
    assert settings["rgb"] is True


@pytest.mark.parametrize("inner", ["", "instances.npz"])
def test_a_result_becomes_labels_and_boxes(phantom, tmp_path, inner):
    path = write_result(phantom, tmp_path / "result") / inner
    reader = napari_get_reader(str(path))
    assert reader is not None
    layers = reader(str(path))
    assert [(layer[1]["name"], layer[2]) for layer in layers] == [("liver", "labels"), ("boxes", "shapes")]
    assert np.count_nonzero(layers[0][0]) == 2 * 10 * 18


def test_a_result_lies_on_its_scan(study, phantom, tmp_path):
    image, labels, _ = read_layers([str(study), str(write_result(phantom, tmp_path / "result"))])
    assert image[0].shape == labels[0].shape
    assert image[1]["units"] == labels[1]["units"]
    for key in ("scale", "translate"):
        assert image[1][key] == pytest.approx(labels[1][key], abs=1e-3)


def test_a_result_brings_its_scan_along_if_that_is_still_there(study, phantom, tmp_path):
    result = write_result(phantom, tmp_path / "result")
    (result / "run.json").write_text(json.dumps({"input_files": [str(f) for f in (study / "ct").iterdir()]}))
    assert [layer[1]["name"] for layer in read_layers(str(result))] == ["CT", "liver", "boxes"]
    shutil.move(study, tmp_path / "elsewhere")
    assert [layer[1]["name"] for layer in read_layers(str(result))] == ["liver", "boxes"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"input_files": []}', '{"input_files": [3]}', "OTHER"])
def test_a_run_file_that_leads_nowhere_does_no_harm(phantom, tmp_path, content):
    other = tmp_path / "other.nii"
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), other)
    result = write_result(phantom, tmp_path / "result")
    (result / "run.json").write_text(json.dumps({"input_files": [str(other)]}) if content == "OTHER" else content)
    assert [layer[1]["name"] for layer in read_layers(str(result))] == ["liver", "boxes"]


@pytest.mark.parametrize("name", ["notes.txt", "arrays.npz", "noise.npz", "missing.npz", "data.7"])
def test_what_is_certainly_not_ours_is_declined(tmp_path, name):
    if name == "arrays.npz":
        np.savez(tmp_path / name, x=np.zeros(3))
    elif name != "missing.npz":
        (tmp_path / name).write_bytes(b"PK\x03\x04 nothing of ours")
    assert napari_get_reader(str(tmp_path / name)) is None
    assert napari_get_reader([]) is None


def test_dicom_without_a_telling_name_is_taken(study):
    file = sorted((study / "ct").iterdir())[0]
    assert napari_get_reader(str(file)) is not None
    ((data, _, _),) = read_layers(str(file))
    assert data.shape == SHAPE[1:]


def test_a_folder_without_scans_is_refused_with_the_reason(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ReadError, match=r"notes\.txt"):
        read_layers(str(tmp_path))
