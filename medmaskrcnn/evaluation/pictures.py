"""Picture of a case: the slice in which prediction and reference differ most, with both outlined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from medmaskrcnn.evaluation.metrics.objects import ObjectFigures
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.report.preview import caption
from medmaskrcnn.report.preview_panel import draw_panel, grey_range, panel_size
from medmaskrcnn.report.preview_planes import PreviewPlane, cut_to_body, whole_plane
from medmaskrcnn.report.style import BACKGROUND, FAINT, font, shortened, text_width
from medmaskrcnn.structures.grid import FloatArray
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.planes import axial_axis, plane_view
from medmaskrcnn.structures.volume import Volume

ROLES = ("reference", "prediction")
"""The two sets of outlines, each in its own colour as if it were a class."""

_LONGEST = 720  # longest side of the slice, pixels
_STRIP = 26  # height of the caption, pixels
_FEW = 12  # number of objects up to which found objects are labelled too


def draw_errors(
    volume: Volume, predicted: Instances, reference: Instances, objects: Sequence[ObjectFigures]
) -> Image.Image:
    """Draw the errors of a case.

    Args:
        volume: The scan.
        predicted: All candidates of the case.
        reference: The reference.
        objects: Outcome of each object, see :func:`medmaskrcnn.evaluation.metrics.objects.compare_objects`.

    Returns:
        An RGB picture of the axial slice with most voxels in error (or with most object voxels, if there is no error),
        with a caption that names the slice and explains the colours.
    """
    grid = volume.grid
    view = plane_view(grid, axial_axis(grid))
    shown, texts = _outlines(predicted, reference, objects)
    plane = whole_plane(grid, view, int(errors_per_slice(predicted, reference, objects, view.axis).argmax()))
    greys = grey_range(volume)
    if grid.spacing_known and not volume.is_planar:
        (plane,) = cut_to_body([plane], volume, shown, greys)
    panel = draw_panel(volume, shown, plane, panel_size(grid, plane, _LONGEST), greys, texts=texts)
    picture = Image.new("RGB", (panel.width, panel.height + _STRIP), BACKGROUND)
    picture.paste(panel, (0, 0))
    _write_caption(picture, volume, plane)
    return picture


def errors_per_slice(
    predicted: Instances, reference: Instances, objects: Sequence[ObjectFigures], axis: int
) -> FloatArray:
    """``(slices,)`` voxels in error along an array axis: of found objects those in only one mask, of others all.

    Without any error: voxels of the objects; without any object: 1 in the middle slice.
    """
    errors, present = np.zeros(predicted.grid.shape[axis]), np.zeros(predicted.grid.shape[axis])
    others = tuple(a for a in range(3) if a != axis)
    for one in objects:
        sides = [(predicted, one.predicted), (reference, one.reference)]
        masks = [Mask.empty() if i is None else side.masks[i] for side, i in sides]
        whole = masks[0].union(masks[1])
        first, second = (mask.dense(whole.array.shape, whole.start) for mask in masks)
        errors[whole.window[axis]] += (first ^ second).sum(axis=others)
        present[whole.window[axis]] += whole.array.sum(axis=others)
    if not objects:
        present[len(present) // 2] = 1
    return errors if errors.any() else present


def _outlines(
    predicted: Instances, reference: Instances, objects: Sequence[ObjectFigures]
) -> tuple[Instances, list[str]]:
    """References and predictions as instances of two classes, and the text beside each."""
    true = [(one.reference, one) for one in objects if one.reference is not None]
    found = [(one.predicted, one) for one in objects if one.predicted is not None]
    sides = [reference.select([i for i, _ in true]), predicted.select([i for i, _ in found])]
    together = Instances(
        grid=predicted.grid,
        class_names=ROLES,
        labels=np.repeat(np.arange(2), [len(true), len(found)]),
        scores=np.concatenate([side.scores for side in sides]),
        boxes=np.concatenate([side.boxes for side in sides]),
        masks=(*sides[0].masks, *sides[1].masks),
    )
    few = len(objects) <= _FEW
    named = few or len({one.class_name for one in objects}) > 1
    missed = [_words(one, few, named) if one.outcome == "missed" else "" for _, one in true]
    return together, missed + [_words(one, few, named) for _, one in found]


def _words(one: ObjectFigures, few: bool, named: bool) -> str:
    """Text beside an object: empty for a found object among many; the class only where it is informative."""
    name = f" {one.class_name}" if named else ""
    if one.outcome == "missed":
        return f"missed{name}"
    if one.outcome == "false positive":
        return f"false{name} {one.score:.2f}"
    return f"{one.class_name}, Dice {one.dice:.2f}" if few else ""


def _write_caption(picture: Image.Image, volume: Volume, plane: PreviewPlane) -> None:
    draw = ImageDraw.Draw(picture)
    y, right = picture.height - _STRIP + 5, picture.width - 8
    for label in (1, 0):
        right -= text_width(ROLES[label], 14)
        draw.text((right, y), ROLES[label], class_colours(ROLES)[label], font=font(14))
        right -= 14
    draw.text((8, y), shortened(caption(volume, plane), 14, right - 8), FAINT, font=font(14))
