"""Results that 0.1.0 wrote are read; those of today keep the contract of then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from jsonschema import validate
from typer.testing import Result

import medmaskrcnn
from medmaskrcnn.settings.migration import to_first_names

CommandLine = Callable[..., Result]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def package_file(name: str) -> Path:
    """A file of the package, in whatever folder it lies now."""
    (found,) = Path(str(medmaskrcnn.__file__)).parent.rglob(name)
    return found


def test_instances_of_0_1_0_are_read(made: Path) -> None:
    """Overlaps stay whole; a person's decisions outrank scores; what was dropped is still there."""
    result = medmaskrcnn.load_case(made / "reviewed.npz")
    assert len(result.candidates) == 7 and len(result.measurements) == 7
    assert result.kept == [0, 5, 1, 4]  # by class, then score: 1 liver of its own threshold, 1 tumour taken in, 1 out
    review = result.review
    assert review is not None
    assert (review.accepted, review.rejected, review.changed) == ((4,), (2,), (1, 4))
    assert review.class_thresholds == {"liver": 0.35}
    liver, tumour = (result.candidates.masks[i] for i in (0, 1))
    assert liver.array.shape == (6, 14, 12) and liver.n_voxels == 6 * 14 * 12 - 5 - 9 and tumour.array.all()
    assert result.record.out_of_domain and result.record.warnings == ("A warning.",)


def test_instances_of_0_1_0_are_written_without_a_change(made: Path, tmp_path: Path) -> None:
    medmaskrcnn.save_case(medmaskrcnn.load_case(made / "reviewed.npz"), tmp_path / "again.npz")
    with (
        np.load(made / "reviewed.npz", allow_pickle=False) as old,
        np.load(tmp_path / "again.npz", allow_pickle=False) as new,
    ):
        assert new.files == old.files
        for name in old.files:
            assert (new[name].dtype, new[name].tobytes()) == (old[name].dtype, old[name].tobytes()), name


@pytest.mark.parametrize("suffix", [".csv", ".nii.gz"])
def test_instances_of_0_1_0_are_exported_as_then(
    made: Path, tmp_path: Path, command_line: CommandLine, suffix: str
) -> None:
    command_line("convert", made / "reviewed.npz", tmp_path / f"reviewed{suffix}")
    new, old = tmp_path / f"reviewed{suffix}", made / f"reviewed{suffix}"
    if suffix == ".csv":
        assert new.read_bytes() == old.read_bytes()
        return
    images = [nib.nifti1.load(path) for path in (new, old)]
    np.testing.assert_array_equal(*(np.asanyarray(image.dataobj) for image in images))
    np.testing.assert_array_equal(*(image.affine for image in images))
    assert np.unique(np.asanyarray(images[1].dataobj)).tolist() == [0, 1, 2, 3, 4]


def test_result_json_of_0_1_0_fits_the_schema_of_today(made: Path) -> None:
    validate(read_json(made / "result.json"), read_json(package_file("result.schema.json")))


def test_result_json_of_today_fits_the_schema_of_0_1_0(made: Path, tmp_path: Path, command_line: CommandLine) -> None:
    """And says the same: every field of then is there, texts and whole numbers unchanged, others up to rounding."""
    model = made / "models" / "volume.safetensors"
    scan = made / "scan" / "scan.nii.gz"
    command_line(
        *("segment", scan, "--model", model, "-o", tmp_path / "out", "--format", "json"),
        *("--device", "cpu", "--precision", "fp32", "--quiet"),
    )
    new, old = read_json(tmp_path / "out" / "result.json"), read_json(made / "result.json")
    validate(new, read_json(made / "result.schema.json"))
    assert old["instances"], "else the test proves nothing"
    assert new["software"].startswith("medmaskrcnn ")
    new["settings"] = to_first_names(new["settings"])  # the names of format 1: only they differ
    judged = {"warnings", "out_of_domain"}  # a model for CT says today that this scan holds no Hounsfield units
    for name in old.keys() - {"software", *judged}:
        assert_alike(new[name], old[name], name)


def assert_alike(new: Any, old: Any, where: str) -> None:
    if isinstance(old, dict):
        assert new.keys() >= old.keys(), where
        for key in old:
            assert_alike(new[key], old[key], f"{where}.{key}")
    elif isinstance(old, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(new, old, strict=True)):
            assert_alike(one, other, f"{where}[{number}]")
    elif isinstance(old, float):
        assert new == pytest.approx(old, rel=2e-2, abs=0.05), where
    elif where.endswith("n_voxels"):
        assert new == pytest.approx(old, rel=2e-2), where
    else:
        assert new == old, where
