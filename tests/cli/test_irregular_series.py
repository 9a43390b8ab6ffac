"""A series with a gap: refused with the way out, resampled only when asked, and then the result says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medmaskrcnn.io.read import read_volume


@pytest.fixture
def gapped(ct_series, tmp_path):
    """The phantom's six slices without the third, in the order in which they lie."""
    folder = tmp_path / "gapped"
    shutil.copytree(ct_series, folder)
    name = Path(read_volume(ct_series).provenance.files[2]).name
    (folder / name).unlink()
    return folder


def test_a_gap_is_refused_with_the_way_out(run, gapped, tiny_model, tmp_path):
    ran = run("segment", gapped, "-o", tmp_path / "out", "--model", tiny_model)
    assert ran.code == 1
    assert "1 slice is missing" in ran.err
    assert "--resample-irregular" in ran.err
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_gap_is_filled_when_asked_and_told(run, gapped, tiny_model, tmp_path):
    out = tmp_path / "out"
    asked = ("--resample-irregular", "--format", "nifti,json", "--allow-out-of-domain")  # the model is for MR
    ran = run("segment", gapped, "-o", out, "--model", tiny_model, *asked)
    assert ran.code == 0, ran.err
    source = json.loads((out / "result.json").read_text())["source"]
    assert source["reading"]["resampled"] is True
    assert any("resampled to 6 even ones" in note for note in source["notes"])
    labels = nib.load(out / "labels.nii.gz")
    assert labels.shape == (48, 48, 6)
    assert np.linalg.norm(labels.affine[:3, 2]) == pytest.approx(40.0, abs=1e-3)
