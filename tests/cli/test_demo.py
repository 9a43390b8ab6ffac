"""The demo: its comparison with the truth in numbers, and the whole way on a small phantom."""

from __future__ import annotations

import numpy as np
import pytest

import medmaskrcnn_datasets.phantom as phantoms
from medmaskrcnn import read_volume
from medmaskrcnn.cli import demo
from medmaskrcnn.cli.truth import FOUND_IOU, match, truth_instances
from medmaskrcnn.structures.grid import Grid

GRID = Grid((1, 4, 10), np.diag([1.0, 1.0, 1.0, 1.0]))
NAMES = ("liver", "tumour")


def blocks(*columns: tuple[str, int, int]):
    """One object per (class, first column, last column + 1) of the uppermost row; they do not overlap."""
    labels = np.zeros(GRID.shape, np.int32)
    for value, (_, start, stop) in enumerate(columns, start=1):
        labels[0, 0, start:stop] = value
    return truth_instances(labels, GRID, [(v, c[0], None) for v, c in enumerate(columns, start=1)], NAMES)


def test_an_object_has_the_voxels_of_its_parts():
    labels = np.zeros(GRID.shape, np.int32)
    labels[0, 1, 2:8] = 1
    labels[0, 1, 4] = 2
    liver, tumour = range(2)
    truth = truth_instances(labels, GRID, [(1, "liver", None), (2, "tumour", 1)], NAMES)
    assert truth.masks[liver].sum() == 6
    assert truth.masks[tumour].sum() == 1
    assert truth.tight_box(liver) == ((0, 1, 2), (1, 2, 8))


def test_overlap_by_pencil():
    (hit,) = match(blocks(("liver", 0, 4)), blocks(("liver", 2, 6)))
    assert (hit.found, hit.iou) == (0, pytest.approx(2 / 6))
    assert hit.iou > FOUND_IOU


def test_too_little_overlap_and_another_class_are_misses():
    assert [m.found for m in match(blocks(("liver", 0, 4)), blocks(("liver", 3, 7)))] == [None]
    assert [m.found for m in match(blocks(("liver", 0, 4)), blocks(("tumour", 0, 4)))] == [None]


def test_one_instance_finds_one_object():
    hits = match(blocks(("tumour", 0, 3), ("tumour", 3, 6)), blocks(("tumour", 0, 5)))
    assert [hit.found for hit in hits] == [0, None]


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
    rows = [line for line in ran.out.splitlines() if line.rstrip().endswith(("ml", "mm3")) and "missed" in line]
    assert all(any(name in row for row in rows) for name in truth - {"liver", "left kidney"})


def test_a_demo_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("mine")
    ran = run("demo", "-o", tmp_path / "file")
    assert ran.code == 1
    assert str(tmp_path / "file") in ran.err
