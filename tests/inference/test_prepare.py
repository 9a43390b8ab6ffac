"""The network's tensor: the same however the scan is stored; spacing, pictures, refusals."""

from __future__ import annotations

import warnings
from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from medmaskrcnn.inference.prepare import prepare
from medmaskrcnn.models.images import pad_to_multiple
from medmaskrcnn.settings import PreprocessSettings
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.volume import Volume

STORAGES = list(product(permutations(range(3)), product((False, True), repeat=3)))
SHAPE = (5, 8, 7)


def stored(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same scan, its array and affine kept in another order."""
    array = volume.array.transpose(0, *(1 + axis for axis in order))
    affine = volume.affine_vox_to_ras.copy()
    affine[:3, :3] = volume.affine_vox_to_ras[:3, list(order)]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (array.shape[1 + axis] - 1)
            affine[:3, axis] *= -1
            array = np.flip(array, 1 + axis)
    return Volume(np.ascontiguousarray(array), Grid(array.shape[1:], affine))


def scan(columns: np.ndarray, dtype: type = np.float32, shape: tuple[int, int, int] = SHAPE) -> Volume:
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = 12.5, -40.25, 7
    array = np.random.default_rng(5).normal(50, 400, (1, *shape)).astype(dtype)
    return Volume(array, Grid(shape, affine))


def affines() -> dict[str, np.ndarray]:
    """Steps of D, H, W as columns, mm."""
    upright = np.array([[0, 0, -1.0], [0, -1.0, 0], [1.0, 0, 0]])
    turn = Rotation.from_euler("xyz", (17, -31, 8), degrees=True).as_matrix()
    tilt = upright.copy()
    tilt[1, 0] = 0.35  # gantry tilt: each slice lies further to the front
    half = {axis: Rotation.from_euler(axis, 45, degrees=True).as_matrix() for axis in "xyz"}
    return {
        "upright, anisotropic": upright @ np.diag([5, 0.8, 0.7]),
        "upright, isotropic": upright * 1.5,
        "oblique": turn @ upright @ np.diag([3, 0.9, 1.1]),
        "sheared by gantry tilt": tilt @ np.diag([4, 0.9, 0.9]),
        "45 degrees about R": half["x"] @ np.diag([3, 1, 1.0]),
        "45 degrees about A": half["y"] @ np.diag([1, 1, 1.0]),
        "45 degrees about S": half["z"] @ np.diag([1, 2, 1.0]),
        "three-way tie": np.array([[1.0, 1, 1], [1, -1, 1], [1, 1, -1]]),
        "two of three equally thick": upright @ np.diag([1, 3, 3.0]),
    }


def tensors_agree(volume: Volume, wanted: PreprocessSettings) -> bool:
    """Whether the network gets the same tensor from all 48 ways to store a scan."""
    first = prepare(volume, wanted).tensor
    return all(torch.equal(prepare(stored(volume, *how), wanted).tensor, first) for how in STORAGES)


@pytest.mark.parametrize("name", affines())
@pytest.mark.parametrize("orientation", ["SPL", "acquisition"])
def test_the_same_tensor_from_all_48_storages(name: str, orientation: str) -> None:
    volume = scan(affines()[name])
    assert tensors_agree(volume, PreprocessSettings(orientation=orientation, percentiles=(1, 99)))


@pytest.mark.parametrize("orientation", ["SPL", "acquisition"])
def test_the_same_tensor_from_all_48_storages_when_resampled(orientation: str) -> None:
    volume = scan(affines()["oblique"], np.int16)
    wanted = PreprocessSettings(orientation=orientation, spacing_mm=(2.0, 1.5, 1.7), windows=((-200, 300),))
    assert tensors_agree(volume, wanted)


@pytest.mark.parametrize("name", affines())
def test_without_reorientation_the_storages_differ(name: str) -> None:
    """The check above is able to fail."""
    assert not tensors_agree(scan(affines()[name]), PreprocessSettings(orientation="as_stored", percentiles=(1, 99)))


@settings(max_examples=60)
@given(
    st.tuples(*[st.floats(-180, 180)] * 3),
    st.tuples(*[st.floats(0.3, 6)] * 3),
    st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    st.sampled_from(STORAGES),
    st.sampled_from(["SPL", "acquisition"]),
)
def test_any_affine_any_storage(
    angles: tuple[float, ...], spacing: tuple[float, ...], shear: tuple[float, ...], how: tuple, orientation: str
) -> None:
    columns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    columns = columns @ np.array([[1, shear[0], shear[1]], [0, 1, shear[2]], [0, 0, 1]]) @ np.diag(spacing)
    volume = scan(columns, shape=(2, 3, 4))
    wanted = PreprocessSettings(orientation=orientation)
    assert torch.equal(prepare(stored(volume, *how), wanted).tensor, prepare(volume, wanted).tensor)


def test_without_a_spacing_no_value_changes() -> None:
    volume = scan(affines()["upright, anisotropic"], np.int16)
    prepared = prepare(volume, PreprocessSettings())
    np.testing.assert_array_equal(prepared.tensor.numpy(), volume.array)
    assert prepared.scale == (1, 1, 1) and prepared.turned_shape == SHAPE


def test_a_spacing_in_mm_sets_the_shape() -> None:
    volume = scan(affines()["upright, anisotropic"])  # 5 x 0.8 x 0.7 mm
    prepared = prepare(volume, PreprocessSettings(spacing_mm=(2.5, 1.6, None)))
    assert prepared.tensor.shape == (1, 10, 4, 7)
    assert prepared.scale == (0.5, 2, 1)
    assert prepare(volume, PreprocessSettings(spacing_mm=(1000, None, None))).tensor.shape == (1, 1, 8, 7)


def test_the_spacing_follows_the_turned_axes() -> None:
    sagittal = scan(np.array([[4.0, 0, 0], [0, 0, -1.0], [0, -0.5, 0]]))  # D to the right, H down, W to the back
    in_spl = prepare(sagittal, PreprocessSettings(spacing_mm=(1.0, 1.0, 2.0)))
    assert in_spl.tensor.shape == (1, 4, 7, 10)  # S: 8 x 0.5 mm, A: 7 x 1 mm, R: 5 x 4 mm
    assert in_spl.turned_shape == (8, 7, 5)
    as_acquired = prepare(sagittal, PreprocessSettings(orientation="acquisition", spacing_mm=(2.0, 1.0, 1.0)))
    assert as_acquired.tensor.shape == (1, 10, 4, 7)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((400, 600), (800, 1200)), ((600, 400), (1200, 800)), ((300, 900), (444, 1333)), ((1600, 800), (1333, 666))],
)
def test_pictures_are_resized_by_their_sides(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = Volume(np.zeros((1, 1, *shape), np.uint8), pixel_grid((1, *shape)), channel_kind="scalar")
    wanted = PreprocessSettings(orientation="as_stored", resize_min_max=(800, 1333))
    assert prepare(picture, wanted).tensor.shape == (1, 1, *expected)


def test_a_sliver_of_a_picture_keeps_a_row() -> None:
    picture = Volume(np.zeros((1, 1, 1, 90), np.uint8), pixel_grid((1, 1, 90)))
    wanted = PreprocessSettings(orientation="as_stored", resize_min_max=(8, 30))
    assert prepare(picture, wanted).tensor.shape == (1, 1, 1, 30)


def test_unknown_spacing_is_refused() -> None:
    picture = Volume(np.zeros((1, 1, 8, 8), np.uint8), pixel_grid((1, 8, 8)))
    with pytest.raises(ValueError, match="does not tell its own"):
        prepare(picture, PreprocessSettings(spacing_mm=(None, 1.0, 1.0)))
    prepare(picture, PreprocessSettings())


def test_one_nan_reaches_no_neighbour() -> None:
    volume = scan(affines()["upright, anisotropic"])
    wanted = PreprocessSettings(spacing_mm=(5, 0.5, 0.5), value_range=(0, 1))
    expected_array = volume.array.copy()
    expected_array[0, 2, 3, 3] = volume.array.min()
    broken = volume.array.copy()
    broken[0, 2, 3, 3] = np.nan
    expected = prepare(Volume(expected_array, volume.grid), wanted).tensor
    assert torch.equal(prepare(Volume(broken, volume.grid), wanted).tensor, expected)


def test_a_read_only_scan_is_neither_changed_nor_complained_about() -> None:
    volume = scan(affines()["upright, anisotropic"])
    volume.array[0, 0, 0, 0] = np.inf
    volume.array.flags.writeable = False
    before = volume.array.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = prepare(volume, PreprocessSettings()).tensor
    assert torch.isfinite(tensor).all()
    np.testing.assert_array_equal(volume.array, before)


@pytest.mark.parametrize("dtype", [">i2", "<u2", ">f4", "f8", "i1", "u4"])
def test_every_type_of_number(dtype: str) -> None:
    array = np.arange(24).reshape(1, 2, 3, 4).astype(dtype)
    volume = Volume(array, Grid((2, 3, 4), np.diag([1.0, 1, 1, 1])))
    prepared = prepare(volume, PreprocessSettings(orientation="as_stored"))
    assert prepared.tensor.dtype == torch.float32
    np.testing.assert_array_equal(prepared.tensor.numpy(), np.arange(24).reshape(1, 2, 3, 4))


def test_padding_is_at_the_far_end() -> None:
    tensor = torch.ones(1, 2, 3, 5)
    padded = pad_to_multiple(tensor, (4, 4, 4))
    assert padded.shape == (1, 4, 4, 8)
    assert torch.equal(padded[:, :2, :3, :5], tensor) and padded.sum() == tensor.sum()
    assert pad_to_multiple(tensor, (2, 3, 5)) is tensor
    assert pad_to_multiple(torch.ones(2, 1, 3, 5), (4, 4)).shape == (2, 1, 4, 8)
