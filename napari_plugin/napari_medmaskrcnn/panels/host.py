"""What the panels share: the viewer, the engine, and the current review with its canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, Region
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.engine.client import Engine
from napari_medmaskrcnn.layers.canvas import ResultCanvas
from napari_medmaskrcnn.layers.display_frame import display_frame
from napari_medmaskrcnn.layers.drawn_boxes import Box, drawn_box
from napari_medmaskrcnn.layers.image_layers import layer_metadata, shown_axes, volume_to_layer, world_settings

_REST_MS = 250


class Host(QObject):
    """Holds the single review of a viewer.

    Args:
        viewer: napari's viewer.
        engine: The process that networks run in.
    """

    session_changed = Signal()
    """Emitted when another review replaced the last one, or the review was closed."""
    selection_changed = Signal()
    message_posted = Signal(str, str)
    """A sentence for the user and its kind: "", "Warning" or "Error"."""

    def __init__(self, viewer: ViewerModel, engine: Engine) -> None:
        super().__init__()
        self.viewer, self.engine = viewer, engine
        self.review: ReviewModel | None = None
        self.canvas: ResultCanvas | None = None
        self.selected: tuple[int, ...] = ()
        self.model = ""
        """The model that boxes are outlined with: the one that was run last."""
        self.options = AS_THE_MODEL_SAYS
        """Where and how it was run."""
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._settle)

    def show_message(self, text: str, kind: str = "") -> None:
        """Show a message to the user."""
        self.message_posted.emit(text, kind)

    def show(self, volume: Volume, result: CaseResult) -> None:
        """Review a result; it replaces the previous one."""
        self.close()
        self.review = ReviewModel(volume, result)
        self.canvas = ResultCanvas(self.viewer, self.review)
        self.canvas.clicked.connect(self._on_clicked)
        self.canvas.unsettled.connect(self._wait_for_rest)
        self.review.edited.connect(self._forget_gone)
        self.session_changed.emit()

    def close(self) -> None:
        """End the review and remove its layers."""
        if self.canvas is not None:
            self.canvas.close()
        self.review = self.canvas = None
        self.selected = ()
        self.session_changed.emit()

    def select(self, keys: tuple[int, ...]) -> None:
        """Select instances, here and on the canvas."""
        if keys != self.selected:
            self.selected = keys
            if self.canvas is not None:
                self.canvas.select(keys)
            self.selection_changed.emit()

    def scan_layers(self) -> list[Image]:
        """The image layers, topmost first."""
        return [layer for layer in reversed(self.viewer.layers) if isinstance(layer, Image)]

    def ensure_scan_shown(self, volume: Volume) -> None:
        """Add the scan's image layer if it is missing."""
        for layer in self.scan_layers():
            shown = layer.metadata.get("medmaskrcnn", {}).get("volume")
            if shown is volume or (shown is not None and shown.grid == volume.grid):
                return
        data, settings, _ = volume_to_layer(volume, volume.modality or "scan")
        self.viewer.add_image(data, **settings)

    def drawing_layer(self, name: str, volume: Volume) -> Shapes:
        """An empty Shapes layer over a scan with the rectangle tool active; reuses the layer of that name."""
        frame = display_frame(volume.grid)
        keep = shown_axes(volume.grid, frame)
        layer = next((one for one in self.viewer.layers if one.name == name and isinstance(one, Shapes)), None)
        if layer is None:
            layer = Shapes(
                ndim=len(keep),
                name=name,
                edge_color="cyan",
                face_color="transparent",
                edge_width=1,
                metadata=layer_metadata(volume.grid, frame),
                **world_settings(frame, keep),
            )
            self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = layer
        self.viewer.dims.ndisplay = 2
        layer.mode = "add_rectangle"
        return layer

    def drawn(self, name: str, volume: Volume) -> Box | None:
        """The box around the shapes drawn on the layer of this name, in the scan's voxels."""
        layer: Any = next((one for one in self.viewer.layers if one.name == name and isinstance(one, Shapes)), None)
        if layer is None:
            return None
        frame = display_frame(volume.grid)
        return drawn_box(layer.data, frame, shown_axes(volume.grid, frame))

    def remove_drawing(self, name: str) -> None:
        """Remove the layer that was drawn on."""
        for layer in [one for one in self.viewer.layers if one.name == name and isinstance(one, Shapes)]:
            self.viewer.layers.remove(layer)
        if self.canvas is not None and self.canvas.boxes.layer in self.viewer.layers:
            self.viewer.layers.selection.active = self.canvas.boxes.layer

    def current_slice(self, volume: Volume) -> Region:
        """The slice that the slider shows, as a region of the scan; the whole scan if it is a single image."""
        frame, shape = display_frame(volume.grid), volume.grid.shape
        keep = shown_axes(volume.grid, frame)
        low, high = [0, 0, 0], list(shape)
        dims = self.viewer.dims
        offset = dims.ndim - len(keep)
        for column, axis in enumerate(keep):
            if column + offset in dims.not_displayed:
                at = (dims.point[column + offset] - frame.translate[axis]) / frame.scale[axis]
                index = int(np.clip(round(at), 0, frame.shape[axis] - 1))
                stored = frame.axes[axis]
                low[stored] = shape[stored] - 1 - index if frame.flipped[axis] else index
                high[stored] = low[stored] + 1
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def _wait_for_rest(self) -> None:
        self._rest.start()

    def _settle(self) -> None:
        """Add and remove layers once the slider rests."""
        if self.canvas is not None:
            self.canvas.settle()

    def _on_clicked(self, key: int, more: bool) -> None:
        if not more:
            self.select((key,))
        elif key in self.selected:
            self.select(tuple(k for k in self.selected if k != key))
        else:
            self.select((*self.selected, key))

    def _forget_gone(self, keys: set[int]) -> None:
        if self.review is not None:
            self.select(tuple(k for k in self.selected if k in self.review.items))
