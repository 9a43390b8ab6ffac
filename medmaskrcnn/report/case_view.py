"""A result in a notebook or as a figure of matplotlib, drawn with the slices of the preview.

A result does not hold its scan. Its slices are drawn from the files that it was read from, if they are still there, or
else from the instances alone.
"""

from __future__ import annotations

import base64
import html as html_text
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.report.preview import caption, draw_montage_panels, draw_preview
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.result_table import Cell, columns, rows
from medmaskrcnn.structures.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANEL_INCHES = 3.2
_DIGITS = 4


def html(result: CaseResult) -> str:
    """The preview as a picture, and the table of instances below it: an HTML fragment without scripts or styles."""
    stream = io.BytesIO()
    draw_preview(result, scan_of(result)).save(stream, format="PNG")
    picture = base64.b64encode(stream.getvalue()).decode("ascii")
    names = columns(result.candidates.grid.spacing_known)
    head = "".join(f"<th>{html_text.escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{_shown(cell)}</td>' for cell in row)}</tr>" for row in rows(result))
    image = (
        f'<img alt="The instances on slices of the scan" style="max-width:100%" src="data:image/png;base64,{picture}">'
    )
    return f"<div>{image}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def figure(result: CaseResult, volume: Volume | None) -> Figure:
    """The preview's slices as axes of a figure, each with its caption.

    Args:
        result: The result.
        volume: Its scan; ``None`` to read it again from its files.

    Raises:
        ValueError: if the scan has another grid than the result.
    """
    if volume is not None and volume.grid != result.candidates.grid:
        raise ValueError(f"the result lies on grid {result.candidates.grid}, the scan on {volume.grid}")
    scan = volume or scan_of(result)
    panels = draw_montage_panels(result, scan)
    across = min(3, len(panels))
    down = math.ceil(len(panels) / across)
    made = _new_figure((_PANEL_INCHES * across, _PANEL_INCHES * down))
    axes = made.subplots(down, across, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for place, (panel, plane) in zip(axes.flat, panels, strict=False):
        place.imshow(panel)
        place.set_title(caption(scan, plane), fontsize=8)
    return made


def _new_figure(inches: tuple[float, float]) -> Figure:
    """A figure that notebooks and windows show; where there is no display, one that can be saved."""
    from matplotlib.figure import Figure  # here: a notebook that never plots does not wait for it

    try:
        import matplotlib.pyplot as plt

        return plt.figure(figsize=inches, layout="constrained")
    except (ImportError, RuntimeError):  # of the window system that matplotlib has chosen
        return Figure(figsize=inches, layout="constrained")


def scan_of(result: CaseResult) -> Volume:
    """The scan of a result, read again from its files; an empty one on the same grid if that cannot be done."""
    files = [Path(name) for name in result.run.get("files", ())]
    grid = result.candidates.grid
    if files and all(file.exists() for file in files):
        source = files[0] if len(files) == 1 else files[0].parent
        try:
            volume = read_volume(source, series=None if len(files) == 1 else result.record.source.get("series_uid"))
        except MedMaskRCNNError:
            volume = None
        if volume is not None and volume.grid == grid:
            return replace(volume, array=volume.array[:1]) if volume.channel_kind == "unknown" else volume
    return Volume(np.zeros((1, *grid.shape), np.uint8), grid, modality=result.record.source.get("modality"))


def _shown(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.{_DIGITS}g}" if isinstance(cell, float) else html_text.escape(str(cell))
