"""Where voxels lie: the half voxel, by hand and as properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medmaskrcnn.structures.grid import LPS_FROM_RAS, Grid, pixel_grid

ROUNDING = 1e-9


def spl(spacing: tuple[float, float, float] = (3.0, 2.0, 1.0)) -> np.ndarray:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    affine[:3, 3] = 10, 20, 30
    return affine


def test_index_names_the_centre_and_coordinate_the_corner() -> None:
    grid = Grid((4, 5, 6), spl())
    assert grid.index_to_ras([0, 0, 0]).tolist() == [10, 20, 30]
    assert grid.index_to_ras([1, 2, 3]).tolist() == [10 - 3, 20 - 4, 30 + 3]
    assert grid.coordinate_to_ras([0.5, 0.5, 0.5]).tolist() == [10, 20, 30]
    assert grid.coordinate_to_ras([0, 0, 0]).tolist() == [10.5, 21, 28.5]  # half a voxel before the first centre


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3] += rng.normal(size=(3, 4)) * 0.2
    grid = Grid((4, 5, 6), affine)
    points = rng.normal(size=(2, 7, 3)) * 50
    assert np.allclose(grid.ras_to_coordinate(grid.coordinate_to_ras(points)), points, atol=ROUNDING * 100)
    assert np.allclose(grid.coordinate_to_ras(points + 0.5), grid.index_to_ras(points), atol=ROUNDING * 100)


def test_sizes() -> None:
    affine = spl()
    affine[1, 0] = 4.0  # gantry tilt: the slice axis is 5 mm long, the slices 3 mm apart
    grid = Grid((4, 5, 6), affine)
    assert grid.spacing_mm == (5.0, 2.0, 1.0)
    assert grid.voxel_volume_unit3 == pytest.approx(6.0)


def test_pixel_grid_lies_as_on_a_screen_and_has_no_millimetres() -> None:
    grid = pixel_grid((1, 5, 6))
    assert grid.spacing_mm is None and grid.voxel_size == (1, 1, 1) and grid.voxel_volume_unit3 == pytest.approx(1)
    assert grid.index_to_ras([0, 0, 1]).tolist() == [-1, 0, 0]  # the next column lies to the patient's left
    assert grid.index_to_ras([0, 1, 0]).tolist() == [0, -1, 0]  # the next row further back


def test_equality_is_of_values() -> None:
    assert Grid((4, 5, 6), spl()) == Grid((4, 5, 6), spl().tolist())  # type: ignore[arg-type]
    assert Grid((4, 5, 6), spl()) != Grid((4, 5, 7), spl())
    assert Grid((4, 5, 6), spl()) != Grid((4, 5, 6), spl((3, 2, 1.5)))
    assert Grid((4, 5, 6), spl()) != Grid((4, 5, 6), spl(), spacing_known=False)
    assert Grid((4, 5, 6), spl()) != "grid"


def test_the_affine_is_a_copy_and_cannot_be_changed() -> None:
    mine = spl()
    grid = Grid((4, 5, 6), mine)
    mine[0, 3] = 99
    assert grid.affine_vox_to_ras[0, 3] == 10
    with pytest.raises(ValueError, match="read-only"):
        grid.affine_vox_to_ras[0, 3] = 99


def test_lps_and_ras_swap_both_ways() -> None:
    assert np.array_equal(LPS_FROM_RAS @ LPS_FROM_RAS, np.eye(4))
    assert (LPS_FROM_RAS @ [1, 2, 3, 1]).tolist() == [-1, -2, 3, 1]


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((4, 5), np.eye(4), "three positive extents"),
        ((4, 5, 0), np.eye(4), "three positive extents"),
        ((4, 5, 6), np.eye(3), r"finite \(4, 4\)"),
        ((4, 5, 6), np.full((4, 4), np.nan), r"finite \(4, 4\)"),
        ((4, 5, 6), np.zeros((4, 4)), "last row"),
        ((4, 5, 6), np.diag([1.0, 0, 1, 1]), "singular"),
        ((4, 5, 6), np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), "singular"),
    ],
)
def test_unusable_geometry_is_refused(shape: tuple[int, int, int], affine: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(shape, affine)


def test_small_voxels_are_not_singular() -> None:
    assert Grid((4, 5, 6), np.diag([1e-4, 2e-4, 1e-4, 1.0])).voxel_volume_unit3 == pytest.approx(2e-12)
