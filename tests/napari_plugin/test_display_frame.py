"""Where a scan's voxels come to lie in napari's world: I, P, L in mm."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from medmaskrcnn.structures.grid import Grid, pixel_grid
from napari_medmaskrcnn.layers.display_frame import IPL_FROM_RAS, display_frame

EXACT_MM = 1e-9
"""An orthogonal scan is only permuted, flipped and moved: no more than rounding may differ."""

SPACING_MM = (5.0, 0.8, 0.7)

ORIENTATIONS = [(axes, signs) for axes in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)]


def orthogonal_grid(axes: tuple[int, ...], signs: tuple[float, ...], shape: tuple[int, int, int] = (3, 4, 6)) -> Grid:
    """Stored axis i runs along R, A, S axis ``axes[i]``, against it where the sign is negative."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for stored, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, stored] = sign * SPACING_MM[stored]
    affine[:3, 3] = (11.0, -7.0, 30.0)
    return Grid(shape, affine)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_every_voxel_of_an_orthogonal_scan_lies_at_its_exact_place(axes, signs):
    grid = orthogonal_grid(axes, signs)
    frame = display_frame(grid)
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    ras = grid.index_to_ras(index)
    shown = frame.to_display(ras)
    at = np.stack(np.meshgrid(*map(np.arange, frame.shape), indexing="ij"), axis=-1) * frame.scale + frame.translate
    np.testing.assert_allclose(at, shown @ IPL_FROM_RAS[:3, :3].T, atol=EXACT_MM)
    assert min(frame.scale) > 0


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::7])
def test_the_way_back_gives_the_stored_array_without_a_copy(axes, signs):
    grid = orthogonal_grid(axes, signs)
    stored = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    shown = display_frame(grid).to_display(stored)
    assert np.shares_memory(shown, stored)
    np.testing.assert_array_equal(display_frame(grid).to_stored(shown), stored)


def test_axial_slices_stored_feet_to_head_by_pencil():
    # D runs up (S), H to the back (P), W to the left (L): only the slices are turned round.
    frame = display_frame(orthogonal_grid((2, 1, 0), (1.0, -1.0, -1.0)))
    assert frame.axes == (0, 1, 2)
    assert frame.flipped == (True, False, False)
    assert frame.scale == (5.0, 0.8, 0.7)
    # I of the uppermost slice: -(30 + 2 * 5); P: -(-7); L: -11
    assert frame.translate == pytest.approx((-40.0, 7.0, -11.0))
    assert frame.unit == "mm"


def test_coordinates_follow_the_voxels():
    # One voxel (0, 1, 2) covers [0, 1) x [1, 2) x [2, 3); turned round it is slice 2 of 3, which covers [2, 3).
    frame = display_frame(orthogonal_grid((2, 1, 0), (1.0, -1.0, -1.0)))
    corners = frame.coordinate_to_display([[0, 1, 2], [1, 2, 3]])
    np.testing.assert_allclose(corners, [[2.5, 0.5, 1.5], [1.5, 1.5, 2.5]])


@pytest.mark.parametrize("degrees", [3.0, 20.0, 40.0])
def test_an_oblique_scan_is_shown_straight_about_its_own_centre(degrees):
    turn = np.radians(degrees)
    rotation = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    straight = orthogonal_grid((2, 1, 0), (1.0, -1.0, -1.0))
    affine = straight.affine_vox_to_ras.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    grid = Grid(straight.shape, affine)
    frame = display_frame(grid)
    assert frame.axes == (0, 1, 2)
    assert frame.scale == pytest.approx((5.0, 0.8, 0.7))
    centre = (np.array(grid.shape) - 1) / 2
    shown = centre * frame.scale + frame.translate
    np.testing.assert_allclose(shown, IPL_FROM_RAS[:3, :3] @ grid.index_to_ras(centre), atol=EXACT_MM)


def test_a_picture_without_size_is_counted_in_pixels():
    frame = display_frame(pixel_grid((1, 5, 7)))
    assert frame.unit == "pixel"
    assert frame.axes == (0, 1, 2)
    assert frame.scale == (1.0, 1.0, 1.0)


def test_napari_world_is_not_mirrored():
    assert np.linalg.det(IPL_FROM_RAS[:3, :3]) == pytest.approx(1.0)
