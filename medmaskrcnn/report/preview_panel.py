"""One slice of the preview, as a radiologist views it: window, outlines, boxes, names, orientation labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from medmaskrcnn.report.colours import Colour, class_colours
from medmaskrcnn.report.preview_planes import PreviewPlane, oriented
from medmaskrcnn.report.style import TEXT, font, shortened, text_width
from medmaskrcnn.structures.axes import AxisMap
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.volume import Volume

_OVERSAMPLING = 2  # outlines are drawn larger and shrunk, for smooth edges
_OUTLINE = 3  # pixels, before shrinking
_FILL = 0.16
_PAD = 2  # voxels of background around a mask before it is enlarged
_CT_SOFT_TISSUE = (40.0, 400.0)
_PERCENTILES = (0.5, 99.5)
_MANY, _TOO_MANY = 12, 150  # instances per panel from which labels are ids only, and from which there are none
_LABEL_SIZE = 14

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class CrossSection:
    """One instance in one slice, in the picture's rows and columns.

    Attributes:
        number: The instance's id.
        text: Its label.
        colour: Its class's colour.
        mask: One slice thick; its other axes are the picture's rows and columns.
        box: Its detection box in this plane: left, top, right, bottom, in voxels.
    """

    number: int
    text: str
    colour: Colour
    mask: Mask
    box: Rectangle

    @property
    def bounds(self) -> Rectangle:
        """Tight box of the mask in this slice: left, top, right, bottom, in voxels."""
        tight = self.mask.tight()
        (_, top, left), (_, bottom, right) = tight.start, tight.end
        return left, top, right, bottom


def grey_range(volume: Volume) -> tuple[float, float]:
    """Values shown as black and white: the file's own window, soft tissue for CT, else percentiles of the scan."""
    window = volume.window or (_CT_SOFT_TISSUE if volume.modality == "CT" else None)
    if window and volume.channel_kind != "colour":
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    if volume.channel_kind == "colour" and volume.array.dtype == np.uint8:
        return 0.0, 255.0
    step = max(1, round((volume.array[0].size / 1e6) ** (1 / 3)))
    channels = volume.array if volume.channel_kind == "colour" else volume.array[:1]
    values = channels[:, ::step, ::step, ::step]
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, _PERCENTILES) if values.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-6 * max(abs(low), 1)))


def panel_size(grid: Grid, plane: PreviewPlane, longest: int) -> tuple[int, int]:
    """Width and height in pixels of a slice in its true proportions, its longer side ``longest``."""
    view = plane.view
    width = (plane.columns[1] - plane.columns[0]) * grid.voxel_size[view.column_axis]
    height = (plane.rows[1] - plane.rows[0]) * grid.voxel_size[view.row_axis]
    factor = longest / max(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def draw_panel(
    volume: Volume,
    instances: Instances,
    plane: PreviewPlane,
    size: tuple[int, int],
    greys: tuple[float, float],
    *,
    texts: Sequence[str] | None = None,
) -> Image.Image:
    """Draw one slice.

    Args:
        volume: The scan.
        instances: The result's instances, in the order of their ids.
        plane: The slice.
        size: Width and height in pixels, see :func:`panel_size`.
        greys: Values shown as black and white, see :func:`grey_range`.
        texts: Label of each instance ("" for none), in which case no boxes are drawn; by default its id, class and
            score.
    """
    picture = _picture(volume, plane, greys)
    across, down = size[0] / picture.width, size[1] / picture.height
    sections = [s for i in range(len(instances)) if (s := _cross_section(instances, i, plane)) is not None]
    if texts is not None:
        sections = [replace(s, text=texts[s.number - 1], box=s.bounds) for s in sections]
    large = picture.resize((size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING), Image.Resampling.BICUBIC)
    for section in sections:
        _paint(large, section, across * _OVERSAMPLING, down * _OVERSAMPLING)
    image = large.resize(size, Image.Resampling.BOX)
    if texts is not None:
        _annotate(image, [s for s in sections if s.text], across, down, boxes=False)
    elif len(sections) <= _MANY:
        _annotate(image, sections, across, down, boxes=True)
    elif len(sections) <= _TOO_MANY:
        numbers = [replace(s, text=str(s.number), box=s.bounds) for s in sections]
        _annotate(image, numbers, across, down, boxes=False)
    if volume.grid.spacing_known:
        _directions(image, plane)
        _scale_bar(image, volume.grid.voxel_size[plane.view.column_axis] / across)
    return image


def _picture(volume: Volume, plane: PreviewPlane, greys: tuple[float, float]) -> Image.Image:
    """The part of the slice that is shown, as RGB, one pixel per voxel."""
    colour = volume.channel_kind == "colour" and volume.array.shape[0] >= 3
    pixels = oriented(volume.array[: 3 if colour else 1], plane)[:, slice(*plane.rows), slice(*plane.columns)]
    channels = np.broadcast_to(np.nan_to_num(pixels.astype(np.float32)), (3, *pixels.shape[1:]))
    values = (channels.transpose(1, 2, 0) - greys[0]) / (greys[1] - greys[0])
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(np.uint8))


def _cross_section(instances: Instances, i: int, plane: PreviewPlane) -> CrossSection | None:
    """The ``i``-th instance in this slice; ``None`` if it has no voxel there."""
    view, shape = plane.view, instances.grid.shape
    low, high = [0, 0, 0], list(shape)
    low[view.axis], high[view.axis] = plane.index, plane.index + 1
    flat = instances.masks[i].cropped(low, high)
    if flat.is_empty:
        return None
    axes = AxisMap((view.axis, view.row_axis, view.column_axis), (False, view.flip_rows, view.flip_columns))
    corner = np.array([plane.index, plane.rows[0], plane.columns[0]])
    _, top, left, _, bottom, right = axes.apply_boxes(instances.boxes[i : i + 1], shape)[0] - np.tile(corner, 2)
    return CrossSection(
        number=i + 1,
        text=f"{i + 1}  {instances.class_names[instances.labels[i]]} {instances.scores[i]:.2f}",
        colour=class_colours(instances.class_names)[instances.labels[i]],
        mask=axes.apply_mask(flat, shape).shifted(-corner),
        box=(float(left), float(top), float(right), float(bottom)),
    )


def _paint(image: Image.Image, section: CrossSection, across: float, down: float) -> None:
    """Tint a mask and draw its smooth outline at ``across`` x ``down`` pixels per voxel."""
    (_, row, column), (_, last_row, last_column) = section.mask.start, section.mask.end
    padded = Image.fromarray(np.pad(section.mask.array[0], _PAD).astype(np.uint8) * 255)
    left, right = _pixels(column - _PAD, last_column + _PAD, across, image.width)
    top, bottom = _pixels(row - _PAD, last_row + _PAD, down, image.height)
    source = (  # within the mask: rounding may put an edge beyond it, which Pillow refuses
        max(0.0, left / across - column + _PAD),
        max(0.0, top / down - row + _PAD),
        min(float(padded.width), right / across - column + _PAD),
        min(float(padded.height), bottom / down - row + _PAD),
    )
    soft = padded.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=source)
    level = min(127, int(np.asarray(soft).max()) // 2)  # a voxel smaller than a pixel must not vanish
    mask = soft.point([255 if v > level else 0 for v in range(256)])
    # the picture's border is not an outline: the frame added here is cut off again
    framed = ImageOps.expand(mask, _OUTLINE)
    inner = framed.filter(ImageFilter.MinFilter(2 * _OUTLINE + 1)).crop(
        (_OUTLINE, _OUTLINE, _OUTLINE + mask.width, _OUTLINE + mask.height)
    )
    alpha = ImageChops.subtract(mask, inner.point([round(v * (1 - _FILL)) for v in range(256)]))
    image.paste(section.colour, (left, top), alpha)


def _pixels(low: float, high: float, scale: float, n: int) -> tuple[int, int]:
    """Whole pixels between two voxel coordinates, inside the picture."""
    return max(0, math.ceil(low * scale)), min(n, math.floor(high * scale))


def _annotate(image: Image.Image, sections: list[CrossSection], across: float, down: float, *, boxes: bool) -> None:
    """Draw boxes and names, placing names where they overlap least."""
    draw = ImageDraw.Draw(image, "RGBA")
    taken: list[Rectangle] = []
    scaled = [(s, _scaled(s.box, across, down)) for s in sections]
    if boxes:
        for section, box in scaled:
            draw.rectangle(box, outline=(*section.colour, 150))
    for section, box in sorted(scaled, key=lambda pair: pair[0].mask.n_voxels, reverse=True):
        text = shortened(section.text, _LABEL_SIZE, image.width - 6)
        place = _free_place(box, text, taken, image.size)
        taken.append(place)
        draw.rectangle((place[0] - 2, place[1], place[2] + 1, place[3]), fill=(0, 0, 0, 130))
        draw.text(place[:2], text, section.colour, font=font(_LABEL_SIZE))


def _scaled(box: Rectangle, across: float, down: float) -> Rectangle:
    left, top = box[0] * across, box[1] * down
    return left, top, max(box[2] * across - 1, left), max(box[3] * down - 1, top)


def _free_place(box: Rectangle, text: str, taken: list[Rectangle], size: tuple[int, int]) -> Rectangle:
    """Position of a name: near its box, inside the picture and clear of names already placed if possible."""
    width, height = text_width(text, _LABEL_SIZE), _LABEL_SIZE + 3
    left, top, right, bottom = box
    middle = (top + bottom - height) / 2
    spots = [
        (left, top - height - 2),
        (left, bottom + 1),
        (right - width, top - height - 2),
        (right - width, bottom + 1),
        (right + 4, middle),
        (left - width - 4, middle),
        (left + 3, top + 2),
        (left + 3, bottom - height - 2),
        *((left, top - (height + 1) * k) for k in range(2, 6)),
        *((left, bottom + (height + 1) * k) for k in range(1, 6)),
    ]
    places = []
    for x, y in spots:
        x = min(max(x, 3), max(size[0] - width - 3, 3))
        y = min(max(y, 2), max(size[1] - height - 2, 2))
        places.append((x, y, x + width, y + height))
    return min(places, key=lambda place: sum(_common_area(place, other) for other in taken))


def _common_area(a: Rectangle, b: Rectangle) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _directions(image: Image.Image, plane: PreviewPlane) -> None:
    """Write the patient's directions at the four edges: R, L, A, P, S or I."""
    draw = ImageDraw.Draw(image)
    left, right, top, bottom = plane.view.edges
    width, height = image.size
    places = [
        (left, (5, height / 2), "lm"),
        (right, (width - 5, height / 2), "rm"),
        (top, (width / 2, 4), "ma"),
        (bottom, (width / 2, height - 4), "md"),
    ]
    for letter, place, anchor in places:
        draw.text(place, letter, TEXT, font=font(15), anchor=anchor, stroke_width=2, stroke_fill=(0, 0, 0))


def _scale_bar(image: Image.Image, mm_per_pixel: float) -> None:
    """Draw a scale bar of a round length, at most a quarter of the picture, at the lower right."""
    longest = image.width / 4 * mm_per_pixel
    lengths = [mantissa * 10.0**power for power in range(-4, 4) for mantissa in (1, 2, 5)]
    length = max((n for n in lengths if n <= longest), default=lengths[0])
    pixels = length / mm_per_pixel
    text = f"{length / 10:g} cm" if length >= 10 else f"{length:g} mm"
    draw = ImageDraw.Draw(image)
    right, y = image.width - 10, image.height - 9
    draw.rectangle((right - pixels - 1, y - 1, right + 1, y + 2), fill=(0, 0, 0))
    draw.rectangle((right - pixels, y, right, y + 1), fill=TEXT)
    draw.text(
        (right - pixels / 2, y - 3), text, TEXT, font=font(12), anchor="md", stroke_width=2, stroke_fill=(0, 0, 0)
    )
