"""Surface distances by hand and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice

from medmaskrcnn.evaluation.metrics.surface import surface_agreement, surface_points
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask


def one(mask: np.ndarray, grid: Grid) -> Instances:
    return Instances.from_masks(grid, ("x",), [0], [Mask((0, 0, 0), mask).tight()])


def ball(shape: tuple[int, int, int], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return (((at - centre) / radii) ** 2).sum(-1) <= 1


def test_cubes_one_voxel_apart_by_hand() -> None:
    """A cube moved by one voxel of 3 mm: its faces agree within 3 mm; sides that both have are 0 apart."""
    grid = Grid((12, 12, 12), np.diag([3.0, 3, 3, 1]))
    first, second = np.zeros((2, *grid.shape), bool)
    first[2:7, 2:7, 2:7] = second[3:8, 2:7, 2:7] = True
    got = surface_agreement(one(first, grid), 0, one(second, grid), 0, tolerance=3)
    assert got is not None and (got.hd95, got.nsd, got.unit) == (3.0, 1.0, "mm")
    # 5^3 - 3^3 = 98 surface voxels; the 3 x 3 inner ones of the two end faces and the end planes lie 3 mm off
    near = surface_agreement(one(first, grid), 0, one(second, grid), 0, tolerance=2.9)
    assert near is not None and near.nsd == pytest.approx((98 - 25 - 9) / 98)


def test_the_same_object_and_none() -> None:
    grid = Grid((4, 9, 9), np.diag([2.0, 2, 4, 1]))
    some = one(ball(grid.shape, np.array([2, 4, 4]), np.array([2, 3, 3])), grid)
    same = surface_agreement(some, 0, some, 0, tolerance=0)
    assert same is not None and (same.hd95, same.nsd) == (0.0, 1.0)
    assert surface_agreement(some, 0, one(np.zeros(grid.shape, bool), grid), 0) is None
    with pytest.raises(ValueError, match="negative"):
        surface_agreement(some, 0, some, 0, tolerance=-1)


@pytest.mark.parametrize("seed", range(4))
def test_equals_monai_in_3d(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, spacing = (9, 24, 26), (5.0, 1.5, 1.1)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = spacing[0], -spacing[1], -spacing[2], 1
    first = ball(shape, rng.uniform(0.3, 0.7, 3) * shape, rng.uniform(3, 10, 3))
    second = ball(shape, rng.uniform(0.3, 0.7, 3) * shape, rng.uniform(3, 10, 3))  # cut off at the border at times
    got = surface_agreement(one(first, Grid(shape, affine)), 0, one(second, Grid(shape, affine)), 0, tolerance=4.0)
    a, b = torch.tensor(first)[None, None].float(), torch.tensor(second)[None, None].float()
    hd = compute_hausdorff_distance(a, b, include_background=True, percentile=95, spacing=spacing)
    sd = compute_surface_dice(a, b, class_thresholds=[4.0], include_background=True, spacing=spacing)
    assert got is not None
    assert got.hd95 == pytest.approx(float(hd), abs=1e-4)
    assert got.nsd == pytest.approx(float(sd), abs=1e-6)
    assert 0 < got.nsd < 1


def test_a_picture_is_flat() -> None:
    """In 2D only the outline is surface, and lengths are pixels; it equals MONAI's in 2D."""
    first = ball((1, 30, 30), np.array([0, 14, 14]), np.array([1, 9, 9]))
    second = ball((1, 30, 30), np.array([0, 15, 16]), np.array([1, 7, 11]))
    grid = pixel_grid((1, 30, 30))
    assert len(surface_points(one(first, grid), 0)) < first.sum() / 3
    got = surface_agreement(one(first, grid), 0, one(second, grid), 0, tolerance=1.0)
    a, b = torch.tensor(first)[None].float(), torch.tensor(second)[None].float()
    hd = compute_hausdorff_distance(a, b, include_background=True, percentile=95)
    sd = compute_surface_dice(a, b, class_thresholds=[1.0], include_background=True)
    assert got is not None and got.unit == "px"
    assert got.hd95 == pytest.approx(float(hd), abs=1e-4) and got.nsd == pytest.approx(float(sd), abs=1e-6)


def test_turning_and_shearing_the_grid() -> None:
    """A turned grid changes nothing; a sheared one moves the planes against each other, which counts."""
    first, second = np.zeros((2, 6, 8, 8), bool)
    first[0, 4, 4] = second[3, 4, 4] = True
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    straight = np.diag([2.0, 1, 1, 1])
    shear = straight.copy()
    shear[1, 0] = 1.5  # every slice 1.5 mm further along H
    for affine, expected in ((straight, 6.0), (turn @ straight, 6.0), (shear, 3 * 2.5)):
        grid = Grid((6, 8, 8), affine)
        got = surface_agreement(one(first, grid), 0, one(second, grid), 0)
        assert got is not None and got.hd95 == pytest.approx(expected)
