"""The letters of a radiologist's screen at the edges of the canvas, R, L, A, P, S, I, and a note on oblique scans."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtWidgets import QLabel, QWidget

from medmaskrcnn.structures.grid import Grid
from napari_medmaskrcnn.layers.display_frame import WORLD_AXES, display_frame
from napari_medmaskrcnn.panels.controls import named

ENDS = (("S", "I"), ("A", "P"), ("R", "L"))
"""Where each world axis (inferior, posterior, left) begins and ends."""

_OBLIQUE_DEG = 2.0
_MARGIN = 6
_STYLE = "color: #ffd54a; background: rgba(0, 0, 0, 110); font-weight: bold; padding: 1px 4px;"


def letters(displayed: tuple[int, ...], orientation: tuple[str, str] = ("down", "right")) -> dict[str, str]:
    """The letter at each edge, for the world axes that run along rows and columns.

    Example:
        >>> letters((1, 2))
        {'top': 'A', 'bottom': 'P', 'left': 'R', 'right': 'L'}
    """
    rows, columns = (ENDS[axis] for axis in displayed)
    if orientation[0] == "up":
        rows = rows[::-1]
    if orientation[1] == "left":
        columns = columns[::-1]
    return {"top": rows[0], "bottom": rows[1], "left": columns[0], "right": columns[1]}


def tilt_deg(grid: Grid) -> float:
    """The largest angle between an axis of the scan and the patient's axis that it is shown along, in degrees."""
    frame = display_frame(grid)
    directions = grid.affine_vox_to_ras[:3, :3] / np.array(grid.voxel_size)
    along = [abs(directions[2 - world, stored]) for world, stored in enumerate(frame.axes)]
    return float(np.degrees(np.arccos(np.clip(min(along), 0, 1))))


class PlaneLetters(QObject):
    """Draws the letters on the canvas of a viewer; without a scan in mm there are none.

    Args:
        viewer: napari's viewer.
        parent: Qt parent object.
    """

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._grid: Grid | None = None
        self._canvas: QWidget = viewer.window._qt_viewer.canvas.native
        self.labels = {edge: self._label(f"edge {edge}") for edge in ("top", "bottom", "left", "right")}
        self.note = self._label("about the view")
        self._canvas.installEventFilter(self)
        for event in (viewer.dims.events.order, viewer.dims.events.ndisplay, viewer.dims.events.ndim):
            event.connect(self._draw)

    def show_for(self, grid: Grid | None) -> None:
        """Draw the letters for a scan, or none."""
        self._grid = grid
        self._draw()

    def leave(self) -> None:
        """Take the letters away."""
        dims = self._viewer.dims.events
        for event in (dims.order, dims.ndisplay, dims.ndim):
            event.disconnect(self._draw)
        with suppress(RuntimeError):  # Qt has deleted the window
            self._canvas.removeEventFilter(self)
            for label in (*self.labels.values(), self.note):
                label.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Qt's hook: the letters stay at the edges."""
        if event.type() == QEvent.Type.Resize:
            self._place()
        return False

    def _label(self, name: str) -> QLabel:
        label = named(QLabel(self._canvas), name)
        label.setStyleSheet(_STYLE)
        label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        label.hide()
        return label

    def _draw(self, event: object = None) -> None:
        dims, grid = self._viewer.dims, self._grid
        first = dims.ndim - len(WORLD_AXES)
        shown = tuple(axis - first for axis in dims.displayed)
        told = grid is not None and grid.spacing_known and dims.ndisplay == 2 and min(shown, default=-1) >= 0
        for edge, label in self.labels.items():
            label.setVisible(told)
            if told:
                label.setText(letters(shown, self._orientation())[edge])
        tilt = tilt_deg(grid) if grid is not None and told else 0.0
        self.note.setVisible(tilt > _OBLIQUE_DEG)
        self.note.setText(f"oblique by {tilt:.0f}\N{DEGREE SIGN}: shown along its own axes")
        self._place()

    def _orientation(self) -> tuple[str, str]:
        """Where rows and columns run to on the screen; napari before 0.6 knows down and right alone."""
        camera = getattr(self._viewer, "scene", self._viewer).camera  # napari moved it in 0.9
        rows, columns = getattr(camera, "orientation2d", ("down", "right"))
        return str(getattr(rows, "value", rows)), str(getattr(columns, "value", columns))

    def _place(self) -> None:
        for label in (*self.labels.values(), self.note):
            label.adjustSize()
        wide, high = self._canvas.width(), self._canvas.height()
        top, bottom, left, right = (self.labels[edge] for edge in ("top", "bottom", "left", "right"))
        top.move((wide - top.width()) // 2, _MARGIN)
        bottom.move((wide - bottom.width()) // 2, high - bottom.height() - _MARGIN)
        left.move(_MARGIN, (high - left.height()) // 2)
        right.move(wide - right.width() - _MARGIN, (high - right.height()) // 2)
        self.note.move(_MARGIN, top.height() + 2 * _MARGIN)  # below the letter, which it would cover in a narrow window
