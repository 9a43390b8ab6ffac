"""``train --check`` with what a data set does not say itself: rules, values to ignore, names, patients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.data.manifest import Manifest, read_manifest

MAP = np.zeros((8, 24, 24), np.uint8)
MAP[1:7, 2:12, 2:12] = 1
MAP[2:5, 4:7, 4:7] = MAP[2:5, 15:20, 15:20] = 2
MAP[7, 0:4, 0:4] = 255


def nnunet(root: Path, *names: str, cases: int = 6) -> Path:
    for sub in ("imagesTr", "labelsTr"):
        (root / sub).mkdir(parents=True)
    for number in range(cases):
        image = np.random.default_rng(number).normal(size=MAP.shape).astype(np.float32)
        nib.save(nib.Nifti1Image(image.T, np.eye(4)), root / "imagesTr" / f"P{number // 2}a{number}_0000.nii.gz")
        nib.save(nib.Nifti1Image(MAP.T, np.eye(4)), root / "labelsTr" / f"P{number // 2}a{number}.nii.gz")
    labels = {"background": 0} | {name: value for value, name in enumerate(names, start=1)}
    (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "labels": labels}))
    return root


def checked(run: Callable, folder: Path, *arguments: object) -> Manifest:
    result = run("train", *arguments, "--check", "-o", folder / "run")
    assert result.code == 0, result.err
    return read_manifest(folder / "run-data/manifest.json")


def counts(manifest: Manifest) -> dict[str, int]:
    found = [i.class_name for case in manifest.cases for i in case.instances]
    return {name: found.count(name) for name in manifest.class_names}


def test_rules_names_and_patients(run: Callable, tmp_path: Path) -> None:
    root = nnunet(tmp_path / "set", "liver", "tumour")
    refused = run("train", root, "--check", "-o", tmp_path / "run")
    assert refused.code == 1 and "label values [255] mean nothing" in refused.err
    options = ("--ignore", 255, "--patient", "^(P[0-9])a")
    manifest = checked(run, tmp_path, root, *options)
    assert counts(manifest) == {"liver": 6, "tumour": 12}
    assert {case.patient for case in manifest.cases} == {"P0", "P1", "P2"}
    assert all([i.class_name for i in case.instances if i.ignore] == [None] for case in manifest.cases)
    whole = ("--rule", "lesion=whole", "--rename", "tumour=lesion", "--within", "lesion=liver")
    assert counts(checked(run, tmp_path, root, *options, *whole)) == {"liver": 6, "lesion": 6}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rule", "tumour=each"), "a rule is components, whole or instances"),
        (("--rule", "whole", "--rule", "components"), "one rule for all other classes"),
        (("--label", "liver=1"), "a label value is a whole number"),
        (("--within", "tumour"), "is no NAME=VALUE"),
    ],
)
def test_options_of_another_form(run: Callable, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = run("train", tmp_path, "--check", "-o", tmp_path / "run", *arguments)
    assert result.code == 2 and said in " ".join(result.err.replace("│", " ").split())


def test_several_sets_and_a_manifest_that_is_settled(run: Callable, tmp_path: Path) -> None:
    one, other = nnunet(tmp_path / "one", "liver", "tumour"), nnunet(tmp_path / "other", "spleen", "metastasis")
    arguments = (one, other, "--ignore", 255, "--rule", "metastasis=whole", "--rename", "metastasis=tumour")
    manifest = checked(run, tmp_path, *arguments)
    assert counts(manifest) == {"liver": 6, "tumour": 12 + 6, "spleen": 6}
    assert {case.annotated for case in manifest.cases} == {("liver", "tumour"), ("tumour", "spleen")}
    assert len({case.id for case in manifest.cases}) == 12
    settled = run("train", tmp_path / "run-data/manifest.json", "--check", "--ignore", 255, "-o", tmp_path / "again")
    assert settled.code == 2 and "whose objects are settled" in " ".join(settled.err.replace("│", " ").split())
