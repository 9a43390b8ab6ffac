"""However a file stores a scan, the network sees the same tensor and the patient gets the same masks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

STORAGES = list(product(permutations(range(3)), product((False, True), repeat=3)))
SHAPE = (12, 20, 22)
Make = Callable[..., LoadedModel]
Storage = tuple[tuple[int, ...], tuple[bool, ...]]


def stored(array: np.ndarray, how: Storage) -> np.ndarray:
    """``(..., D, H, W)`` kept with its axes in another order and direction."""
    order, flips = how
    lead = array.ndim - 3
    turned = array.transpose(*range(lead), *(lead + axis for axis in order))
    return np.flip(turned, [lead + axis for axis, flip in enumerate(flips) if flip])


def stored_scan(volume: Volume, how: Storage) -> Volume:
    order, flips = how
    affine = volume.affine_vox_to_ras.copy()
    affine[:3, :3] = affine[:3, list(order)]
    array = np.ascontiguousarray(stored(volume.array, how))
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (array.shape[1 + axis] - 1)
            affine[:3, axis] *= -1
    return Volume(array, Grid(array.shape[1:], affine), modality=volume.modality)


def dense_masks(result: CaseResult) -> list[np.ndarray]:
    return [mask.dense(result.candidates.grid.shape) for mask in result.candidates.masks]


def differences(model: LoadedModel, volume: Volume, storages: list[Storage]) -> list[Storage]:
    """The storages whose result, mapped back, is not the result of ``volume`` itself, voxel for voxel."""
    expected = segment(volume, model)
    masks = dense_masks(expected)
    assert len(masks) >= 3 and sum(m.any() for m in masks) >= 3  # there is something to compare
    different = []
    for how in storages:
        scan = stored_scan(volume, how)
        result = segment(scan, model)
        assert result.candidates.grid == scan.grid
        same = (
            np.array_equal(result.candidates.scores, expected.candidates.scores)
            and np.array_equal(result.candidates.labels, expected.candidates.labels)
            and all(map(np.array_equal, dense_masks(result), [stored(mask, how) for mask in masks]))
        )
        if not same:
            different.append(how)
    return different


def scan(make_blobs: Callable[..., Volume], columns: np.ndarray) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = -31.5, 12, 80.25
    return make_blobs(SHAPE, affine)


UPRIGHT = np.array([[0, 0, -1.0], [0, -1.0, 0], [1.0, 0, 0]])
TILT = np.array([[0, 0, -1.0], [0.3, -1.0, 0], [1.0, 0, 0]])
OBLIQUE = Rotation.from_euler("xyz", (14, -33, 9), degrees=True).as_matrix() @ UPRIGHT


@pytest.mark.parametrize("orientation", ["SPL", "acquisition"])
def test_all_48_storages(tiny_model: Make, make_blobs: Callable[..., Volume], orientation: str) -> None:
    preprocess = {"orientation": orientation, "spacing_mm": (3.1, 1.4, 1.3)}  # resampled too
    volume = scan(make_blobs, OBLIQUE @ np.diag([1.1, 0.9, 3.0]))
    assert differences(tiny_model(3, preprocess=preprocess), volume, STORAGES) == []


@pytest.mark.parametrize("orientation", ["SPL", "acquisition"])
@pytest.mark.parametrize(
    "columns",
    [
        pytest.param(UPRIGHT @ np.diag([4, 1, 1.2]), id="anisotropic"),
        pytest.param(TILT @ np.diag([4, 1, 1.0]), id="gantry tilt"),
        pytest.param(Rotation.from_euler("x", 45, degrees=True).as_matrix(), id="45 degrees"),
        pytest.param(np.array([[1.0, 1, 1], [1, -1, 1], [1, 1, -1]]), id="three-way tie"),
    ],
)
def test_some_storages_of_every_kind_of_affine(
    tiny_model: Make, make_blobs: Callable[..., Volume], columns: np.ndarray, orientation: str
) -> None:
    some = STORAGES[5::13]  # 4 of 48; that all 48 give one tensor is tested with prepare
    model = tiny_model(3, preprocess={"orientation": orientation})
    assert differences(model, scan(make_blobs, columns), some) == []


def test_slices_and_context_too(tiny_model: Make, make_blobs: Callable[..., Volume]) -> None:
    model = tiny_model(2, context=1, detections_per_img=2, preprocess={"orientation": "acquisition"})
    assert differences(model, scan(make_blobs, OBLIQUE @ np.diag([3.0, 1, 1.1])), STORAGES[7::20]) == []


def test_without_reorientation_the_masks_differ(tiny_model: Make, make_blobs: Callable[..., Volume]) -> None:
    """The checks above are able to fail."""
    model = tiny_model(3, preprocess={"orientation": "as_stored"})
    some = STORAGES[5::13]
    assert differences(model, scan(make_blobs, UPRIGHT @ np.diag([4, 1, 1.2])), some) == some
