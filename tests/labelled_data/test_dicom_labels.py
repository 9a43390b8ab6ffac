"""Patients' DICOM series with RTSTRUCT and SEG, written here; and real ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_objects import write_rtstruct, write_seg

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets.dicom_labels import dicom_dataset
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom
from medmaskrcnn_datasets.splits import SplitRule

Boxes = dict[str, tuple[slice, slice, slice]]
LIVER: Boxes = {"liver": (slice(1, 4), slice(8, 20), slice(6, 18))}
NESTED: Boxes = {**LIVER, "tumour": (slice(2, 3), slice(10, 14), slice(8, 12))}


def result_of(series: Path, boxes: Boxes) -> CaseResult:
    volume = read_volume(series)
    masks = [
        Mask([s.start for s in window], np.ones([s.stop - s.start for s in window], bool)) for window in boxes.values()
    ]
    found = Instances.from_masks(volume.grid, tuple(boxes), range(len(masks)), masks)
    record = RunRecord("medmaskrcnn", "m", "ab" * 32, "Apache-2.0", "cpu", "fp32", {"score": 0.5})
    return CaseResult(found, 0.5, measure_instances(volume, found), record)


def label(series: Path, path: Path, boxes: Boxes, write: Callable[..., None] = write_rtstruct) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write(result_of(series, boxes), read_volume(series), stream)
    return path


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small CT series of two patients."""
    folders = []
    for seed in (1, 2):
        folder = tmp_path_factory.mktemp("series") / f"P{seed}" / "CT"
        phantom = make_phantom(PhantomSettings(seed=seed, shape=(6, 32, 32), spacing_mm=(40.0, 11.0, 11.0), tumours=0))
        write_dicom_series(phantom, folder)
        folders.append(folder)
    return folders


@pytest.fixture
def archive(series: list[Path], tmp_path: Path) -> Path:
    """Both patients in one archive, without labels as yet."""
    for folder in series:
        target = tmp_path / "archive" / folder.parent.name / "CT"
        target.mkdir(parents=True)
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    return tmp_path / "archive"


def converted(archive: Path, **options) -> Manifest:
    return read_manifest(dicom_dataset(archive, archive.parent / "out", **options))


def filled(manifest: Manifest, number: int = 0) -> dict[str, tuple[slice, ...]]:
    scan = read_case(manifest, manifest.cases[number])
    assert all(one.mask.array.all() for one in scan.objects)
    return {one.class_name: one.mask.window for one in scan.objects}


@pytest.mark.parametrize("write", [write_rtstruct, write_seg])
def test_scan_and_labels_come_back(archive: Path, write: Callable[..., None]) -> None:
    label(archive / "P1/CT", archive / "P1/labels/object.dcm", NESTED, write)
    label(archive / "P2/CT", archive / "objects/of P2.dcm", LIVER, write)
    manifest = converted(archive, splits=SplitRule(test=("P2",)), licence="CC0-1.0")
    assert (manifest.name, manifest.modality, manifest.class_names) == ("archive", "CT", ("liver", "tumour"))
    assert [(c.id, c.patient, c.split) for c in manifest.cases] == [("P1_CT", "P1", "train"), ("P2_CT", "P2", "test")]
    assert filled(manifest) == NESTED and filled(manifest, 1) == LIVER
    assert len(manifest.cases[0].label_maps) == 2  # the tumour lies in the liver
    scan, original = read_case(manifest, manifest.cases[0]).volume, read_volume(archive / "P1/CT")
    assert np.array_equal(scan.array, original.array)
    np.testing.assert_allclose(scan.affine_vox_to_ras, original.affine_vox_to_ras, atol=1e-4)


def test_classes_are_renamed_and_chosen(archive: Path) -> None:
    label(archive / "P1/CT", archive / "a.dcm", NESTED)
    manifest = converted(archive, rename={"liver": "organ"}, classes=("organ",))
    assert manifest.class_names == ("organ",) and filled(manifest) == {"organ": LIVER["liver"]}
    assert set(filled(converted(archive, rename={"liver": ""}))) == {"tumour"}


def test_labels_of_a_series_in_several_files(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    label(archive / "P1/CT", archive / "P1/1.dcm", LIVER)
    other = {"liver": (slice(0, 2), slice(0, 2), slice(0, 2)), "spleen": (slice(3, 5), slice(20, 25), slice(20, 25))}
    label(archive / "P1/CT", archive / "P1/2.dcm", other, write_seg)
    with caplog.at_level(logging.WARNING):
        manifest = converted(archive)
    assert filled(manifest) == {**LIVER, "spleen": other["spleen"]}
    assert "'liver' of" in caplog.text and "was labelled before; left out" in caplog.text


def test_patients_by_name_and_by_pseudonym(archive: Path) -> None:
    for name in ("P1", "P2"):
        label(archive / name / "CT", archive / name / "rs.dcm", LIVER)
    assert [c.patient for c in converted(archive, patient_of=lambda case: case[1]).cases] == ["1", "2"]
    together = archive.parent / "together"
    (together / "all").mkdir(parents=True)
    for name in ("P1", "P2"):
        (archive / name).rename(together / "all" / name)
    manifest = converted(together)
    patients = [case.patient for case in manifest.cases]
    assert len(set(patients)) == 2 and all(p.startswith("patient-") for p in patients)
    assert "SEED" not in (together.parent / "out" / "manifest.json").read_text()


def test_an_outline_of_another_study_is_told(archive: Path, caplog: pytest.LogCaptureFixture) -> None:
    label(archive / "P1/CT", archive / "P1/rs.dcm", LIVER)
    label(archive / "P2/CT", archive / "P2/rs.dcm", LIVER)
    for file in (archive / "P2/CT").iterdir():
        file.unlink()
    with caplog.at_level(logging.WARNING):
        manifest = converted(archive)
    assert [c.id for c in manifest.cases] == ["P1_CT"]
    assert "P2/rs.dcm labels a series that is not in" in caplog.text
    (finding,) = [one for one in check_manifest(manifest, workers=1).findings if "P2/rs.dcm" in one.text]
    assert finding.level == "warning"
    told: list[str] = []
    dicom_dataset(archive, archive.parent / "out", on_event=told.append)
    assert any("P2/rs.dcm" in text for text in told)


def test_an_object_that_names_no_series_is_matched_by_frame_of_reference(archive: Path) -> None:
    path = label(archive / "P2/CT", archive / "rs.dcm", LIVER)
    dataset = pydicom.dcmread(path)
    del dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence
    dataset.save_as(path)
    manifest = converted(archive)
    assert [c.id for c in manifest.cases] == ["P2_CT"] and filled(manifest) == LIVER


class TestErrors:
    def refused(self, archive: Path, said: str, **options) -> None:
        with pytest.raises(ReadError, match=said):
            converted(archive, **options)

    def test_no_labels(self, archive: Path) -> None:
        self.refused(archive, "holds no labelled series: 2 DICOM scans and 0 RTSTRUCT")

    def test_other_modality(self, archive: Path) -> None:
        label(archive / "P1/CT", archive / "rs.dcm", LIVER)
        self.refused(archive, r"no labelled series of the modality MR; there are CT \(1\)", modality="MR")

    def test_a_damaged_slice(self, archive: Path) -> None:
        label(archive / "P1/CT", archive / "rs.dcm", LIVER)
        file = sorted((archive / "P1/CT").iterdir())[2]
        file.write_bytes(file.read_bytes()[:-200])
        self.refused(archive, file.name)


def test_real_patients(medmaskrcnn_data: Path, tmp_path: Path) -> None:
    """Outlines of archived patients, filled, are the masks that came with them."""
    source = medmaskrcnn_data / "dicom"
    with pytest.raises(ReadError, match=r"several kinds: CT \(3\), MR \(3\), PT \(3\)"):
        dicom_dataset(source, tmp_path)
    path = dicom_dataset(source, tmp_path, modality="MR", rename={"GTV_Mass": "sarcoma"})
    manifest = read_manifest(path)
    assert [c.patient for c in manifest.cases] == ["STS_001", "STS_003", "STS_004"]
    assert manifest.class_names == ("sarcoma",)
    for case in manifest.cases:
        ours = np.asanyarray(nibabel.load(manifest.path(case.label_maps[0])).dataobj) > 0
        truth = nibabel.load(source / "truth" / f"{case.patient}_MR_T1_mask.nii.gz")
        aligned = nibabel.as_closest_canonical(nibabel.load(manifest.path(case.label_maps[0])))
        theirs = nibabel.as_closest_canonical(truth)
        assert ours.sum() > 100
        a, b = (np.asanyarray(one.dataobj) > 0 for one in (aligned, theirs))
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.9999
