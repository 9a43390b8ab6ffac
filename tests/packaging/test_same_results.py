"""The comparison before and after a change says "same" of the same results, and notices a single bit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def compare(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS, "same-results", "compare", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def write_case(folder: Path) -> Path:
    """What ``make`` leaves of one input, by hand."""
    result = folder / "results" / "scan"
    result.mkdir(parents=True)
    (folder / "made_by.json").write_text("{}")
    (folder / "inputs.json").write_text(json.dumps({"scan": "0123"}))
    header = json.dumps({"record": {"settings": {"link_gap": 1}}}).encode()
    np.savez(result / "instances.npz", header=np.frombuffer(header, np.uint8), scores=np.array([0.5], np.float32))
    nib.save(nib.Nifti1Image(np.ones((2, 3, 4), np.uint16), np.eye(4)), result / "labels.nii.gz")
    (result / "instances.csv").write_text("id,class\n1,liver\n")
    (result / "segmentation.dcm").write_bytes(b"not read where the bytes are the same")
    (result / "run.json").write_text(json.dumps({"run": {"seconds": 1.0}}))
    return folder


def write_arrays(path: Path, **changes: object) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        kept = {name: arrays[name] for name in arrays.files}
    np.savez(path, **{**kept, **changes})


def nudge_score(result: Path) -> None:
    write_arrays(result / "instances.npz", scores=np.nextafter(np.array([0.5], np.float32), np.float32(1)))


def rename_setting(result: Path) -> None:
    header = json.dumps({"record": {"settings": {"max_gap": 1}}}).encode()
    write_arrays(result / "instances.npz", header=np.frombuffer(header, np.uint8))


def change_voxel(result: Path) -> None:
    voxels = np.ones((2, 3, 4), np.uint16)
    voxels[1, 2, 3] = 2
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), result / "labels.nii.gz")


def change_code(result: Path) -> None:
    image = nib.Nifti1Image(np.ones((2, 3, 4), np.uint16), np.eye(4))
    image.set_sform(np.eye(4), 1)
    nib.save(image, result / "labels.nii.gz")


def change_table(result: Path) -> None:
    (result / "instances.csv").write_text("id,class\n1,spleen\n")


def change_segmentation(result: Path) -> None:
    (result / "segmentation.dcm").write_bytes(b"neither can be read")


def lose_table(result: Path) -> None:
    (result / "instances.csv").unlink()


def take_longer(result: Path) -> None:
    (result / "run.json").write_text(json.dumps({"run": {"seconds": 9.0}}))


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (take_longer, 0, "0 note, 0 DIFFERS"),
        (rename_setting, 0, "header.record.settings: renamed: link_gap -> max_gap"),
        (change_code, 0, "NIfTI header sform_code: 2 before, 1 after"),
        (nudge_score, 1, "array scores: 1 of 1 values differ, by 5.96e-08"),
        (change_voxel, 1, "voxels: 1 of 24 values differ"),
        (change_table, 1, "line 2: 1,liver before, 1,spleen after"),
        (change_segmentation, 1, "segmentation.dcm                        DIFFERS"),
        (lose_table, 1, "not there after"),
    ],
)
def test_a_change_of_the_result_counts_and_one_of_its_form_is_told(
    tmp_path: Path, change: Callable[[Path], None], code: int, said: str
) -> None:
    before = write_case(tmp_path / "before")
    after = Path(shutil.copytree(before, tmp_path / "after"))
    change(after / "results" / "scan")
    compared = compare(before, after)
    assert (compared.returncode, said in compared.stdout) == (code, True), compared.stdout + compared.stderr


def test_another_scan_counts_and_so_does_form_where_that_is_asked_for(tmp_path: Path) -> None:
    before = write_case(tmp_path / "before")
    after = Path(shutil.copytree(before, tmp_path / "after"))
    change_code(after / "results" / "scan")
    assert (compare(before, after).returncode, compare(before, after, "--strict").returncode) == (0, 1)
    (before / "inputs.json").write_text(json.dumps({"scan": "4567"}))
    assert "the scan itself is another one" in compare(before, after).stdout
