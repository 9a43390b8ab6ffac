"""Correction tools, each with a shortcut: decide, relabel, merge, split, delete, paint, add by a box, undo."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QShortcut,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from medmaskrcnn.structures.instances import Instances
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.engine.messages import OutlineJob
from napari_medmaskrcnn.engine.worker import Worker
from napari_medmaskrcnn.layers.drawn_boxes import deepened, one_slice_axis, usual_depth
from napari_medmaskrcnn.panels.controls import button, keep_place, named, note
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
"""The key of each tool: it works in the panel, and on the canvas while a layer of the review or its scan is active."""


class CorrectPanel(QWidget):
    """The correction tools.

    Args:
        host: What the panels share.
        worker: Runs the segmentation within boxes.
        model_for: The model that outlines an object of a class in a review.
    """

    def __init__(self, host: Host, worker: Worker, model_for: Callable[[ReviewModel, str], str]) -> None:
        super().__init__()
        self._host, self._worker, self._model_for = host, worker, model_for
        self._outlined: ReviewModel | None = None
        self.buttons: dict[str, QPushButton] = {}
        self.class_name = named(QComboBox(), "class", "Class for Relabel, Paint and Outline; type a new one if need be")
        self.class_name.setEditable(True)
        self.box_depth = named(QSpinBox(), "depth of the box", "Slices that a box drawn on one slice reaches over")
        self.box_depth.setRange(1, 9999)
        self.box_depth.setPrefix("slices: ")
        self.hint = note()
        self.bar = keep_place(named(QProgressBar(), "outline progress", "How much of the outline is done"))
        self.cancel = keep_place(named(button("Cancel", "Stop outlining", worker.cancel), "cancel the outline"))
        self._lay_out()
        self._show_busy(False)
        host.session_changed.connect(self._on_session)
        host.selection_changed.connect(self._enable)
        host.edited.connect(self._enable)
        worker.finished.connect(self._on_outlined)
        worker.progressed.connect(self._on_progress)
        for signal in (worker.finished, worker.failed, worker.cancelled):
            signal.connect(self._on_end)
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
        """Merge the selected instances into one, and say which class it has if they had several."""
        review = self._host.review
        names = {review.items[key].class_name for key in self._host.selected} if review is not None else set()
        self._try(lambda review: self._host.select((review.merge(self._host.selected),)))
        if review is not None and len(names) > 1 and len(self._host.selected) == 1:
            (key,) = self._host.selected
            name = review.items[key].class_name
            lost = ", ".join(sorted(names - {name}))
            self._host.show_message(
                f"Instance {key} is now {name}, as the most certain one; {lost} went into it. Undo takes it back.",
                "Warning",
            )

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
            layer = canvas.free_layer_of_class(self.class_name.currentText() or review.class_names[0])
        layer.selected_label = key
        layer.preserve_labels = True  # other objects keep their voxels; napari's own check box says otherwise
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
        class_name = self.class_name.currentText()
        model = self._model_for(review, class_name)
        self._outlined = review
        self._worker.start(OutlineJob(review.volume, model, box, class_name, self._host.options), "outlining a box")
        self._show_busy(True)
        self._host.show_message(f"Outlining what is in the box with {model}.")

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
        review = self._outlined
        if not isinstance(answer, Instances) or review is None or review not in self._host.reviews.all:
            return
        self._host.reviews.show(review)
        if not len(answer) or answer.masks[0].is_empty:
            self._host.show_message(
                "The network sees nothing of this class in the box. Draw it larger, or paint.", "Warning"
            )
            return
        key = review.add(answer.class_names[answer.labels[0]], answer.masks[0], answer.boxes[0])
        self._host.remove_drawing(BOX)
        self._host.select((key,))
        self._host.show_message(f"Added as instance {key}.")

    def _show_busy(self, busy: bool) -> None:
        for control in (self.bar, self.cancel):
            control.setVisible(busy)
        self.bar.setValue(0)

    def _on_progress(self, share: float, text: str) -> None:
        if not self.bar.isHidden():
            self.bar.setValue(round(100 * share))
            self.bar.setFormat(text)

    def _on_end(self, *_: object) -> None:
        self._show_busy(False)

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
        work = QHBoxLayout()
        work.addWidget(self.bar, 1)
        work.addWidget(self.cancel)
        layout.addLayout(work)
        keys = ", ".join(f"{name}\u00a0<b>{key}</b>".replace(" ", "\u00a0") for name, key in KEYS.items())
        self.hint.setText(f"<small>{keys}</small>")
        layout.addWidget(self.hint)

    def bind_keys(self, tab: QWidget) -> None:
        """Let the keys act while something on ``tab`` has the focus, or a layer of the review is active in napari."""
        for name, key in KEYS.items():
            action = self._tools()[name][1]
            shortcut = QShortcut(QKeySequence(key), tab)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(action)
            self._host.keys[key.replace("Ctrl", "Control").replace("+", "-")] = action

    def _on_session(self) -> None:
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
