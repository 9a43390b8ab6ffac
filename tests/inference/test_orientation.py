"""Axes: named scans by hand, AxisMap against plain loops, and a choice that depends on the patient alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medmaskrcnn.inference.orientation import choose_axes
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid

STORAGES = list(product(permutations(range(3)), product((False, True), repeat=3)))
R, A, S = np.eye(3)


def grid_of(d: np.ndarray, h: np.ndarray, w: np.ndarray, shape: tuple[int, int, int] = (4, 5, 6)) -> Grid:
    """A grid whose axes D, H, W step by these vectors (R, A, S in mm)."""
    affine = np.eye(4)
    affine[:3, :3] = np.stack([d, h, w], axis=1)
    return Grid(shape, affine)


def stored_grid(grid: Grid, order: tuple[int, ...], flips: tuple[bool, ...]) -> Grid:
    """The same voxels in a file that keeps them in another order."""
    affine = np.eye(4)
    affine[:3, 3] = grid.affine_vox_to_ras[:3, 3]
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        column = grid.affine_vox_to_ras[:3, old]
        affine[:3, new] = -column if flip else column
        if flip:
            affine[:3, 3] += column * (grid.shape[old] - 1)
    return Grid(tuple(grid.shape[o] for o in order), affine)


def directions(grid: Grid, axes: AxisMap) -> np.ndarray:
    """Steps of the network's D, H, W in the patient (rows), mm."""
    columns = grid.affine_vox_to_ras[:3, list(axes.order)].T
    return np.where(np.array(axes.flips)[:, None], -columns, columns)


@pytest.mark.parametrize(
    ("d", "h", "w", "orientation", "expected"),
    [
        pytest.param(5 * S, -A, -R, "SPL", [5 * S, -A, -R], id="axial DICOM, feet first: nothing to do"),
        pytest.param(5 * S, A, R, "SPL", [5 * S, -A, -R], id="axial NIfTI in RAS storage"),
        pytest.param(5 * S, -A, R, "SPL", [5 * S, -A, -R], id="axial NIfTI, rows to the back already"),
        pytest.param(-5 * S, -A, -R, "SPL", [5 * S, -A, -R], id="axial DICOM, head first"),
        pytest.param(4 * R, -S, -A, "SPL", [S, -A, -4 * R], id="sagittal in SPL: slices along S again"),
        pytest.param(4 * R, -S, -A, "acquisition", [-4 * R, S, -A], id="sagittal keeps its slices"),
        pytest.param(4 * A, -S, -R, "SPL", [S, -4 * A, -R], id="coronal in SPL"),
        pytest.param(4 * A, -S, -R, "acquisition", [-4 * A, S, -R], id="coronal keeps its slices"),
        pytest.param(5 * S, A, R, "acquisition", [5 * S, -A, -R], id="axial: both agree"),
        pytest.param(R, A, S, "acquisition", [S, -A, -R], id="isotropic: a tie, S comes first"),
        pytest.param(2 * R, 2 * A, S, "acquisition", [-2 * A, S, -2 * R], id="A and R tie: A comes first"),
        pytest.param(R, A, 1.0005 * S, "as_stored", [R, A, 1.0005 * S], id="a photograph stays"),
        pytest.param(1.0005 * R, A, S, "acquisition", [S, -A, -1.0005 * R], id="thicker by rounding only: a tie"),
    ],
)
def test_named_scans(d: np.ndarray, h: np.ndarray, w: np.ndarray, orientation: str, expected: list[np.ndarray]) -> None:
    grid = grid_of(d, h, w)
    np.testing.assert_array_equal(directions(grid, choose_axes(grid, orientation)), np.stack(expected))


def test_gantry_tilt_keeps_the_slices_up() -> None:
    grid = grid_of(4 * S - 1.5 * A, -A, -R)
    assert choose_axes(grid, "SPL") == AxisMap((0, 1, 2), (False, False, False))


def tie_affines() -> dict[str, np.ndarray]:
    """Steps of D, H, W as columns; each ties in the choice of axes."""

    def turned(axis: str, degrees: float, spacing: tuple[float, float, float]) -> np.ndarray:
        return Rotation.from_euler(axis, degrees, degrees=True).as_matrix() @ np.diag(spacing)

    return {
        "45 degrees about R": turned("x", 45, (0.8, 1.0, 3.0)),
        "45 degrees about A": turned("y", 45, (0.8, 1.0, 3.0)),
        "45 degrees about S": turned("z", -45, (1.0, 1.0, 1.0)),
        "135 degrees about R": turned("x", 135, (2.0, 2.0, 2.0)),
        "60 degrees about (1, 1, 1): two cyclic orders tie": Rotation.from_rotvec(
            np.pi / 3 * np.ones(3) / np.sqrt(3)
        ).as_matrix(),
        "sheared so that all six orders tie": np.array([[1.0, 1, 1], [1, -1, 1], [1, 1, -1]]),
    }


@pytest.mark.parametrize("name", tie_affines())
@pytest.mark.parametrize("orientation", ["SPL", "acquisition"])
def test_ties_are_broken_in_the_patient(name: str, orientation: str) -> None:
    """However the file keeps the axes, the same directions come first, second and third."""
    columns = tie_affines()[name]
    grid = grid_of(*columns.T)
    expected = directions(grid, choose_axes(grid, orientation))
    for order, flips in STORAGES:
        other = stored_grid(grid, order, flips)
        np.testing.assert_array_equal(directions(other, choose_axes(other, orientation)), expected)


@pytest.mark.parametrize("name", tie_affines())
def test_ties_are_ties_within_the_rounding_of_a_file(name: str) -> None:
    """A NIfTI affine is float32, and a quaternion is rounded otherwise for every storage."""
    columns = tie_affines()[name]
    grid = grid_of(*columns.T)
    expected = directions(grid, choose_axes(grid, "SPL"))
    rng = np.random.default_rng(0)
    for order, flips in STORAGES:
        exact = stored_grid(grid, order, flips).affine_vox_to_ras
        rounded = exact.copy()
        rounded[:3, :3] *= 1 + rng.uniform(-3e-7, 3e-7, (3, 3))
        other = Grid(grid.shape, rounded)
        np.testing.assert_allclose(directions(other, choose_axes(other, "SPL")), expected, atol=2e-6)


def test_an_oblique_scan_uses_every_axis_once() -> None:
    for seed in range(50):
        columns = np.random.default_rng(seed).normal(size=(3, 3))
        if abs(np.linalg.det(columns / np.linalg.norm(columns, axis=0))) < 0.05:
            continue
        assert sorted(choose_axes(grid_of(*columns.T), "SPL").order) == [0, 1, 2]


axis_maps = st.builds(AxisMap, st.permutations(range(3)).map(tuple), st.tuples(*[st.booleans()] * 3))
shapes = st.tuples(*[st.integers(1, 5)] * 3)


def indices(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*(range(n) for n in shape))


@given(axis_maps, shapes)
def test_apply_moves_each_voxel_to_its_place(axes: AxisMap, shape: tuple[int, int, int]) -> None:
    array = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    turned = axes.apply(array)
    assert turned.shape == (2, *(shape[o] for o in axes.order))
    for at in indices(turned.shape[1:]):
        source = [0, 0, 0]
        for axis in range(3):
            n = turned.shape[1 + axis]
            source[axes.order[axis]] = n - 1 - at[axis] if axes.flips[axis] else at[axis]
        assert (turned[(slice(None), *at)] == array[(slice(None), *source)]).all()


@given(axis_maps, shapes)
def test_undo_takes_back_what_apply_did(axes: AxisMap, shape: tuple[int, int, int]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(axes.undo(axes.apply(array)), array)
    turned = array.reshape([shape[o] for o in axes.order])
    np.testing.assert_array_equal(axes.apply(axes.undo(turned)), turned)


@given(axis_maps, shapes, st.data())
def test_boxes_come_back_with_their_voxels(axes: AxisMap, shape: tuple[int, int, int], data: st.DataObject) -> None:
    """Paint a box into the scan, find it in the turned scan, and bring it back."""
    low = [data.draw(st.integers(0, n - 1)) for n in shape]
    high = [data.draw(st.integers(a + 1, n)) for a, n in zip(low, shape, strict=True)]
    painted = np.zeros(shape, bool)
    painted[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    turned = axes.apply(painted)
    hits = np.argwhere(turned)
    box = np.concatenate([hits.min(axis=0), hits.max(axis=0) + 1])[None]
    np.testing.assert_array_equal(axes.undo_boxes(box, turned.shape), [[*low, *high]])


def test_boxes_with_fractions_and_none_at_all() -> None:
    axes = AxisMap((2, 0, 1), (True, False, False))
    boxes = np.array([[1.25, 2.0, 3.0, 4.0, 5.5, 6.0]], dtype=np.float32)
    before = boxes.copy()
    # network axes are W reversed, D, H; W has 10 voxels: 10 - 4 = 6 and 10 - 1.25 = 8.75
    np.testing.assert_array_equal(axes.undo_boxes(boxes, (10, 8, 9)), [[2.0, 3.0, 6.0, 5.5, 6.0, 8.75]])
    np.testing.assert_array_equal(boxes, before)
    assert axes.undo_boxes(np.zeros((0, 6), np.float32), (10, 8, 9)).shape == (0, 6)
