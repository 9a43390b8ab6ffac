"""Correction tools, each with a shortcut: decide, relabel, merge, split, delete, paint, add by a box, undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QPushButton, QShortcut, QSpinBox, QVBoxLayout, QWidget

from medmaskrcnn.structures.instances import Instances
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.engine.messages import OutlineJob
from napari_medmaskrcnn.engine.worker import Worker
from napari_medmaskrcnn.layers.drawn_boxes import Box, deepened, one_slice_axis, usual_depth
from napari_medmaskrcnn.panels.controls import button, named, note
from napari_medmaskrcnn.panels.host import Host

BOX = "box to outline"

KEYS = {
    "Accept": "Shift+Y",
    "Reject": "Shift+N",
    "Relabel": "Shift+R",
    "Merge": "Shift+M",
    "Split": "Shift+S",
    "Delete": "Shift+D",
    "Paint": "Shift+B",
    "Draw a box": "Shift+X",
    "Outline": "Shift+O",
    "Undo": "Ctrl+Z",
    "Redo": "Ctrl+Shift+Z",
}
"""The key of each tool; they work on the canvas and in the panel. None of them is one of napari's own."""


class CorrectPanel(QWidget):
    """The correction tools.

    Args:
        host: What the panels share.
        worker: Runs the segmentation within boxes.
    """

    def __init__(self, host: Host, worker: Worker) -> None:
        super().__init__()
        self._host, self._worker = host, worker
        self._box: Box | None = None
        self.buttons: dict[str, QPushButton] = {}
        self.class_name = named(QComboBox(), "class", "Class for Relabel, Paint and Outline; type a new one if need be")
        self.class_name.setEditable(True)
        self.box_depth = named(QSpinBox(), "depth of the box", "Slices that a box drawn on one slice reaches over")
        self.box_depth.setRange(1, 9999)
        self.box_depth.setPrefix("slices: ")
        self.hint = note()
        self._lay_out()
        self._bind_keys()
        host.session_changed.connect(self._on_session)
        host.selection_changed.connect(self._enable)
        worker.finished.connect(self._on_outlined)
        worker.failed.connect(self._on_failed)
        self._enable()

    def _tools(self) -> dict[str, tuple[str, Callable[[], None]]]:
        return {
            "Accept": ("In the result, whatever the score", partial(self._decide, "accepted")),
            "Reject": ("Not in the result, whatever the score", partial(self._decide, "rejected")),
            "Relabel": ("Give the selected instances the class chosen above", self.relabel),
            "Merge": ("One instance of the selected ones", self.merge),
            "Split": ("The selected instance into its parts, or in two", self.split),
            "Delete": ("Remove the selected instances for good", self.delete),
            "Paint": ("napari's brush on the selected instance, or on a new one of the class above", self.paint),
            "Draw a box": ("Drag a rectangle around what was missed", self.draw_box),
            "Outline": ("Let the network outline what is in the box", self.outline),
            "Undo": ("Take back the last change", self.undo),
            "Redo": ("Do again what was taken back", self.redo),
        }

    def relabel(self) -> None:
        """Give the selected instances the chosen class."""
        self._try(lambda review: review.relabel(self._host.selected, self.class_name.currentText()))
        self._offer_classes()

    def merge(self) -> None:
        """Merge the selected instances into one."""
        self._try(lambda review: self._host.select((review.merge(self._host.selected),)))

    def split(self) -> None:
        """Split the selected instance."""
        if len(self._host.selected) != 1:
            self._host.show_message("Select one instance to split.", "Warning")
            return
        self._try(lambda review: self._host.select(tuple(review.split(self._host.selected[0]))))

    def delete(self) -> None:
        """Delete the selected instances."""
        self._try(lambda review: review.delete(self._host.selected))

    def undo(self) -> None:
        """Undo the last change."""
        self._try(ReviewModel.undo)

    def redo(self) -> None:
        """Redo the change that was last undone."""
        self._try(ReviewModel.redo)

    def paint(self) -> None:
        """Activate napari's brush, on the selected instance or on a new one."""
        review, canvas = self._host.review, self._host.canvas
        if review is None or canvas is None:
            return
        key = self._host.selected[-1] if self._host.selected else review.unused_key()
        layer = canvas.labels_layer(key)
        if layer is None:
            key = review.unused_key()
            layer = canvas.layer_of_class(self.class_name.currentText() or review.class_names[0])
        layer.selected_label = key
        layer.preserve_labels = False
        layer.mode = "paint"
        self._host.viewer.layers.selection.active = layer
        known = key in review.items
        self._host.show_message(
            f"Painting {'instance' if known else 'a new instance,'} {key}. E erases, Z ends painting."
        )

    def draw_box(self) -> None:
        """Activate the rectangle tool on a layer of its own."""
        if self._host.review is None:
            return
        layer = self._host.drawing_layer(BOX, self._host.review.volume)
        layer.data = []
        layer.mode = "add_rectangle"
        layer.events.data.connect(self._on_drawn)
        self._host.show_message("Drag a rectangle around the object on a slice in its middle.")

    def outline(self) -> None:
        """Segment the object in the drawn box."""
        review = self._host.review
        if review is None or self._worker.busy:
            return
        box = self._host.drawn(BOX, review.volume)
        if box is None:
            self._host.show_message("No box is drawn yet: choose 'Draw a box' and drag a rectangle.", "Warning")
            return
        axis = one_slice_axis(box)
        if axis is not None and not review.volume.is_planar:
            box = deepened(box, axis, self.box_depth.value(), review.volume.grid.shape)
        self._box = box
        model = self._host.model or review.record.model_name
        self._worker.start(
            OutlineJob(
                review.volume,
                model,
                box,
                self.class_name.currentText(),
                self._host.options,
            ),
            "outlining a box",
        )
        self._host.show_message("Outlining what is in the box.")

    def _decide(self, verdict: str) -> None:
        self._try(lambda review: review.decide(self._host.selected, verdict))  # type: ignore[arg-type]

    def _try(self, action: Callable[[ReviewModel], object]) -> None:
        """Apply an action to the review; errors are shown to the user."""
        if self._host.review is None:
            return
        try:
            action(self._host.review)
        except ValueError as error:
            self._host.show_message(str(error), "Warning")
        else:
            self._host.show_message("")

    def _on_drawn(self, event: object = None) -> None:
        review = self._host.review
        box = self._host.drawn(BOX, review.volume) if review is not None else None
        if box is None or review is None:
            return
        axis = one_slice_axis(box)
        self.box_depth.setEnabled(axis is not None and not review.volume.is_planar)
        if axis is not None:
            self.box_depth.setValue(usual_depth(box, axis, review.volume.grid.voxel_size))
        self._host.show_message("Set how deep it is, or draw it on a second slice; then Outline.")

    def _on_outlined(self, answer: object) -> None:
        review = self._host.review
        if not isinstance(answer, Instances) or review is None or self._box is None:
            return
        if not len(answer) or answer.masks[0].is_empty:
            self._host.show_message(
                "The network sees nothing of this class in the box. Draw it larger, or paint.", "Warning"
            )
            return
        key = review.add(answer.class_names[answer.labels[0]], answer.masks[0], answer.boxes[0])
        self._host.remove_drawing(BOX)
        self._host.select((key,))
        self._host.show_message(f"Added as instance {key}.")

    def _on_failed(self, message: str, details: str) -> None:
        if self._box is not None:
            self._box = None

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setSpacing(4)
        for place, (name, (tip, action)) in enumerate(self._tools().items()):
            made = button(name, tip, action, KEYS[name])
            self.buttons[name] = made
            if name not in ("Draw a box", "Outline"):
                grid.addWidget(made, *divmod(place if place < 7 else place - 2, 3))
        row = QHBoxLayout()
        row.addWidget(self.buttons["Draw a box"], 1)
        row.addWidget(self.box_depth)
        row.addWidget(self.buttons["Outline"], 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.class_name)
        layout.addLayout(grid)
        layout.addLayout(row)
        keys = ", ".join(f"{name}\u00a0<b>{key}</b>".replace(" ", "\u00a0") for name, key in KEYS.items())
        self.hint.setText(f"<small>{keys}</small>")
        layout.addWidget(self.hint)

    def _bind_keys(self) -> None:
        for name, key in KEYS.items():
            action = self._tools()[name][1]
            QShortcut(QKeySequence(key), self).activated.connect(action)
            pressed = key.replace("Ctrl", "Control").replace("+", "-")
            self._host.viewer.bind_key(pressed, lambda _, act=action: act(), overwrite=True)

    def _on_session(self) -> None:
        if self._host.review is not None:
            self._host.review.edited.connect(self._enable)
        self._offer_classes()
        self._enable()

    def _offer_classes(self) -> None:
        chosen = self.class_name.currentText()
        self.class_name.clear()
        if self._host.review is not None:
            self.class_name.addItems(list(self._host.review.class_names))
            if chosen in self._host.review.class_names:
                self.class_name.setCurrentText(chosen)

    def _enable(self, *_: object) -> None:
        review, n = self._host.review, len(self._host.selected)
        needs = {"Accept": n > 0, "Reject": n > 0, "Relabel": n > 0, "Delete": n > 0, "Merge": n > 1, "Split": n == 1}
        for name, made in self.buttons.items():
            made.setEnabled(review is not None and needs.get(name, True))
        self.box_depth.setEnabled(review is not None)
        if review is not None:
            for name, what in (("Undo", review.undo_text), ("Redo", review.redo_text)):
                self.buttons[name].setEnabled(bool(what))
                self.buttons[name].setToolTip(f"{name}: {what or 'nothing'} ({KEYS[name]})")
