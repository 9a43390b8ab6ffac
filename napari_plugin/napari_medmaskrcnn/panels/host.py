"""What the panels share: the viewer, the engine, the open reviews, and the canvas of the one that is shown."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import platformdirs
from napari.components import ViewerModel
from napari.layers import Image, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, Region
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.autosave import Autosave
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.core.reviews import Reviews
from napari_medmaskrcnn.core.save_folder import suggested_folder
from napari_medmaskrcnn.engine.client import Engine
from napari_medmaskrcnn.layers.canvas import ResultCanvas
from napari_medmaskrcnn.layers.drawn_boxes import Box, drawn_box
from napari_medmaskrcnn.layers.image_layers import layer_metadata, volume_to_layer
from napari_medmaskrcnn.layers.placement import Placement, placement
from napari_medmaskrcnn.layers.scan_of_layer import NoScan, scan_of_layer

_REST_MS = 250
_AUTOSAVE_MS = 2000
"""Time from a change to its copy on the disk; well below the 5 s that a crash may cost."""


class Host(QObject):
    """Holds the reviews of a viewer.

    Args:
        viewer: napari's viewer.
        engine: The process that networks run in.
    """

    session_changed = Signal()
    """Emitted when another review is shown, or none."""
    edited = Signal(object)
    """Emitted with the keys that changed in the review that is shown."""
    shown_changed = Signal()
    """Emitted when thresholds or hiding changed in the review that is shown."""
    unsaved_changed = Signal()
    """Emitted when a review was changed or saved, and reviews opened or closed."""
    selection_changed = Signal()
    message_posted = Signal(str, str)
    """A sentence for the user and its kind: "", "Warning" or "Error"."""

    def __init__(self, viewer: ViewerModel, engine: Engine) -> None:
        super().__init__()
        self.viewer, self.engine = viewer, engine
        self.reviews = Reviews()
        self.autosave = Autosave(autosave_home())
        self.canvas: ResultCanvas | None = None
        self.keys: dict[str, Callable[[], None]] = {}
        """Actions by key, while a layer of the review is active; in napari's notation."""
        self.selected: tuple[int, ...] = ()
        self.options = AS_THE_MODEL_SAYS
        """Where and how a model was run last; boxes are outlined in the same way."""
        self._layers: WeakKeyDictionary[Volume, ref[Image]] = WeakKeyDictionary()
        self._shown: ReviewModel | None = None
        self._rest = _timer(self, _REST_MS, self._settle)
        self._copy = _timer(self, _AUTOSAVE_MS, self.write_copies)
        self.reviews.changed.connect(self._on_reviews)

    @property
    def review(self) -> ReviewModel | None:
        """The review that is shown."""
        return self.reviews.current

    def show_message(self, text: str, kind: str = "") -> None:
        """Show a message to the user."""
        self.message_posted.emit(text, kind)

    def show(self, volume: Volume, result: CaseResult, *, title: str = "", saved: bool = False) -> ReviewModel:
        """Review a result; other reviews stay open.

        Args:
            volume: The scan.
            result: The result.
            title: What the review is called; by default after its model.
            saved: The result is one that was read from a file.
        """
        review = ReviewModel(volume, result, title=title, saved=saved)
        review.folder = None if saved else suggested_folder(volume)
        self.reviews.show(review)
        self._changed()
        return review

    def close_review(self, review: ReviewModel) -> None:
        """Close a review, whether it is saved or not, and remove its layers and its copy."""
        self.reviews.close(review)
        self.autosave.forget(review)
        self.unsaved_changed.emit()

    def close(self) -> None:
        """Close all reviews."""
        for review in list(self.reviews.all):
            self.close_review(review)

    def leave(self) -> None:
        """The viewer is gone or about to go: stop following it. Copies of unsaved reviews stay on the disk."""
        self._rest.stop()
        self._copy.stop()
        if self.canvas is not None:
            self.canvas.close(remove_layers=False)
            self.canvas = None

    def saved(self, review: ReviewModel, folder: Path, state: tuple[object, ...]) -> None:
        """A review, as its state was, was written to ``folder``; its copy is not needed if that is still the state."""
        review.mark_saved(folder, state)
        self._changed()

    def write_copies(self) -> None:
        """Copy all reviews with unsaved changes to the disk, from which they are restored after a crash."""
        self._copy.stop()
        for review in self.reviews.all:
            self.autosave.keep(review)

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

    def scan_of(self, layer: Image | None) -> Volume:
        """The scan that an image layer shows; results on it will lie where the layer lies.

        Raises:
            NoScan: if it is none.
        """
        volume = scan_of_layer(layer)
        self.remember(volume, layer)
        return volume

    def remember(self, volume: Volume, layer: Image | None) -> None:
        """A volume was made of this layer."""
        if layer is not None:
            self._layers[volume] = ref(layer)

    def open_scans(self) -> list[Volume]:
        """The scans of all image layers, visible ones first."""
        found = []
        for layer in sorted(self.scan_layers(), key=lambda layer: not layer.visible):
            try:
                found.append(self.scan_of(layer))
            except NoScan:
                continue
        return found

    def layer_of(self, volume: Volume) -> Image | None:
        """The image layer that shows a scan."""
        known = self._layers.get(volume, lambda: None)()
        layers = self.scan_layers()
        if known is not None and known in layers:
            return known
        held = [(layer, layer.metadata.get("medmaskrcnn", {}).get("volume")) for layer in layers]
        same = [layer for layer, other in held if other is volume]
        return next(iter(same or [layer for layer, other in held if other is not None and _same(other, volume)]), None)

    def reviews_of(self, volume: Volume) -> list[ReviewModel]:
        """The open reviews of a scan: of the same volume, or of one that was made of the same layer."""
        layer = self.layer_of(volume)
        return [
            review
            for review in self.reviews.all
            if review.volume is volume
            or (layer is not None and self.layer_of(review.volume) is layer and review.volume.grid == volume.grid)
        ]

    def place_of(self, volume: Volume) -> Placement:
        """Where a scan lies in the viewer."""
        return placement(volume.grid, self.layer_of(volume))

    def ensure_scan_shown(self, volume: Volume) -> Image:
        """Make the scan's image layer visible, and hide the scans above it; the layer is added if it is missing."""
        layer = self.layer_of(volume)
        if layer is None:
            data, settings, _ = volume_to_layer(volume, volume.modality or "scan")
            layer = self.viewer.add_image(data, **settings)
            self._layers[volume] = ref(layer)
        if not layer.visible:
            above = self.scan_layers()
            for other in above[: above.index(layer)]:
                other.visible = False
            layer.visible = True
        return layer

    def drawing_layer(self, name: str, volume: Volume) -> Shapes:
        """An empty Shapes layer over a scan with the rectangle tool active; reuses the layer of that name."""
        place = self.place_of(volume)
        layer = next((one for one in self.viewer.layers if one.name == name and isinstance(one, Shapes)), None)
        if layer is None:
            layer = Shapes(
                ndim=len(place.keep),
                name=name,
                edge_color="cyan",
                face_color="transparent",
                edge_width=1,
                metadata=layer_metadata(volume.grid, place.frame),
                **place.settings,
            )
            for key, action in self.keys.items():
                layer.bind_key(key, lambda _, act=action: act(), overwrite=True)
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
        place = self.place_of(volume)
        return drawn_box(layer.data, place.frame, place.keep)

    def remove_drawing(self, name: str) -> None:
        """Remove the layer that was drawn on."""
        for layer in [one for one in self.viewer.layers if one.name == name and isinstance(one, Shapes)]:
            self.viewer.layers.remove(layer)
        if self.canvas is not None and self.canvas.boxes.layer in self.viewer.layers:
            self.viewer.layers.selection.active = self.canvas.boxes.layer

    def current_slice(self, volume: Volume) -> Region:
        """The slice that the slider shows, as a region of the scan; the whole scan if it is a single image."""
        place, shape = self.place_of(volume), volume.grid.shape
        frame, keep = place.frame, place.keep
        low, high = [0, 0, 0], list(shape)
        dims = self.viewer.dims
        offset = dims.ndim - len(keep)
        at = _from_world(place, dims.point[offset:])
        for column, axis in enumerate(keep):
            if column + offset in dims.not_displayed:
                index = int(np.clip(round(at[column]), 0, frame.shape[axis] - 1))
                stored = frame.axes[axis]
                low[stored] = shape[stored] - 1 - index if frame.flipped[axis] else index
                high[stored] = low[stored] + 1
        return (low[0], low[1], low[2]), (high[0], high[1], high[2])

    def _on_reviews(self) -> None:
        """Draw the review that is to be shown now."""
        review = self.reviews.current
        if review is not self._shown:
            if self._shown is not None:
                self._shown.edited.disconnect(self._on_edited)
                self._shown.shown_changed.disconnect(self._on_shown)
            if self.canvas is not None:
                self.canvas.close()
                self.canvas = None
            self._shown, self.selected = review, ()
            if review is not None:
                scan = self.ensure_scan_shown(review.volume)
                self.canvas = ResultCanvas(self.viewer, review, scan, self.keys)
                self.canvas.clicked.connect(self._on_clicked)
                self.canvas.unsettled.connect(self._wait_for_rest)
                review.edited.connect(self._on_edited)
                review.shown_changed.connect(self._on_shown)
        self.session_changed.emit()

    def _on_edited(self, keys: set[int]) -> None:
        if self.review is not None:
            self.select(tuple(k for k in self.selected if k in self.review.items))
        self.edited.emit(keys)
        self._changed()

    def _on_shown(self) -> None:
        self.shown_changed.emit()
        self._changed()

    def _changed(self) -> None:
        """Something is or is no longer unsaved; the copy follows within :data:`_AUTOSAVE_MS`, also while one paints."""
        if not self._copy.isActive():
            self._copy.start()
        self.unsaved_changed.emit()

    def _wait_for_rest(self) -> None:
        self._rest.start()

    def _settle(self) -> None:
        """Add and remove layers once the slider rests."""
        if self.canvas is not None:
            self.canvas.settle()

    def _on_clicked(self, key: int, more: bool) -> None:
        if not key:
            self.select(self.selected if more else ())
        elif not more:
            self.select((key,))
        elif key in self.selected:
            self.select(tuple(k for k in self.selected if k != key))
        else:
            self.select((*self.selected, key))


def autosave_home() -> Path:
    """Where copies of unsaved reviews are kept: in the user's cache, or where ``MEDMASKRCNN_REVIEWS`` says."""
    named = os.environ.get("MEDMASKRCNN_REVIEWS")
    return Path(named) if named else platformdirs.user_cache_path("medmaskrcnn", appauthor=False) / "reviews"


def _timer(parent: QObject, milliseconds: int, then: Callable[[], None]) -> QTimer:
    made = QTimer(parent)
    made.setSingleShot(True)
    made.setInterval(milliseconds)
    made.timeout.connect(then)
    return made


def _same(one: Volume, other: Volume) -> bool:
    """Whether two volumes are one scan: the same series and place, or the same files."""
    ours, theirs = one.provenance, other.provenance
    same_source = ours.series_uid == theirs.series_uid if ours.series_uid else ours.files == theirs.files
    return one.grid == other.grid and same_source


def _from_world(place: Placement, point: Any) -> Any:
    """Data coordinates of a world point, for a layer placed so."""
    matrix = np.array(place.settings.get("affine", np.eye(len(place.keep) + 1)))
    scale, translate = np.array(place.settings["scale"]), np.array(place.settings["translate"])
    moved = np.linalg.solve(matrix[:-1, :-1], np.asarray(point, float) - matrix[:-1, -1])
    return (moved - translate) / scale
