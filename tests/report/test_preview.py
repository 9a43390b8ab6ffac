"""The preview's pixels: the right way round however the file stores them, in true proportions, and stamped."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.report.colours import ORGAN_COLOURS
from medmaskrcnn.report.preview import draw_preview, write_preview
from medmaskrcnn.report.preview_panel import draw_panel, grey_range, panel_size
from medmaskrcnn.report.preview_planes import MAX_AXIAL, choose_planes, cut_to_body, slice_position
from medmaskrcnn.report.style import RED, drawable, font, shortened, text_width, wrapped
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]


def transformed(
    volume: Volume, found: Instances, axes: tuple[int, ...], flips: tuple[int, ...]
) -> tuple[Volume, Instances]:
    """The same scan with its axes permuted and some of them reversed."""
    affine = volume.affine_vox_to_ras[:, [*axes, 3]].copy()
    shape = np.array(volume.grid.shape)[list(axes)]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:, 3] += affine[:, axis] * (shape[axis] - 1)
            affine[:, axis] *= -1
    reverse = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    grid = Grid(tuple(int(n) for n in shape), affine)
    flip = np.array(flips, bool)
    low, high = found.boxes[:, :3][:, axes], found.boxes[:, 3:][:, axes]
    turn = AxisMap(axes, flips)
    masks = Instances(
        grid,
        found.class_names,
        found.labels,
        found.scores,
        np.concatenate([np.where(flip, shape - high, low), np.where(flip, shape - low, high)], 1).astype(np.float32),
        tuple(turn.apply_mask(mask, found.grid.shape) for mask in found.masks),
    )
    array = np.ascontiguousarray(volume.array[0].transpose(axes)[reverse])[None]
    return Volume(array, grid, volume.modality), masks


def panels(volume: Volume, found: Instances) -> list[np.ndarray]:
    greys = grey_range(volume)
    planes = cut_to_body(choose_planes(found), volume, found, greys)
    return [np.asarray(draw_panel(volume, found, p, panel_size(volume.grid, p, 200), greys)) for p in planes]


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_the_picture_is_the_same_however_the_file_stores_the_scan(axes: tuple[int, ...], case: Case) -> None:
    result, volume = case
    expected = panels(volume, result.instances)
    for flips in product((0, 1), repeat=3):
        got = panels(*transformed(volume, result.instances, axes, flips))
        assert len(got) == len(expected) == 2
        for a, b in zip(got, expected, strict=True):
            assert np.array_equal(a, b), flips


def marked(direction: str) -> np.ndarray:
    """An axial panel of a body with a bright mark at its right, left, front or back."""
    grid = Grid((3, 40, 40), np.array([[0, 0, -1.0, 20], [0, -1.0, 0, 20], [1.0, 0, 0, 0], [0, 0, 0, 1]]))
    array = np.zeros((1, *grid.shape), np.int16)
    index = grid.index_to_ras(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1))
    axis, sign = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1)}[direction]
    array[0][sign * index[..., axis] > 12] = 1000
    volume = Volume(array, grid, window=(500, 1000))
    plane = choose_planes(empty_instances(grid, ("x",)))[0]
    return np.asarray(draw_panel(volume, empty_instances(grid, ("x",)), plane, (80, 80), (0, 1000))).mean(axis=2)


@pytest.mark.parametrize(
    ("direction", "side"), [("R", np.s_[:, :10]), ("L", np.s_[:, 70:]), ("A", np.s_[:10]), ("P", np.s_[70:])]
)
def test_radiological_convention(direction: str, side: tuple[slice, ...]) -> None:
    picture = marked(direction)
    assert picture[side].mean() > 200 and picture.mean() < 100


def test_true_proportions() -> None:
    grid = Grid((10, 30, 40), np.diag([5.0, 2.0, 1.0, 1.0])[[2, 1, 0, 3]])  # D runs up 5 mm, H 2 mm, W 1 mm
    axial, coronal = (choose_planes(empty_instances(grid, ("x",)))[k] for k in (0, -1))
    assert (axial.view.kind, coronal.view.kind) == ("axial", "coronal")
    assert panel_size(grid, axial, 600) == (400, 600)  # 40 x 60 mm
    assert panel_size(grid, coronal, 500) == (400, 500)  # 40 x 50 mm


def ball(centre: tuple[int, int, int], radius: int) -> tuple[tuple[int, int, int], np.ndarray]:
    r = np.arange(-radius, radius + 1)
    return tuple(c - radius for c in centre), r[:, None, None] ** 2 + r[:, None] ** 2 + r**2 <= radius**2  # type: ignore[return-value]


def scattered(centres: list[tuple[int, int, int]], radius: int = 3) -> Instances:
    found = [ball(c, radius) for c in centres]
    n = len(found)
    grid = Grid((100, 60, 60), np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]]))
    return Instances(
        grid,
        ("x",),
        np.zeros(n, np.int64),
        np.ones(n, np.float32),
        np.zeros((n, 6), np.float32),
        tuple(Mask(start, mask) for start, mask in found),
    )


def test_one_slice_serves_neighbours_and_slices_run_from_head_to_feet() -> None:
    found = scattered([(20, 10, 10), (20, 25, 40), (21, 40, 10), (70, 50, 40)])
    axial = [p.index for p in choose_planes(found) if p.view.kind == "axial"]
    assert axial == [70, 20]


def test_every_instance_is_shown_up_to_a_limit() -> None:
    found = scattered([(5 + 9 * k, 10 + 4 * k, 30) for k in range(10)])  # no coronal slice shows many of them
    axial = [p.index for p in choose_planes(found) if p.view.kind == "axial"]
    assert len(axial) == MAX_AXIAL and axial == sorted(axial, reverse=True)


def test_a_column_of_vertebrae_does_not_take_all_the_slices() -> None:
    found = scattered([(5 + 9 * k, 30, 30) for k in range(10)])
    assert sum(p.view.kind == "axial" for p in choose_planes(found)) == 3


def test_slice_position() -> None:
    grid = Grid((4, 5, 6), np.array([[0, 0, -1.0, 0], [0, -1.0, 0, 0], [2.5, 0, 0, -2.5], [0, 0, 0, 1]]))
    first, *_ = choose_planes(empty_instances(grid, ("x",)))
    assert (first.index, slice_position(grid, first)) == (2, "S 2.5 mm")


def test_air_is_cut_off_but_no_instance(case: Case) -> None:
    result, volume = case
    array = np.zeros_like(volume.array)
    array[:, :, 6:9, 10:14] = 1000
    volume = Volume(array, volume.grid)
    whole = choose_planes(result.instances)
    cut = cut_to_body(whole, volume, result.instances, (0, 1000))
    assert cut[0].rows == (2, 16) and cut[0].columns == (4, 20)  # the liver, and two voxels around it
    assert cut_to_body(whole[:1], volume, empty_instances(volume.grid, ("x",)), (0, 1000))[0].rows == (4, 11)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"window": (100.0, 50.0), "modality": "CT"}, (75, 125)),
        ({"modality": "CT"}, (-160, 240)),
        ({"modality": "MR"}, (0, 1)),
    ],
)
def test_grey_range(change: dict[str, object], expected: tuple[float, float]) -> None:
    values = np.linspace(0, 1, 8000).reshape(1, 20, 20, 20)
    got = grey_range(Volume(values, Grid((20, 20, 20), np.eye(4)), **change))  # type: ignore[arg-type]
    assert got == pytest.approx(expected, abs=0.01)


def test_grey_range_of_constant_and_undefined_values() -> None:
    grid = Grid((2, 2, 2), np.eye(4))
    for value in (0.0, 7.0, np.nan):
        low, high = grey_range(Volume(np.full((1, 2, 2, 2), value), grid))
        assert np.isfinite(low) and high > low


def has(image: Image.Image, colour: tuple[int, int, int], least: int) -> bool:
    return int((np.asarray(image) == colour).all(axis=2).sum()) >= least


def test_classes_are_drawn_in_their_colours(case: Case) -> None:
    image = draw_preview(*case)
    assert has(image, ORGAN_COLOURS["liver"], 300) and has(image, ORGAN_COLOURS["tumour"], 300)
    assert not has(image, ORGAN_COLOURS["spleen"], 1)


def test_out_of_domain_banner(build: Callable[..., Case], case: Case) -> None:
    assert has(draw_preview(*build(case[1].grid, out_of_domain=True)), RED, 10_000)
    assert not has(draw_preview(*case), RED, 1)


def test_warnings_are_shown(build: Callable[..., Case], case: Case) -> None:
    warned = draw_preview(*build(case[1].grid, warnings=("This is an MR model and the scan is a CT.",)))
    assert warned.height > draw_preview(*case).height


def test_colour_pictures_stay_in_colour(picture: Case) -> None:
    result, volume = picture
    nothing = empty_instances(volume.grid, ("x",))
    plane = choose_planes(nothing)[0]
    array = np.zeros_like(volume.array)
    array[0, :, :10], array[1, :, 10:] = 200, 90
    red_above_green = Volume(array, volume.grid, channel_kind="colour")
    got = np.asarray(draw_panel(red_above_green, nothing, plane, (24, 20), grey_range(red_above_green)))
    assert np.array_equal(got[[2, -2], 12], [[200, 0, 0], [0, 90, 0]])
    assert draw_preview(result, volume).mode == "RGB"


@pytest.mark.parametrize("count", [13, 200])
def test_crowded_pictures(count: int) -> None:
    """Names become numbers, then nothing; the list says how many are left out."""
    grid = pixel_grid((1, 60, 60))
    starts = np.array([[0, 4 * (k // 15), 4 * (k % 15)] for k in range(count)])
    found = Instances(
        grid,
        ("nucleus",),
        np.zeros(count, np.int64),
        np.linspace(1, 0.6, count, dtype=np.float32),
        np.zeros((count, 6), np.float32),
        tuple(Mask(start, np.ones((1, 3, 3), bool)) for start in starts),
    )
    plane = choose_planes(found)[0]
    image = draw_panel(Volume(np.zeros((1, 1, 60, 60), np.uint8), grid), found, plane, (600, 600), (0, 255))
    assert has(image, ORGAN_COLOURS["nucleus"], count * 20)


def test_an_instance_smaller_than_a_pixel_does_not_vanish() -> None:
    grid = Grid((1, 900, 900), np.eye(4)[[2, 1, 0, 3]])
    found = scattered([(3, 3, 3)])
    tiny = replace(found, grid=grid, masks=(Mask((0, 450, 450), np.ones((1, 1, 1), bool)),))
    volume = Volume(np.zeros((1, *grid.shape), np.int16), grid)
    plane = choose_planes(tiny)[0]
    with_it, without = (
        np.asarray(draw_panel(volume, f, plane, (200, 200), (0, 1))) for f in (tiny, empty_instances(grid, ("x",)))
    )
    changed = np.argwhere((with_it != without).any(axis=2))
    assert len(changed) and np.abs(changed - 100).max(axis=1).min() <= 1


@pytest.mark.parametrize("which", ["case", "picture"])
def test_png_carries_no_words_and_is_the_same_twice(which: str, request: pytest.FixtureRequest) -> None:
    case = request.getfixturevalue(which)
    streams = [io.BytesIO(), io.BytesIO()]
    for stream in streams:
        write_preview(*case, stream)
    assert streams[0].getvalue() == streams[1].getvalue()
    assert Image.open(streams[0]).info == {}


def test_letters_that_the_font_lacks_are_not_drawn_as_boxes() -> None:
    assert drawable("Niere, naïve, 肝 mm²") == "Niere, naive, ? mm2"
    boxes = {font(20).getmask(c).getbbox() and bytes(font(20).getmask(c)) for c in "肝ï²"}
    assert len(boxes) == 1  # the font's one sign for what it lacks
    assert not boxes & {bytes(font(20).getmask(chr(c))) for c in range(33, 127)}


def test_lines_fit() -> None:
    assert shortened("left kidney", 13, 400) == "left kidney"
    assert text_width(shortened("left kidney " * 20, 13, 100), 13) <= 100
    lines = wrapped("This is an MR model and the scan is a CT, so look twice.", 14, 150)
    assert len(lines) > 2 and " ".join(lines) == "This is an MR model and the scan is a CT, so look twice."
    assert all(text_width(line, 14) <= 150 for line in lines)


def test_nothing_found(case: Case) -> None:
    result, volume = case
    nothing = CaseResult(empty_instances(volume.grid, ("x",)), 0.5, (), result.record)
    image = np.asarray(draw_preview(nothing, volume))
    assert len(np.unique(image[..., 0])) > 50
