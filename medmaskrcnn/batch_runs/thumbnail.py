"""``thumbnail.jpg``: a small picture of the plane with the most instances, for the summary of a batch."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from medmaskrcnn.report.preview_panel import draw_panel, grey_range, panel_size
from medmaskrcnn.report.preview_planes import PreviewPlane, choose_planes, cut_to_body
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume

THUMBNAIL = "thumbnail.jpg"
_DRAWN, _SHOWN = 330, 220  # longest side in pixels: drawn with outlines of the usual width, then downsampled


def write_thumbnail(result: CaseResult, volume: Volume, folder: Path) -> None:
    """Draw the preview plane that cuts the most instances; the same result gives the same bytes."""
    instances, greys = result.instances, grey_range(volume)
    planes = sorted(choose_planes(instances), key=lambda plane: -_cut(instances, plane))[:1]
    if volume.grid.spacing_known and not volume.is_planar:
        planes = cut_to_body(planes, volume, instances, greys)
    panel = draw_panel(volume, instances, planes[0], panel_size(volume.grid, planes[0], _DRAWN), greys)
    panel.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    panel.convert("RGB").save(folder / THUMBNAIL, format="JPEG", quality=80)


def _cut(instances: Instances, plane: PreviewPlane) -> int:
    """Number of instances that a plane cuts."""
    axis = plane.view.axis
    return sum(mask.start[axis] <= plane.index < mask.end[axis] for mask in instances.masks)
