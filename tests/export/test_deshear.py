"""A tilted scan put straight: what is where stays where it is."""

from __future__ import annotations

import numpy as np
import pytest

from medmaskrcnn.export.deshear import is_tilted, regular_grid, regular_instances, regular_volume
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

SHAPE = (6, 20, 16)


def tilted(tilt_mm: tuple[float, float]) -> Grid:
    """Slices of 3 mm upwards, each shifted by so many mm to the back and to the left."""
    affine = np.array([[0, 0, -1.5, 4], [0, -2.0, 0, 9], [3.0, 0, 0, -7], [0, 0, 0, 1]])
    affine[1, 0], affine[0, 0] = -tilt_mm[0], -tilt_mm[1]
    return Grid(SHAPE, affine)


@pytest.mark.parametrize("tilt_mm", [(0.0, 0.0), (1.3, 0.0), (-1.3, 0.4), (2.0, -1.5)])
def test_the_grid_is_orthogonal_and_holds_every_slice(tilt_mm: tuple[float, float]) -> None:
    grid = tilted(tilt_mm)
    straight, shifts = regular_grid(grid)
    gram = straight.affine_vox_to_ras[:3, :3].T @ straight.affine_vox_to_ras[:3, :3]
    np.testing.assert_allclose(gram, np.diag([9, 4, 2.25]), atol=1e-9)
    assert is_tilted(grid) == any(tilt_mm)
    assert not is_tilted(straight)
    for d in range(SHAPE[0]):
        for corner in ((0, 0), (19, 15)):
            np.testing.assert_allclose(
                straight.index_to_ras([d, *(corner + shifts[d])]), grid.index_to_ras([d, *corner]), atol=1e-9
            )
            assert (corner + shifts[d] >= -1e-6).all()
            assert (corner + shifts[d] <= np.array(straight.shape[1:]) - 1 + 1e-6).all()


def test_values_are_those_of_the_same_place() -> None:
    """A linear function of the place is kept by linear interpolation, up to the edges."""
    grid = tilted((1.3, 0.4))
    slope = np.array([2.0, -3.0, 5.0])
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1)
    volume = Volume((grid.index_to_ras(index) @ slope)[None], grid)
    straight = regular_volume(volume)
    target = np.stack(np.meshgrid(*map(np.arange, straight.grid.shape), indexing="ij"), axis=-1)
    expected = straight.grid.index_to_ras(target) @ slope
    inner = straight.array[0] != volume.array.min()
    inner[:, [0, -1]] = inner[:, :, [0, -1]] = False
    off = np.abs(straight.array[0] - expected)[inner]
    assert (off < 1e-9).mean() > 0.85  # the rest lies beside the slices' edges
    assert inner.mean() > 0.6
    assert "orthogonal grid" in straight.provenance.notes[-1]


def test_integers_stay_integers_and_whole_shifts_are_exact() -> None:
    grid = tilted((2.0, -1.5))
    array = np.random.default_rng(0).integers(-1000, 1000, (1, *SHAPE)).astype(np.int16)
    straight = regular_volume(Volume(array, grid))
    assert straight.array.dtype == np.int16
    _, shifts = regular_grid(grid)
    for d in range(SHAPE[0]):
        r, c = np.rint(shifts[d]).astype(int)
        np.testing.assert_array_equal(straight.array[0, d, r : r + 20, c : c + 16], array[0, d])


def test_instances_keep_place_and_volume() -> None:
    grid = tilted((1.3, 0.4))
    mask = np.ones((4, 10, 8), bool)
    found = Instances.from_masks(grid, ("a",), [0], [Mask((1, 4, 5), mask)])
    straight = regular_instances(found)
    centre = [
        one.grid.index_to_ras(np.argwhere(one.masks[0].array).mean(axis=0) + one.masks[0].start)
        for one in (found, straight)
    ]
    np.testing.assert_allclose(centre[0], centre[1], atol=0.8)
    assert straight.masks[0].n_voxels == mask.sum()


def test_sheared_rows_and_columns_are_refused() -> None:
    affine = np.diag([3.0, 2.0, 1.5, 1.0])[:, [0, 1, 2, 3]]
    affine[1, 2] = 0.5
    with pytest.raises(ValueError, match="rows and columns are sheared"):
        regular_grid(Grid(SHAPE, affine))
