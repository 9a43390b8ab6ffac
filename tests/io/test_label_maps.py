"""Label maps as instances: instance and semantic numbering, turned and foreign grids, refusals."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.errors import ReadError
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.labels.label_grids import paste, same_voxels
from medmaskrcnn.io.labels.read import load_labels, read_labels
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Volume

AFFINE = np.array([[0.1, 0.0, -0.8, 5], [0.0, -1.1, 0.1, 7], [2.5, 0.1, 0.0, -9], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)


def dense(instances, i: int) -> np.ndarray:
    return instances.masks[i].dense(instances.grid.shape)


def write_map(path, values, affine=AFFINE):
    """``(D, H, W)`` values with an affine of D, H, W columns, as NIfTI (which counts x fastest)."""
    nib.save(nib.Nifti1Image(values.T, affine[:, [2, 1, 0, 3]]), path)
    return path


@pytest.fixture
def scan() -> Volume:
    return Volume(np.zeros((1, *SHAPE), np.int16), Grid(SHAPE, AFFINE))


@pytest.fixture
def values() -> np.ndarray:
    values = np.zeros(SHAPE, np.uint8)
    values[1:3, 1:4, 1:3] = 3
    values[2:5, 2:6, 4:6] = 200
    values[0, 0, 6] = 3  # the same number elsewhere: one instance, two parts
    return values


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_an_instance_map(scan, values, tmp_path, dtype):
    found = read_labels(write_map(tmp_path / "l.nii.gz", values.astype(dtype)), scan)
    assert found.class_names == ("label 3", "label 200")
    for i, value in enumerate((3, 200)):
        np.testing.assert_array_equal(dense(found, i), values == value)


def test_a_semantic_map_with_names(scan, values, tmp_path):
    path = write_map(tmp_path / "l.nii.gz", values)
    labels = load_labels(path, scan, names={3: "kidney"}, kind="semantic")
    assert labels.instances.class_names == ("kidney",)
    assert len(labels.instances) == 2
    np.testing.assert_array_equal(dense(labels.instances, 0) | dense(labels.instances, 1), values == 3)
    assert "Value 200 has no class name" in labels.notes[0]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_turned_axes_come_back_exactly(scan, values, tmp_path, order):
    for flips in product((1, -1), repeat=3):
        turned, affine = values.transpose(order), np.eye(4)
        affine[:, :3], affine[:, 3] = AFFINE[:, list(order)], AFFINE[:, 3]
        for axis, flip in enumerate(flips):
            if flip < 0:
                affine[:, 3] += affine[:, axis] * (turned.shape[axis] - 1)
                affine[:, axis] *= -1
        turned = turned[tuple(slice(None, None, f) for f in flips)]
        labels = load_labels(write_map(tmp_path / "l.nii", turned, affine), scan)
        assert labels.notes == ()
        np.testing.assert_array_equal(dense(labels.instances, 0), values == 3)
        np.testing.assert_array_equal(dense(labels.instances, 1), values == 200)


def test_a_crop_finds_its_place(scan, values, tmp_path):
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ [1, 1, 1]
    labels = load_labels(write_map(tmp_path / "l.nii", values[1:, 1:, 1:], affine), scan)
    assert labels.notes == ()
    np.testing.assert_array_equal(dense(labels.instances, 1), values == 200)


def test_a_finer_map_is_taken_over_by_the_nearest_voxel(scan, values, tmp_path):
    fine, affine = values.repeat(3, 0).repeat(3, 1).repeat(3, 2), AFFINE.copy()
    affine[:3, :3] /= 3
    affine[:3, 3] -= affine[:3, :3] @ [1, 1, 1]
    labels = load_labels(write_map(tmp_path / "l.nii", fine, affine), scan)
    np.testing.assert_array_equal(dense(labels.instances, 0), values == 3)
    assert "grid of its own" in labels.notes[0]


def test_an_oblique_grid_agrees_with_every_voxel_looked_up_by_itself():
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    source, target = Grid((9, 10, 11), np.diag([1.5, 1, 1, 1.0])), np.eye(4)
    target[:3, :3], target[:3, 3] = turn @ np.diag([1.1, 1.2, 0.9]), [1.03, -1.07, 2.013]
    goal = Grid((12, 9, 8), target)
    rng = np.random.default_rng(0)
    crop, start = rng.random((5, 6, 7)) < 0.5, (2, 3, 1)
    found = paste(Mask(start, crop), source, goal).dense(goal.shape)
    expected = np.zeros(goal.shape, bool)
    for index in np.ndindex(goal.shape):
        voxel = np.floor(source.ras_to_coordinate(goal.index_to_ras(index))).astype(int) - start
        expected[index] = (voxel >= 0).all() and (voxel < crop.shape).all() and crop[tuple(voxel)]
    np.testing.assert_array_equal(found, expected)
    assert expected.sum() > 50
    assert not same_voxels(source, goal)


def test_pictures_match_by_size(tmp_path):
    Image.fromarray(np.zeros((6, 7), np.uint8)).save(tmp_path / "scan.png")
    labels = np.zeros((6, 7), np.uint16)
    labels[2:4, 1:5] = 700
    Image.fromarray(labels).save(tmp_path / "labels.png")
    found = read_labels(tmp_path / "labels.png", read_volume(tmp_path / "scan.png"))
    assert (found.masks[0].start, found.masks[0].end) == ((0, 2, 1), (1, 4, 5))
    Image.fromarray(labels[:5]).save(tmp_path / "small.png")
    with pytest.raises(ReadError, match="Give a label map of the scan's size"):
        read_labels(tmp_path / "small.png", read_volume(tmp_path / "scan.png"))


def test_a_result_of_ours(scan, values, tmp_path):
    found = read_labels(write_map(tmp_path / "l.nii", values), scan)
    measured = measure_instances(scan, found)
    record = RunRecord("medmaskrcnn", "m", "0", "CC0", "cpu", "fp32")
    save_case(CaseResult(found, 0.5, measured, record), tmp_path / "instances.npz")
    again = read_labels(tmp_path / "instances.npz", scan)
    assert sorted(m.n_voxels for m in again.masks) == sorted(m.n_voxels for m in found.masks)
    elsewhere = Volume(scan.array, Grid(SHAPE, AFFINE + np.eye(4, k=3)))
    with pytest.raises(ReadError, match="Give the scan that it was made from"):
        read_labels(tmp_path / "instances.npz", elsewhere)


def test_refusals_name_the_reason(scan, values, tmp_path):
    with pytest.raises(ReadError, match="holds fractions"):
        read_labels(write_map(tmp_path / "f.nii", values * np.float32(0.3)), scan)
    with pytest.raises(ReadError, match=r"holds the value -200.*Is it a scan"):
        read_labels(write_map(tmp_path / "n.nii", -values.astype(np.int16)), scan)
    with pytest.raises(ReadError, match="has 2 channels"):
        nib.save(nib.Nifti1Image(np.zeros((7, 6, 5, 2), np.uint8), AFFINE), tmp_path / "c.nii")
        read_labels(tmp_path / "c.nii", scan)
    with pytest.raises(ReadError, match="does not exist"):
        read_labels(tmp_path / "nothing", scan)
    with pytest.raises(ValueError, match="kind must be"):
        read_labels(tmp_path / "f.nii", scan, kind="panoptic")


def test_an_empty_map_is_an_empty_result(scan, values, tmp_path):
    found = read_labels(write_map(tmp_path / "l.nii", values * 0), scan)
    assert len(found) == 0
    assert found.class_names == ()
