"""Crops are warped to what the whole planes are warped to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Resample
from monai.transforms.utils import create_grid

from medmaskrcnn.training.warp import Crop, dense, sampling_grid, warp_crops, warp_image

SHAPES = {2: (61, 47), 3: (9, 40, 33)}
OUT = {2: (52, 39), 3: (7, 31, 29)}


def moved(dims: int, seed: int, *, zoom: float = 0.3, bend: float = 2.0) -> torch.Tensor:
    """A grid as MONAI has it, ``(S + 1, *out)``: turned, zoomed, shifted and bent."""
    random = np.random.default_rng(seed)
    grid = torch.as_tensor(create_grid(OUT[dims], backend="torch", dtype=np.float32))
    angle, size = random.uniform(-math.pi, math.pi), random.uniform(1 - zoom, 1 + zoom)
    turn = torch.eye(dims, dtype=torch.float32)
    turn[-2:, -2:] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    places = torch.einsum("ab,b...->a...", turn * size, grid[:dims]) + random.uniform(-4, 4)
    wave = torch.sin(grid[:dims].flip(0) / 7 + random.uniform(0, 6)) * bend
    return torch.cat([places + wave, grid[dims:]])


def crops_of(dims: int, seed: int, number: int = 12) -> list[Crop]:
    """Soft crops of all sizes, some at the window's edge, one of a single voxel, one as large as the window."""
    random, shape = np.random.default_rng(seed), SHAPES[dims]
    found = []
    for i in range(number):
        size = [int(random.integers(1, n // 2 + 1)) for n in shape]
        start = [int(random.integers(0, n - s + 1)) for n, s in zip(shape, size, strict=True)]
        if i < 3:
            start = [(0, n - s)[i % 2] for n, s in zip(shape, size, strict=True)]
        found.append(Crop(tuple(start), torch.from_numpy(random.integers(0, 256, size).astype(np.uint8))))
    one, whole = torch.full((1,) * dims, 255, dtype=torch.uint8), torch.full(shape, 200, dtype=torch.uint8)
    return [*found, Crop(tuple(n // 2 for n in shape), one), Crop((0,) * dims, whole)]


def by_planes(crops: list[Crop], grid: torch.Tensor, dims: int) -> torch.Tensor:
    """Each object as a plane of its own, warped by MONAI."""
    resample = Resample(mode="bilinear", padding_mode="zeros")
    planes = torch.as_tensor(resample(dense(crops, SHAPES[dims]).float(), grid=grid))
    return planes.round().to(torch.uint8)


@pytest.mark.parametrize("dims", [2, 3])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), bend=st.sampled_from([0.0, 2.0, 6.0]), zoom=st.sampled_from([0.0, 0.3, 0.7]))
def test_crops_are_warped_as_planes_are(dims: int, seed: int, bend: float, zoom: float) -> None:
    crops, grid = crops_of(dims, seed), moved(dims, seed, bend=bend, zoom=zoom)
    warped = warp_crops(crops, sampling_grid(grid, SHAPES[dims]), SHAPES[dims])
    expected = by_planes(crops, grid, dims)
    assert expected[-1].any()
    apart = (dense(warped, OUT[dims]).int() - expected.int()).abs()
    assert apart.max() <= 1 and apart.count_nonzero() <= 3  # of 255: sums in another order may be rounded otherwise


@pytest.mark.parametrize("dims", [2, 3])
def test_images_are_warped_as_monai_warps_them(dims: int) -> None:
    image, grid = torch.rand((3, *SHAPES[dims]), generator=torch.Generator().manual_seed(0)), moved(dims, 1)
    expected = Resample(mode="bilinear", padding_mode="zeros")(image, grid=grid)
    warped = warp_image(image, sampling_grid(grid, SHAPES[dims]))
    assert torch.equal(warped, torch.as_tensor(expected))
    assert not warp_image(image, sampling_grid(grid + 1000, SHAPES[dims])).any()


@pytest.mark.parametrize("dims", [2, 3])
def test_an_object_costs_what_its_own_voxels_cost(dims: int) -> None:
    shape = SHAPES[dims]
    crop = Crop(tuple(n // 2 for n in shape), torch.full((3,) * dims, 255, dtype=torch.uint8))
    warped = warp_crops([crop], sampling_grid(moved(dims, 0, bend=0.0, zoom=0.0), shape), shape)
    assert 0 < warped[0].values.numel() < 0.6 * math.prod(OUT[dims])


@pytest.mark.parametrize("dims", [2, 3])
def test_what_the_window_does_not_meet_is_empty(dims: int) -> None:
    shape = SHAPES[dims]
    grid = moved(dims, 0) + 1000.0
    nothing = Crop((0,) * dims, torch.zeros((0,) * dims, dtype=torch.uint8))
    warped = warp_crops([*crops_of(dims, 0), nothing], sampling_grid(grid, shape), shape)
    assert not dense(warped, OUT[dims]).any() and all(not crop.values.numel() for crop in warped)
    assert warp_crops([], sampling_grid(grid, shape), shape) == []


@pytest.mark.parametrize("dims", [2, 3])
def test_flips(dims: int) -> None:
    crops = crops_of(dims, 3)
    for axis in range(-dims, 0):
        flipped = dense([crop.flipped(axis, SHAPES[dims][axis]) for crop in crops], SHAPES[dims])
        assert torch.equal(flipped, dense(crops, SHAPES[dims]).flip(axis))
