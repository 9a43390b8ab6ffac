"""The check before training: everything that is wrong is told at once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.cli.check_table import print_report
from medmaskrcnn.data.check import ClassRow, ManifestReport, SplitRow, check_manifest
from medmaskrcnn.data.manifest import Manifest, ManifestCase, read_manifest
from medmaskrcnn.errors import ReadError

SHAPE = (4, 8, 8)


class Folder:
    """Cases written one by one."""

    def __init__(self, path: Path) -> None:
        self.path, self.cases = path, []

    def add(self, name: str, *, seed: int | None = None, values: dict[int, int] | None = None, **case: Any) -> None:
        """A case whose label map holds so many voxels of each value (default: 40 of value 1)."""
        seed = len(self.cases) if seed is None else seed
        image = case.pop("array", np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32))
        label = np.zeros(image.shape[-3:], np.uint8)
        flat, at = label.ravel(), 0
        for value, count in ({1: 40} if values is None else values).items():
            flat[at : at + count] = value
            at += count
        for kind, array in (("image", image), ("label", label)):
            nib.save(
                nib.Nifti1Image(np.moveaxis(array, -3, -1), np.diag([1, 1, 2.5, 1])), self.path / f"{name}_{kind}.nii"
            )
        files = {"image": f"{name}_image.nii", "label": f"{name}_label.nii"}
        instances = ({"value": 1, "class": "organ"},)
        self.cases.append(
            ManifestCase.model_validate({"id": name, "patient": name, "instances": instances, **files, **case})
        )

    def check(self, **options: Any) -> ManifestReport:
        manifest = Manifest(
            name="set", modality="MR", class_names=("organ", "tumour"), cases=tuple(self.cases), folder=str(self.path)
        )
        return check_manifest(manifest, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def told(report: ManifestReport, level: str) -> list[str]:
    return [f.text for f in report.findings if f.level == level and "no case" not in f.text]


def test_nothing_wrong(folder: Folder) -> None:
    folder.add("a", split="train")
    folder.add("b", split="test", values={1: 50})
    report = folder.check()
    assert told(report, "error") == told(report, "warning") == told(report, "note") == []
    report.raise_if_bad()
    organ, tumour = report.class_rows()
    assert organ == ClassRow("organ", 2, 2, (8.0, 8.0, 8.0), "mm") and tumour.objects == 0 and tumour.sizes is None
    assert report.split_rows() == (SplitRow("train", 1, 1, 1, 0), SplitRow("test", 1, 1, 1, 0))
    assert [f.text for f in report.findings] == [
        "no case for training holds an object of the class tumour",
        "no case is for validation: none has the split val, none a fold",
    ]
    folder.add("c", split="val")
    assert all("validation" not in f.text for f in folder.check().findings)


def test_every_bad_case_is_listed_in_one_error(folder: Folder) -> None:
    folder.add("good")
    folder.add("gone", image="nowhere.nii")
    folder.add("cut")
    path = folder.path / "cut_image.nii"
    path.write_bytes(path.read_bytes()[:-100])
    folder.add("grid", label="good_wide.nii")
    nib.save(nib.Nifti1Image(np.zeros((9, 8, 4), np.uint8), np.eye(4)), folder.path / "good_wide.nii")
    folder.add("blank", array=np.full(SHAPE, np.nan, np.float32))
    folder.add("stranger", values={7: 30})
    folder.add("twin 1", patient="twin", split="train")
    folder.add("twin 2", patient="twin", split="val")
    report = folder.check()
    assert [f.case for f in report.errors] == ["gone", "cut", "grid", "blank", "stranger", None]
    with pytest.raises(ReadError) as caught:
        report.raise_if_bad()
    said = str(caught.value)
    assert "6 errors in 5 of 8 cases" in said
    for words in (
        r"case gone: .*nowhere\.nii",
        r"case cut: .*cut_image\.nii",
        r"case grid: the label map good_wide\.nii does not lie on the grid",
        r"case blank: no voxel of the image is a finite number",
        r"case stranger: none of its 1 instances has a voxel, but the label map holds value 7",
        r"patient twin lies in 2 splits \(train: twin 1; val: twin 2\)",
    ):
        assert re.search(words, said), words
    assert [fact.id for fact in report.case_fingerprints] == ["good", "blank", "stranger", "twin 1", "twin 2"]


def test_what_to_look_at(folder: Folder) -> None:
    instances = [{"value": v, "class": c} for v, c in ((1, "organ"), (2, "tumour"), (3, "tumour"), (5, "tumour"))]
    folder.add("a", values={1: 40, 2: 3, 3: 4, 9: 10, 12: 1}, instances=instances)
    array = np.ones(SHAPE, np.float32)
    array[0, 0, :3] = np.inf, -np.inf, np.nan
    folder.add("b", array=array)
    folder.add("c", values={}, label=None, instances=())
    report = folder.check()
    assert told(report, "warning") == [
        "case a: instances without a voxel: value 5; they are left out",
        "case a: the label map holds values 9, 12, which no instance names; background",
        "case a: objects of fewer than 5 voxels: tumour (2). Slips of the pen?",
        "case b: 3 voxels NaN or infinite in the image; filled by preprocessing",
    ]
    assert told(report, "note") == ["no object, which is fine, in 1 case: c"]
    report.raise_if_bad()


def test_cases_that_differ(folder: Folder) -> None:
    folder.add("volume")
    folder.add("two", image=["volume_image.nii", "volume_image.nii"], label="volume_label.nii")
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder.path / "flat.png")
    folder.add("flat", image="flat.png", label=None, instances=())
    report = folder.check()
    assert told(report, "error") == [
        "the cases differ in channels: 1 channel in 2 (volume, flat); 2 channels in 1 (two)",
        "some cases do not tell their spacing: spacing known in 2 (volume, two); spacing unknown in 1 (flat). "
        "Give all a spacing or none",
    ]
    assert told(report, "warning") == [
        "2D and 3D are mixed: single slices in 1 (flat); volumes in 2 (volume, two). Only a 2D model learns from both"
    ]


def test_leaks(folder: Folder) -> None:
    for name, split, fold, seed in (("a", "train", 0, 1), ("b", "test", None, 1), ("c", "train", 1, 2)):
        folder.add(name, split=split, fold=fold, seed=seed, patient="p" if name != "b" else "q")
    report = folder.check()
    assert told(report, "error") == ["patient p lies in 2 folds (0: a; 1: c)"]
    assert told(report, "warning") == ["the same image lies in several splits (test, train): a, b"]


def test_nothing_to_train_on(folder: Folder) -> None:
    folder.add("a", split="test")
    with pytest.raises(ReadError, match="no case is for training"):
        folder.check().raise_if_bad()


@pytest.mark.slow
def test_processes_find_the_same(folder: Folder) -> None:
    for number in range(5):
        folder.add(f"case {number}", **({"image": "nowhere.nii"} if number == 3 else {}))
    seen: list[tuple[int, int]] = []
    together, alone = folder.check(workers=2, progress=lambda *at: seen.append(at)), folder.check(workers=1)
    assert together == alone and len(together.case_fingerprints) == 4
    assert seen == [(n, 5) for n in range(1, 6)]


def test_report_for_people(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.add("a", split="train")
    for number in range(25):
        folder.add(f"bad {number}", image="nowhere.nii")
        folder.add(f"odd {number}", values={1: 2})
    print_report(folder.check(workers=1))
    out, err = capsys.readouterr()
    assert "set: 51 cases, 26 of them readable" in out
    assert re.search(r"organ +26 +26 +2.5 mm +2.5 mm +8 mm", out) and re.search(r"train +1 +1 +1 +0", out)
    assert err.count("error:") == 25 and "7 further warnings and notes are not shown" in err


def test_real_data_are_fine(medmaskrcnn_data: Path, tmp_path: Path) -> None:
    from medmaskrcnn_datasets.msd import msd_dataset

    manifest = read_manifest(msd_dataset(medmaskrcnn_data / "AbdomenMR", tmp_path))
    report = check_manifest(manifest.model_copy(update={"cases": manifest.cases[:4]}), workers=1)
    report.raise_if_bad()
    liver = report.class_rows()[0]
    assert (liver.objects, liver.unit) == (4, "mm") and liver.sizes[0] > 150
    assert {fact.modality for fact in report.case_fingerprints} == {"MR"}
