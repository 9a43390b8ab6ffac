"""Boxes with name and score, drawn only on the current slice: few rectangles, however many instances there are."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Shapes

from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.layers.display_frame import DisplayFrame

MAX_BOXES = 60
"""Maximum number of boxes drawn per slice, highest scores first: napari needs about a millisecond for each."""

_COLOUR, _SELECTED = "yellow", "white"


class BoxesLayer:
    """A Shapes layer that follows the slice slider.

    Args:
        viewer: napari's viewer.
        review: The review whose instances are drawn.
        frame: How the scan lies in napari's world.
        keep: The world axes that the layer has.
        common: napari's keyword arguments that position it.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        review: ReviewModel,
        frame: DisplayFrame,
        keep: tuple[int, ...],
        common: dict[str, Any],
    ) -> None:
        self._viewer, self._session, self._frame, self._keep = viewer, review, frame, keep
        self._selected: set[int] = set()
        self._state: object = None
        self.layer = Shapes(
            ndim=len(keep),
            name="boxes",
            edge_color=_COLOUR,
            face_color="transparent",
            edge_width=0.5,
            features={"label": np.zeros(0, object)},
            text={"string": "{label}", "anchor": "upper_left", "size": 9, "color": _COLOUR},
            **common,
        )
        viewer.add_layer(self.layer)
        viewer.dims.events.current_step.connect(self.draw)
        viewer.dims.events.order.connect(self.draw)
        viewer.dims.events.ndisplay.connect(self.draw)
        self.layer.events.visible.connect(self.draw)

    def close(self, *, remove_layer: bool) -> None:
        """Stop following the slider; the layer is removed or stays as it is."""
        for event in ("current_step", "order", "ndisplay"):
            getattr(self._viewer.dims.events, event).disconnect(self.draw)
        self.layer.events.visible.disconnect(self.draw)
        if remove_layer and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    @property
    def selected(self) -> set[int]:
        """Keys whose boxes are selected."""
        return self._selected

    @selected.setter
    def selected(self, keys: set[int]) -> None:
        self._selected = keys
        self.draw()

    def position(self) -> int:
        """Index at which further layers are inserted: below the boxes."""
        layers = self._viewer.layers
        return layers.index(self.layer) if self.layer in layers else len(layers)

    def draw(self, event: Any = None) -> None:
        """Replace the boxes by those of the current slice."""
        if not self.layer.visible or self.layer not in self._viewer.layers:
            return
        boxes = self._boxes_here()
        state = [(key, self._session.items[key], key in self._selected, corners.tobytes()) for key, corners in boxes]
        if state == self._state:
            return
        self._state = state
        self.layer.selected_data = set()
        colours = [_SELECTED if key in self._selected else _COLOUR for key, _ in boxes]
        self.layer.data = []
        if boxes:
            items = [self._session.items[key] for key, _ in boxes]
            self.layer.feature_defaults = {"label": ""}
            self.layer.add(
                [corners for _, corners in boxes],
                shape_type="rectangle",
                edge_color=colours,
                face_color="transparent",
                edge_width=0.5,
            )
            self.layer.features = {"label": [f"{item.class_name} {item.score:.2f}" for item in items]}

    def _boxes_here(self) -> list[tuple[int, np.ndarray]]:
        """Key and corners ``(4, ndim)`` of each box that intersects the current slice; none in 3D."""
        dims = self._viewer.dims
        if dims.ndisplay != 2:
            return []
        offset = dims.ndim - len(self._keep)
        shown = [axis - offset for axis in dims.displayed if axis >= offset]
        at = {
            a - offset: self.layer.world_to_data(dims.point[-len(self._keep) :])[a - offset]
            for a in dims.not_displayed
            if a >= offset
        }
        if len(shown) != 2:
            return []
        found = []
        for key in sorted(self._session.keys_shown(), key=lambda k: -self._session.items[k].score):
            item = self._session.items[key]
            edges = np.array([item.mask.start, item.mask.end])
            corners = self._frame.coordinate_to_display(edges)[:, list(self._keep)]
            low, high = corners.min(axis=0), corners.max(axis=0)
            if all(low[axis] < where < high[axis] for axis, where in at.items()):
                found.append((key, _rectangle(low, high, shown, at)))
        return found[:MAX_BOXES]


def _rectangle(low: np.ndarray, high: np.ndarray, shown: list[int], at: dict[int, float]) -> np.ndarray:
    corners = np.zeros((4, len(low)))
    first, second = sorted(shown)
    corners[:, first] = [low[first], low[first], high[first], high[first]]
    corners[:, second] = [low[second], high[second], high[second], low[second]]
    for axis, where in at.items():
        corners[:, axis] = np.round(where)
    return corners
