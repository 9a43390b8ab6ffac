"""What axial means, for every way a file may store a scan."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.planes import axial_axis, plane_view, world_axes

ALL_48 = [(axes, signs) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]


def grid_of(axes: tuple[int, ...], signs: tuple[int, ...], degrees: float = 0.0) -> Grid:
    """World axis ``axes[k]``, in direction ``signs[k]``, is what array axis k runs along; turned about R and S."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * signs * [4.0, 1.0, 0.5]
    a = np.deg2rad(degrees)
    about_r = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_s = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    affine[:3, :3] = about_s @ about_r @ affine[:3, :3]
    return Grid((5, 6, 7), affine)


@pytest.mark.parametrize("degrees", [0.0, 10.0, 25.0])
@pytest.mark.parametrize(("axes", "signs"), ALL_48)
def test_world_axes_are_found(axes: tuple[int, ...], signs: tuple[int, ...], degrees: float) -> None:
    grid = grid_of(axes, signs, degrees)
    assert world_axes(grid) == tuple(axes.index(world) for world in range(3))
    assert axial_axis(grid) == axes.index(2)


@pytest.mark.parametrize(("axes", "signs"), ALL_48)
def test_pictures_run_as_a_radiologist_expects(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    """A step across the picture leads to the patient's left (or back), a step down to the back (or the feet)."""
    grid = grid_of(axes, signs)
    for axis, kind, across, down in (
        (axes.index(2), "axial", [-1, 0, 0], [0, -1, 0]),
        (axes.index(1), "coronal", [-1, 0, 0], [0, 0, -1]),
        (axes.index(0), "sagittal", [0, -1, 0], [0, 0, -1]),
    ):
        view = plane_view(grid, axis)
        assert view.kind == kind and view.axis == axis
        steps = grid.affine_vox_to_ras[:3, :3] / grid.voxel_size
        assert (steps[:, view.column_axis] * (-1 if view.flip_columns else 1)).tolist() == across
        assert (steps[:, view.row_axis] * (-1 if view.flip_rows else 1)).tolist() == down


def test_edges_name_the_directions() -> None:
    grid = grid_of((2, 1, 0), (1, -1, -1))
    assert [plane_view(grid, axis).edges for axis in range(3)] == [
        ("R", "L", "A", "P"),
        ("R", "L", "S", "I"),
        ("A", "P", "S", "I"),
    ]


def test_pictures_of_unknown_size_are_shown_as_stored() -> None:
    view = plane_view(pixel_grid((1, 5, 6)), 0)
    assert (view.row_axis, view.column_axis, view.flip_rows, view.flip_columns) == (1, 2, False, False)


@pytest.mark.parametrize("seed", range(20))
def test_axial_planes_are_called_axial_at_any_angle(seed: int) -> None:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = q
    grid = Grid((5, 6, 7), affine)
    assert sorted(world_axes(grid)) == [0, 1, 2]
    assert axial_axis(grid) == np.abs(q[2]).argmax()
    assert plane_view(grid, axial_axis(grid)).kind == "axial"


def test_a_single_slice_is_its_own_plane() -> None:
    sagittal = Grid((1, 6, 7), grid_of((0, 2, 1), (1, -1, -1)).affine_vox_to_ras)
    assert axial_axis(sagittal) == 0
    assert plane_view(sagittal, 0).kind == "sagittal"


@pytest.mark.parametrize("about", [0, 1, 2])
def test_ties_do_not_depend_on_storage(about: int) -> None:
    """Turned by 45 degrees about a world axis: each of the 48 ways to store the scan finds the same directions."""
    first, second = (k for k in range(3) if k != about)
    turned = np.eye(3)
    turned[[first, first, second, second], [first, second, first, second]] = np.sqrt(0.5) * np.array([1, -1, 1, 1])
    found = set()
    for axes, signs in ALL_48:
        affine = np.eye(4)
        affine[:3, :3] = turned[:, list(axes)] * signs
        grid = Grid((5, 6, 7), affine)
        chosen = (*world_axes(grid), axial_axis(grid))
        # which of the turned body's axes, whatever the file's order
        found.add(tuple(axes[axis] for axis in chosen))
    assert len(found) == 1


def test_ties_do_not_depend_on_the_last_digit() -> None:
    """Turned by 45 degrees two axes are equally close: noise of 1e-12 must not choose between them."""
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0, 1], [0.5, -0.5, 0], [0.5, 0.5, 0]]
    chosen = set()
    for noise in (-1e-12, 0.0, 1e-12):
        turned = affine.copy()
        turned[2, 0] += noise
        grid = Grid((5, 6, 7), turned)
        chosen.add((axial_axis(grid), world_axes(grid)))
    assert len(chosen) == 1
