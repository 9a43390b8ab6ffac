"""``preview.png``: a picture of the detections.

A montage of slices in radiological convention (the patient's right on the left of the picture, anterior up) and true
proportions, each instance outlined in its class's colour with its box, id, name and score, next to a list of the
instances with their sizes. It contains no patient names or paths, and carries a stamp if the model was used out of
its domain.
"""

from __future__ import annotations

from collections import Counter
from typing import IO

from PIL import Image, ImageDraw

from medmaskrcnn.report.colours import Colour, class_colours
from medmaskrcnn.report.preview_panel import draw_panel, grey_range, panel_size
from medmaskrcnn.report.preview_planes import PreviewPlane, choose_planes, cut_to_body, slice_position
from medmaskrcnn.report.style import (
    AMBER,
    BACKGROUND,
    FAINT,
    RED,
    TEXT,
    drawable,
    font,
    shortened,
    text_width,
    wrapped,
)
from medmaskrcnn.report.units import diameters_text, intensity_unit, volume_text
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.result_table import OUT_OF_DOMAIN
from medmaskrcnn.structures.volume import Volume

_MARGIN = 16
_GAP = 10
_CAPTION = 22  # height of the line below each panel
_SIDEBAR = 430
_LINE = 21  # height of a line of the list
_PANEL_SIZE = {1: 860, 2: 560, 3: 440}  # longest side of a panel, by panels per row


def write_preview(result: CaseResult, volume: Volume, stream: IO[bytes]) -> None:
    """Draw the result's preview and write it as PNG.

    Args:
        result: The result.
        volume: The scan it belongs to.
        stream: Binary stream to write to.
    """
    draw_preview(result, volume).save(stream, format="PNG")


def draw_preview(result: CaseResult, volume: Volume) -> Image.Image:
    """The preview as an RGB image; see the module docstring."""
    montage = _montage(result, volume)
    width = montage.width + _SIDEBAR + 3 * _MARGIN
    head = _head(result, volume, width)
    body = max(montage.height, 360)
    canvas = Image.new("RGB", (width, head.height + body + 2 * _MARGIN), BACKGROUND)
    canvas.paste(head, (0, 0))
    canvas.paste(montage, (_MARGIN, head.height + _MARGIN))
    canvas.paste(_sidebar(result, body), (montage.width + 2 * _MARGIN, head.height + _MARGIN))
    return canvas


def _montage(result: CaseResult, volume: Volume) -> Image.Image:
    """The slices in rows, each with its caption."""
    drawn = draw_montage_panels(result, volume)
    panels, planes = [panel for panel, _ in drawn], [plane for _, plane in drawn]
    n_across = _across(len(planes))
    cell_width = max(panel.width for panel in panels)
    rows = [panels[k : k + n_across] for k in range(0, len(panels), n_across)]
    heights = [max(panel.height for panel in row) + _CAPTION + _GAP for row in rows]
    montage = Image.new("RGB", (n_across * (cell_width + _GAP) - _GAP, sum(heights) - _GAP), BACKGROUND)
    draw = ImageDraw.Draw(montage)
    for k, (panel, plane) in enumerate(zip(panels, planes, strict=True)):
        row, column = divmod(k, n_across)
        left, top = column * (cell_width + _GAP), sum(heights[:row])
        montage.paste(panel, (left + (cell_width - panel.width) // 2, top))
        draw.text((left, top + panel.height + 4), caption(volume, plane), FAINT, font=font(13))
    return montage


def draw_montage_panels(result: CaseResult, volume: Volume) -> list[tuple[Image.Image, PreviewPlane]]:
    """The preview's slices, outlined and annotated, each with the plane that it shows."""
    instances, grid = result.instances, volume.grid
    greys = grey_range(volume)
    planes = choose_planes(instances)
    if grid.spacing_known and not volume.is_planar:
        planes = cut_to_body(planes, volume, instances, greys)
    longest = _PANEL_SIZE[_across(len(planes))]
    return [(draw_panel(volume, instances, p, panel_size(grid, p, longest), greys), p) for p in planes]


def _across(n_panels: int) -> int:
    """Number of panels per row."""
    return {1: 1, 2: 2, 4: 2}.get(n_panels, 3)


def caption(volume: Volume, plane: PreviewPlane) -> str:
    """Caption of a slice: its orientation, number and position."""
    n_slices = volume.grid.shape[plane.view.axis]
    if not volume.grid.spacing_known:
        return f"slice {plane.index + 1} of {n_slices}" if n_slices > 1 else "picture, size of a pixel unknown"
    return f"{plane.view.kind}, slice {plane.index + 1} of {n_slices}, {slice_position(volume.grid, plane)}"


def _head(result: CaseResult, volume: Volume, width: int) -> Image.Image:
    """Title, processing summary, warnings and stamps."""
    record = result.record
    n = len(result.kept)
    found = f"{n} instance{'' if n == 1 else 's'} with a score of {result.score_threshold:.3g} or more"
    image = Image.new("RGB", (width, 2000), BACKGROUND)
    draw = ImageDraw.Draw(image)
    stamp = "Research use only. Not a medical device."
    draw.text((width - _MARGIN, 17), stamp, AMBER, font=font(16), anchor="ra")
    room = width - text_width(stamp, 16) - 4 * _MARGIN
    draw.text((_MARGIN, 12), shortened(f"medmaskrcnn  |  model {record.model_name}", 22, room), TEXT, font=font(22))
    draw.text((_MARGIN, 42), drawable("  |  ".join([found, *_image_words(volume)])), FAINT, font=font(15))
    y = 70
    if record.out_of_domain:
        draw.rectangle((0, y, width, y + 34), fill=RED)
        draw.text((width / 2, y + 17), OUT_OF_DOMAIN, (255, 255, 255), font=font(18), anchor="mm")
        y += 44
    for warning in record.warnings[:4]:
        for line in wrapped(f"Warning: {warning}", 14, width - 2 * _MARGIN)[:2]:
            draw.text((_MARGIN, y), line, AMBER, font=font(14))
            y += 20
    return image.crop((0, 0, width, y))


def _image_words(volume: Volume) -> list[str]:
    if volume.channel_kind == "colour":
        return ["colour picture"]
    low, high = grey_range(volume)
    shown = f"black to white {low:.4g} to {high:.4g} {intensity_unit(volume.modality) or ''}".rstrip()
    return [volume.modality, shown] if volume.modality else [shown]


def _sidebar(result: CaseResult, height: int) -> Image.Image:
    """Legend with counts, then the list of instances, as many as fit."""
    image = Image.new("RGB", (_SIDEBAR, height), BACKGROUND)
    draw = ImageDraw.Draw(image)
    found, kept = result.candidates, result.kept
    counts = Counter(int(found.labels[i]) for i in kept)
    y = 0
    colours = class_colours(found.class_names)
    shown = sorted(counts)[: max(1, height // _LINE // 3)]
    for label in shown:
        _swatch(draw, y, colours[label])
        draw.text((24, y), shortened(found.class_names[label], 15, 300), TEXT, font=font(15))
        draw.text((_SIDEBAR, y), str(counts[label]), TEXT, font=font(15), anchor="ra")
        y += _LINE
    if not kept:
        draw.text((0, y), "Nothing was found at this score.", TEXT, font=font(15))
        return image
    y += 6
    draw.line((0, y, _SIDEBAR, y), fill=FAINT)
    y += 8
    room = max(1, (height - y) // _LINE - 1)
    listed = kept if len(kept) <= room else kept[: room - 1]
    for x, anchor, name in (
        (24, "la", "id, class"),
        (212, "ra", "score"),
        (300, "ra", "volume" if found.grid.spacing_known else "size"),
        (430, "ra", "longest x across"),
    ):
        draw.text((x, y), name, FAINT, font=font(13), anchor=anchor)
    y += _LINE
    for number, i in enumerate(listed, start=1):
        _row(draw, y, number, result, i)
        y += _LINE
    if len(listed) < len(kept):
        draw.text((24, y), f"and {len(kept) - len(listed)} more: see the table", FAINT, font=font(13))
    return image


def _row(draw: ImageDraw.ImageDraw, y: int, number: int, result: CaseResult, i: int) -> None:
    found, m = result.candidates, result.measurements[i]
    label = int(found.labels[i])
    _swatch(draw, y, class_colours(found.class_names)[label])
    draw.text((24, y), shortened(f"{number}  {found.class_names[label]}", 13, 146), TEXT, font=font(13))
    diameters = diameters_text(m.longest_axial_diameter, m.perpendicular_diameter, m.unit)
    cells = ((212, f"{found.scores[i]:.2f}"), (300, drawable(volume_text(m.volume_unit3, m.unit))), (430, diameters))
    for x, text in cells:
        draw.text((x, y), text, TEXT, font=font(13), anchor="ra")


def _swatch(draw: ImageDraw.ImageDraw, y: int, colour: Colour) -> None:
    draw.rectangle((0, y + 3, 13, y + 14), fill=colour)
