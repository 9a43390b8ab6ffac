"""What is told of one labelled scan, worked out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.data import case_fingerprint as module
from medmaskrcnn.data.case_fingerprint import PERCENTILES, CaseFingerprint, read_case_fingerprint
from medmaskrcnn.data.manifest import read_manifest

Labelled = Callable[..., Path]


def facts_of(path: Path) -> CaseFingerprint:
    manifest = read_manifest(path)
    return read_case_fingerprint(manifest, manifest.cases[0])


def test_facts_of_the_spheres(labelled: Labelled, tmp_path: Path) -> None:
    facts = facts_of(labelled())
    labels, image = (np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj).T for name in ("labels", "scan"))
    assert (facts.id, facts.patient, facts.split, facts.fold) == ("c1", "p1", "train", None)
    assert facts.shape == (16, 44, 36) and facts.spacing_mm == pytest.approx((3.0, 1.2, 1.5))
    assert (facts.channels, facts.channel_kind, facts.modality, facts.is_planar) == (1, "scalar", "CT", False)
    liver, tumour = facts.objects
    for one, mask in ((liver, labels > 0), (tumour, labels == 2)):
        extent = [int(np.ptp(axis)) + 1 for axis in np.nonzero(mask)]
        assert list(one.extent) == extent and one.voxels == np.count_nonzero(mask)
        assert one.extent_mm == pytest.approx(np.multiply(extent, (3.0, 1.2, 1.5)))
    (everything,), (inside,) = facts.intensities, facts.foreground
    assert everything.percentiles == pytest.approx(np.percentile(image, PERCENTILES))
    assert (everything.mean, everything.std) == pytest.approx((image.mean(), image.std()))
    tumour_twice = np.concatenate([image[labels > 0], image[labels == 2]])
    assert inside.percentiles == pytest.approx(np.percentile(tumour_twice, PERCENTILES))
    assert facts.not_finite == 0 and not facts.absent and not facts.unnamed


def test_percentiles_of_a_large_scan_are_taken_from_some_voxels(
    labelled: Labelled, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = labelled()
    exact = facts_of(path).intensities[0].percentiles
    monkeypatch.setattr(module, "_MOST_VALUES", 5_000)
    sampled = facts_of(path).intensities[0].percentiles
    assert sampled != exact and sampled == pytest.approx(exact, rel=0.05)


def test_what_is_not_finite_is_counted_and_left_out(labelled: Labelled, tmp_path: Path) -> None:
    path = labelled()
    file = nib.load(tmp_path / "scan.nii.gz")
    image = file.get_fdata(dtype=np.float32)
    image[:2] = np.nan
    image[2, 0, 0] = np.inf
    nib.save(nib.Nifti1Image(image, file.affine), tmp_path / "scan.nii.gz")
    facts = facts_of(path)
    assert facts.not_finite == 2 * 44 * 16 + 1
    assert np.isfinite(facts.intensities[0].percentiles).all() and np.isfinite(facts.intensities[0].std)
    nib.save(nib.Nifti1Image(np.full_like(image, np.nan), file.affine), tmp_path / "scan.nii.gz")
    assert facts_of(path).intensities == () and facts_of(path).foreground == ()


def test_a_case_without_objects(labelled: Labelled) -> None:
    case = {"id": "c1", "patient": "p1", "image": "scan.nii.gz", "label": None, "split": None}
    facts = facts_of(labelled(cases=[case]))
    assert facts.objects == () and facts.foreground == () and facts.intensities


def test_fingerprints_tell_whether_images_are_equal(labelled: Labelled, tmp_path: Path) -> None:
    path = labelled()
    first = facts_of(path).content_hash
    file = nib.load(tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(file.get_fdata(dtype=np.float32), file.affine), tmp_path / "copy.nii")
    manifest = json.loads(path.read_text())
    manifest["cases"][0]["image"] = "copy.nii"
    path.write_text(json.dumps(manifest))
    assert facts_of(path).content_hash == first
    changed = file.get_fdata(dtype=np.float32)
    changed[3, 4, 5] += 1
    nib.save(nib.Nifti1Image(changed, file.affine), tmp_path / "copy.nii")
    assert facts_of(path).content_hash != first
