"""Drawings over the scan as SVG, in voxels of the network's input: sharp on any screen, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from medmaskrcnn.report.colours import Colour

Box = Sequence[float]
"""Minima, then maxima, in voxels (H, W, or D, H, W, of which the last two are drawn)."""

_SHARP = "image-rendering: pixelated"


def colour(rgb: Colour) -> str:
    """A colour for SVG and CSS."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


class Canvas:
    """A drawing with rows down and columns across; later parts cover earlier ones.

    Args:
        view: Visible first row, first column, last row, last column, in voxels.
        label: Text alternative for screen readers.
    """

    def __init__(self, view: tuple[float, float, float, float], label: str) -> None:
        self._view, self._label = view, label
        self._parts: list[str] = []

    def shared(self, name: str) -> Canvas:
        """A picture that the page defines once (:func:`shared_picture`)."""
        self._parts.append(f'<use href="#{name}"/>')
        return self

    def picture(
        self, uri: str, box: tuple[float, float, float, float], *, opacity: float = 1, sharp: bool = True
    ) -> Canvas:
        """A picture over ``box`` (first row and column, last row and column)."""
        top, left, bottom, right = box
        style = _SHARP if sharp else ""
        self._parts.append(
            f'<image href="{uri}" x="{left:g}" y="{top:g}" width="{right - left:g}" height="{bottom - top:g}" '
            f'preserveAspectRatio="none" opacity="{opacity:g}" style="{style}"/>'
        )
        return self

    def box(self, box: Box, stroke: str, *, width: float = 2, dashed: bool = False, opacity: float = 1) -> Canvas:
        """The outline of a box."""
        top, left, bottom, right = _plane(box)
        self._parts.append(
            f'<rect x="{left:.2f}" y="{top:.2f}" width="{right - left:.2f}" height="{bottom - top:.2f}" '
            f'stroke="{stroke}" stroke-width="{width:g}" opacity="{opacity:.2f}"{_dashes(dashed)}/>'
        )
        return self

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        stroke: str,
        *,
        width: float = 1,
        arrow: bool = False,
    ) -> Canvas:
        """A line from one ``(row, column)`` to another."""
        head = ' marker-end="url(#tip)"' if arrow else ""
        self._parts.append(
            f'<line x1="{start[1]:.2f}" y1="{start[0]:.2f}" x2="{end[1]:.2f}" y2="{end[0]:.2f}" '
            f'stroke="{stroke}" stroke-width="{width:g}"{head}/>'
        )
        return self

    def grid(self, rows: Sequence[float], columns: Sequence[float], stroke: str, *, width: float = 1) -> Canvas:
        """Lines along all ``rows`` and ``columns`` (cell edges, ascending)."""
        for row in rows:
            self.line((row, columns[0]), (row, columns[-1]), stroke, width=width)
        for column in columns:
            self.line((rows[0], column), (rows[-1], column), stroke, width=width)
        return self

    def dots(self, rows: Sequence[float], columns: Sequence[float], fill: str, radius: float) -> Canvas:
        """A dot at each crossing of a row and a column."""
        circles = "".join(f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{radius:.3f}"/>' for y in rows for x in columns)
        self._parts.append(f'<g fill="{fill}" stroke="none">{circles}</g>')
        return self

    def outline(self, path: str, stroke: str) -> Canvas:
        """A closed line, as SVG's path data in columns and rows."""
        self._parts.append(f'<path d="{path}" stroke="{stroke}" stroke-width="2"/>')
        return self

    def svg(self) -> str:
        """The drawing, as wide as its container."""
        top, left, bottom, right = self._view
        return (
            f'<svg viewBox="{left:g} {top:g} {right - left:g} {bottom - top:g}" role="img" '
            f'aria-label="{escape(self._label)}" class="canvas">{"".join(self._parts)}</svg>'
        )


def shared_picture(name: str, uri: str, height: int, width: int) -> str:
    """Define a picture that many drawings show, so that the page contains it only once."""
    return f'<image id="{name}" href="{uri}" x="0" y="0" width="{width}" height="{height}" preserveAspectRatio="none"/>'


def _plane(box: Box) -> tuple[float, float, float, float]:
    dims = len(box) // 2
    top, left = box[dims - 2 : dims]
    bottom, right = box[2 * dims - 2 :]
    return float(top), float(left), float(bottom), float(right)


def _dashes(dashed: bool) -> str:
    return ' stroke-dasharray="5 4"' if dashed else ""
