"""Plane and window of the scan that is chosen, as in a radiologist's viewer."""

from __future__ import annotations

from typing import Any

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QWidget

from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.windowing import drag_window, reach_all_values, set_window, window_names
from napari_medmaskrcnn.panels.controls import named
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.plane_letters import PlaneLetters

PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Order of the world axes inferior, posterior, left, the slider's first."""

IN_3D = "3D"


class ViewControls(QWidget):
    """Two lists, and the letters on the canvas.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._layer: Any = None
        self.plane = named(QComboBox(), "plane", "The plane that is shown; letters at its edges tell the sides")
        self.plane.addItems([*PLANES, IN_3D])
        self.window_name = named(
            QComboBox(), "window", "Contrast: a window by its name, or hold Alt and drag on the picture"
        )
        has_window = getattr(host.viewer, "window", None) is not None
        self.letters = PlaneLetters(host.viewer, self) if has_window else None
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.plane, 1)
        layout.addWidget(self.window_name, 1)
        self.plane.activated.connect(self._on_plane)
        self.window_name.activated.connect(self._on_window)
        host.viewer.dims.events.order.connect(self._follow)
        host.viewer.dims.events.ndisplay.connect(self._follow)

    def follow_scan(self, layer: Any) -> None:
        """The scan that is chosen, or ``None``."""
        self._layer = layer
        volume = self._volume()
        self.window_name.clear()
        self.window_name.addItems([] if volume is None else window_names(volume))
        for control in (self.plane, self.window_name):
            control.setEnabled(volume is not None)
        if self.letters is not None:
            self.letters.show_for(None if volume is None else volume.grid)
        if volume is not None and drag_window not in layer.mouse_drag_callbacks:
            reach_all_values(layer, volume)
            layer.mouse_drag_callbacks.append(drag_window)

    def leave(self) -> None:
        """The panel is closed."""
        self._host.viewer.dims.events.order.disconnect(self._follow)
        self._host.viewer.dims.events.ndisplay.disconnect(self._follow)
        if self.letters is not None:
            self.letters.leave()
        for layer in self._host.scan_layers():
            if drag_window in layer.mouse_drag_callbacks:
                layer.mouse_drag_callbacks.remove(drag_window)

    def _volume(self) -> Volume | None:
        if not isinstance(self._layer, Image) or self._layer.rgb:
            return None
        found: Volume | None = self._layer.metadata.get("medmaskrcnn", {}).get("volume")
        return found

    def _on_plane(self, *_: object) -> None:
        dims, name = self._host.viewer.dims, self.plane.currentText()
        if name == IN_3D:
            dims.ndisplay = 3
            return
        dims.ndisplay = 2
        first = dims.ndim - 3
        if first >= 0:
            dims.order = (*range(first), *(axis + first for axis in PLANES[name]))
            self._host.viewer.reset_view()

    def _on_window(self, *_: object) -> None:
        volume = self._volume()
        if volume is not None:
            set_window(self._layer, volume, self.window_name.currentText())

    def _follow(self, event: object = None) -> None:
        """napari's own buttons turned the view."""
        dims = self._host.viewer.dims
        order = tuple(axis - (dims.ndim - 3) for axis in dims.order[-3:])
        name = next((name for name, axes in PLANES.items() if axes == order), "")
        with QSignalBlocker(self.plane):
            self.plane.setCurrentIndex(self.plane.findText(IN_3D if dims.ndisplay == 3 else name))
