"""Resampling against SciPy and pencil, intensities by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from medmaskrcnn.inference.prepare import fill_not_finite, normalise, resize, resize_matrix
from medmaskrcnn.settings import PreprocessSettings

ROUNDING = 2e-5  # float32 sums of values near 1, and SciPy works in float64

lengths = st.integers(1, 9)


def random_image(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_two_voxels_to_four_by_hand() -> None:
    # new centres lie at -0.25, 0.25, 0.75, 1.25 old indices; beyond the outer centres the value is constant
    matrix = resize_matrix(2, 4, antialias=False)
    torch.testing.assert_close(matrix, torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))


def test_antialias_halving_by_hand() -> None:
    # a triangle of half width 2 around 0.5, 2.5: weights 1/4 .. of distances 0.5, 0.5, 1.5, cut at the border
    matrix = resize_matrix(4, 2, antialias=True)
    torch.testing.assert_close(matrix, torch.tensor([[3.0, 3, 1, 0], [0, 1, 3, 3]]) / 7)


@pytest.mark.parametrize("shape", [(3, 5, 9), (7, 4, 11), (1, 8, 6), (12, 12, 12)])
def test_against_scipy(shape: tuple[int, int, int]) -> None:
    image = random_image((1, 6, 8, 7))
    ours = resize(image, shape, antialias=False)[0].numpy()
    along = ((np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(shape, (6, 8, 7), strict=True))
    at = np.meshgrid(*along, indexing="ij")
    expected = ndimage.map_coordinates(image[0].numpy().astype(np.float64), at, order=1, mode="nearest")
    np.testing.assert_allclose(ours, expected, atol=ROUNDING)


@given(st.tuples(lengths, lengths, lengths), st.tuples(lengths, lengths, lengths), st.booleans())
def test_resize_is_its_matrices(old: tuple[int, int, int], new: tuple[int, int, int], antialias: bool) -> None:
    image = random_image((2, *old), seed=sum(old))
    d, h, w = (resize_matrix(a, b, antialias=antialias) for a, b in zip(old, new, strict=True))
    expected = torch.einsum("ad,bh,cw,ndhw->nabc", d, h, w, image)
    torch.testing.assert_close(resize(image, new, antialias=antialias), expected, atol=ROUNDING, rtol=0)
    for matrix in (d, h, w):
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(matrix)))
        assert (matrix >= 0).all()


@pytest.mark.parametrize("antialias", [False, True])
def test_constant_stays_and_the_field_of_view_is_kept(antialias: bool) -> None:
    image = torch.full((1, 5, 9, 40), 3.25)
    torch.testing.assert_close(resize(image, (11, 4, 13), antialias=antialias), torch.full((1, 11, 4, 13), 3.25))
    ramp = (torch.arange(40) + 0.5)[None, None, None].expand(1, 5, 9, 40).contiguous()
    small = resize(ramp, (5, 9, 10), antialias=antialias)[0, 2, 4]
    inner = slice(1, -1)  # voxel i of ten covers 4 i .. 4 (i + 1), its centre lies at 4 i + 2
    torch.testing.assert_close(small[inner], (torch.arange(10)[inner] + 0.5) * 4, atol=1e-4, rtol=0)


@pytest.mark.parametrize("antialias", [False, True])
def test_equal_shapes_change_no_bit(antialias: bool) -> None:
    image = random_image((2, 40, 6, 7))
    assert torch.equal(resize(image, (40, 6, 7), antialias=antialias), image)
    changed_depth = resize(image, (20, 6, 7), antialias=antialias)
    alone = resize(image[:, :, 2:3, 3:4].contiguous(), (20, 1, 1), antialias=antialias)
    torch.testing.assert_close(changed_depth[:, :, 2:3, 3:4], alone)  # rows and columns did not mix


def test_long_volumes_in_parts_are_the_same() -> None:
    image = random_image((1, 75, 5, 6))
    whole = resize(image, (75, 7, 9), antialias=True)
    each = torch.cat([resize(image[:, i : i + 1], (1, 7, 9), antialias=True) for i in range(75)], dim=1)
    assert torch.equal(whole, each)


def test_windows_become_channels() -> None:
    image = torch.tensor([-1000.0, -50.0, 100.0, 400.0]).view(1, 1, 1, 4)
    settings = PreprocessSettings(windows=((-1000.0, 600.0), (-50.0, 250.0)), mean=(0.5, 0.0), std=(1.0, 2.0))
    out = normalise(image, settings).view(2, 4)
    wide = torch.tensor([0.0, 950 / 1600, 1100 / 1600, 1400 / 1600]) - 0.5
    narrow = torch.tensor([0.0, 0.0, 0.5, 1.0]) / 2
    torch.testing.assert_close(out, torch.stack([wide, narrow]))


def test_percentiles_of_the_scan() -> None:
    image = torch.arange(101.0)[torch.randperm(101, generator=torch.Generator().manual_seed(1))].view(1, 1, 1, 101)
    out = normalise(image, PreprocessSettings(percentiles=(10, 90)))
    torch.testing.assert_close(out, ((image - 10) / 80).clamp(0, 1))
    full = normalise(image, PreprocessSettings(percentiles=(0, 100), mean=(0.25,), std=(0.5,)))
    torch.testing.assert_close(full, (image / 100 - 0.25) / 0.5)


def test_percentiles_of_a_constant_scan_are_finite() -> None:
    out = normalise(torch.full((1, 2, 3, 4), 7.0), PreprocessSettings(percentiles=(1, 99)))
    assert torch.equal(out, torch.zeros(1, 2, 3, 4))


def test_fixed_range_is_not_clipped() -> None:
    image = torch.tensor([-255.0, 0.0, 510.0]).view(1, 1, 1, 3).expand(3, 1, 1, 3)
    settings = PreprocessSettings(value_range=(0, 255), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))
    out = normalise(image, settings)
    torch.testing.assert_close(out[:, 0, 0, 0], torch.tensor([-1.5 / 0.2, -1.4 / 0.2, -1.3 / 0.1]))
    torch.testing.assert_close(out[:, 0, 0, 2], torch.tensor([1.5 / 0.2, 1.6 / 0.2, 1.7 / 0.1]))


def test_what_is_not_finite_becomes_the_lowest_value() -> None:
    image = torch.tensor([float("nan"), -3.0, float("inf"), 8.0, -float("inf")])
    assert fill_not_finite(image).tolist() == [-3.0, -3.0, -3.0, 8.0, -3.0]
    assert fill_not_finite(torch.full((3,), float("nan"))).tolist() == [0.0, 0.0, 0.0]
    clean = torch.tensor([1.0, 2.0])
    assert fill_not_finite(clean) is clean


def test_every_channel_has_percentiles_of_its_own() -> None:
    one = torch.rand((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    both = normalise(torch.cat([one, 1000 * one + 7]), PreprocessSettings(percentiles=(1, 99)))
    torch.testing.assert_close(both[0], both[1], atol=1e-4, rtol=0)
