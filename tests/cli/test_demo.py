"""The demo: the whole way on a small phantom, with its comparison with the truth."""

from __future__ import annotations

import numpy as np

import medmaskrcnn_datasets.phantom as phantoms
from medmaskrcnn import read_volume
from medmaskrcnn.cli import demo


def small_phantom(settings: phantoms.PhantomSettings) -> phantoms.Phantom:
    small = phantoms.PhantomSettings(seed=settings.seed, shape=(6, 48, 48), spacing_mm=(40.0, 8.0, 8.0), tumours=1)
    return REAL_PHANTOM(small)


REAL_PHANTOM = phantoms.make_phantom


def test_the_whole_way(run, save_tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(phantoms, "make_phantom", small_phantom)
    model = save_tiny(tmp_path / "m.safetensors", modality="CT", domain="medmaskrcnn phantom")
    monkeypatch.setattr(demo, "MODEL", str(model))
    for _ in range(2):  # a second demo replaces the first
        ran = run("demo", "-o", tmp_path / "demo", "--seed", 5)
        assert ran.code == 0, ran.err
    folder = tmp_path / "demo" / "phantom-5"
    assert read_volume(folder / "ct").grid.shape == (6, 48, 48)
    np.testing.assert_allclose(
        read_volume(folder / "truth.nii.gz").affine_vox_to_ras, read_volume(folder / "ct").affine_vox_to_ras, atol=1e-3
    )
    assert (folder / "result" / "preview.png").is_file()
    truth = {i.class_name for i in small_phantom(phantoms.PhantomSettings(seed=5)).instances}
    rows = [line for line in ran.out.splitlines() if line.rstrip().endswith(("mL", "mm³")) and "missed" in line]
    assert all(any(name in row for row in rows) for name in truth - {"liver", "left kidney"})


def test_a_demo_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    ran = run("demo", "-o", tmp_path / "file")
    assert ran.code == 1
    assert str(tmp_path / "file") in ran.err
