"""``thumbnail.jpg``: the slice with the most in it, small, for the summary of many cases."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from medmaskrcnn.export.preview_panel import draw_panel, grey_range, panel_size
from medmaskrcnn.export.preview_planes import choose_planes
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume

THUMBNAIL = "thumbnail.jpg"
_DRAWN, _SHOWN = 440, 220  # longest side in pixels: drawn with outlines of the usual width, then shrunk


def write_thumbnail(result: CaseResult, volume: Volume, folder: Path) -> None:
    """Draw the first of the preview's planes and write it as JPEG; the same result gives the same bytes."""
    plane = choose_planes(result.instances)[0]
    size = panel_size(volume.grid, plane, _DRAWN)
    panel = draw_panel(volume, result.instances, plane, size, grey_range(volume))
    panel.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    panel.convert("RGB").save(folder / THUMBNAIL, format="JPEG", quality=80)
