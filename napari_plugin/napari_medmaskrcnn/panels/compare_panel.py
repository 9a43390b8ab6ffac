"""Compare two results of one scan: matched, missed and false objects in colour and in a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.report.units import volume_unit
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.compare import Comparison, Outcome, compare, suggested_classes
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.io.reopen import reopen
from napari_medmaskrcnn.layers.comparison_layers import comparison_layers
from napari_medmaskrcnn.layers.fly import fly_to
from napari_medmaskrcnn.panels.controls import button, column, form, named, note
from napari_medmaskrcnn.panels.host import Host

NO_CLASS = "no class of the reference"
_CLASSES_HEIGHT = 120
_OURS = "medmaskrcnn_comparison"


class ComparePanel(QWidget):
    """The fourth tab.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._files: dict[str, tuple[Volume, CaseResult]] = {}
        self._outcomes: list[Outcome] = []
        self._classes_of = ("", "")
        """The result and the reference whose classes are listed."""
        self._layer: Any = None
        self._volume: Volume | None = None
        self.result = named(QComboBox(), "result", "What is compared")
        self.reference = named(QComboBox(), "reference", "What it is compared with")
        self.iou = named(QDoubleSpinBox(), "agreement", "Intersection over union from which two masks are one object")
        self.iou.setRange(0.05, 1.0)
        self.iou.setSingleStep(0.05)
        self.iou.setValue(0.5)
        self.by_class = named(QCheckBox("classes must match"), "classes must match", "Or compare shapes alone")
        self.by_class.setChecked(True)
        self.classes = named(QTableWidget(0, 2), "classes", "Which class of the reference each class of the result is")
        self.classes.setHorizontalHeaderLabels(["class of the result", "in the reference"])
        self.classes.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.classes.verticalHeader().hide()
        self.classes.setFixedHeight(_CLASSES_HEIGHT)
        self.open = button("Add from a file...", "instances.npz, SEG, RTSTRUCT or label map of this scan", self._ask)
        self.run = button("Compare", "Match the two and show the difference in colours", self.start)
        self.table = named(QTableWidget(0, 5), "comparison", "What became of each object; click a row to fly there")
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().hide()
        self.table.cellClicked.connect(self._fly)
        self._head("mm")
        colours = note("Green is matched, red was missed, yellow is only in the result; the layers' names say it too.")
        rows = (("Result", self.result), ("Reference", self.reference), ("Agreement", self.iou))
        parts = [form(rows), self.by_class, self.classes, self.open, self.run, self.table, colours]
        column(parts, self, stretch=False)
        self.by_class.toggled.connect(self.classes.setEnabled)
        for box in (self.result, self.reference):
            box.currentIndexChanged.connect(self._on_choice)
        host.session_changed.connect(self.refresh)
        host.edited.connect(self._on_edited)
        self.refresh()

    def refresh(self) -> None:
        """List the open reviews and the files that can be compared; what was chosen stays."""
        names = [*(review.title for review in self._host.reviews.all), *self._files]
        for box, place in ((self.result, 0), (self.reference, 1)):
            chosen = box.currentText()
            with QSignalBlocker(box):
                box.clear()
                box.addItems(names)
                box.setCurrentIndex(names.index(chosen) if chosen in names else min(place, len(names) - 1))
        if len(names) > 1 and self.result.currentIndex() == self.reference.currentIndex():
            with QSignalBlocker(self.reference):
                self.reference.setCurrentIndex(int(self.result.currentIndex() == 0))
        self._on_choice()

    def add_file(self, path: Path) -> None:
        """Add the result or the labels in a file to the list, and take it as the reference."""
        reviews = [self._host.review.volume] if self._host.review is not None else []
        try:
            volume, result = reopen(path, [*reviews, *self._host.open_scans()])
        except (MedMaskRCNNError, ValueError, OSError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        name = f"{path.parent.name}/{path.name}"
        self._files[name] = volume, result
        self.refresh()
        if self.result.currentText() != name:
            self.reference.setCurrentText(name)

    def start(self) -> None:
        """Compare the chosen results."""
        result, reference = self._chosen(self.result), self._chosen(self.reference)
        if result is None or reference is None:
            return
        same = {name: theirs for name, theirs in self._classes_by_hand().items() if theirs != NO_CLASS}
        classes = same if self.by_class.isChecked() else None
        try:
            found = compare(result, reference, iou_threshold=self.iou.value(), classes=classes)
        except ValueError as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._show(found)

    def _chosen(self, box: QComboBox) -> Instances | None:
        name = box.currentText()
        review = self._review(name)
        if review is not None:
            return review.to_result().instances
        return self._files[name][1].instances if name in self._files else None

    def _review(self, name: str) -> ReviewModel | None:
        return next((review for review in self._host.reviews.all if review.title == name), None)

    def _on_choice(self, *_: object) -> None:
        """Suggest which classes are the same, and allow comparing only what differs."""
        both = self.result.count() > 1 and self.result.currentText() != self.reference.currentText()
        self.run.setEnabled(both)
        self.run.setToolTip("Match the two and show the difference in colours" if both else "Choose two that differ")
        names = (self.result.currentText(), self.reference.currentText())
        result, reference = (self._chosen(self.result), self._chosen(self.reference)) if both else (None, None)
        if result is None or reference is None:
            self.classes.setRowCount(0)
            return
        by_hand = self._classes_by_hand() if names == self._classes_of else {}
        suggested = {**suggested_classes(result, reference), **by_hand}
        self._classes_of = names
        self.classes.setRowCount(len(result.class_names))
        for row, name in enumerate(result.class_names):
            self.classes.setItem(row, 0, QTableWidgetItem(name))
            choice = named(QComboBox(), f"what {name} is", f"The class of the reference that {name} is compared with")
            choice.addItems([NO_CLASS, *reference.class_names])
            choice.setCurrentText(suggested.get(name, NO_CLASS))
            self.classes.setCellWidget(row, 1, choice)

    def _on_edited(self, _: object) -> None:
        if self.isVisible():
            self._on_choice()

    def _classes_by_hand(self) -> dict[str, str]:
        found = {}
        for row in range(self.classes.rowCount()):
            item, choice = self.classes.item(row, 0), self.classes.cellWidget(row, 1)
            if item is not None and isinstance(choice, QComboBox):
                found[item.text()] = choice.currentText()
        return found

    def _head(self, unit: str) -> None:
        names = ["class", "outcome", "Dice", f"Δ {volume_unit(unit)}", f"HD95 {unit}"]
        self.table.setHorizontalHeaderLabels(names)

    def _show(self, found: Comparison) -> None:
        viewer = self._host.viewer
        for layer in [one for one in viewer.layers if one.metadata.get(_OURS)]:
            viewer.layers.remove(layer)
        review = self._review(self.result.currentText()) or self._review(self.reference.currentText())
        self._volume = review.volume if review is not None else self._files[self.result.currentText()][0]
        for data, settings, _ in comparison_layers(found, self._host.place_of(self._volume)):
            settings["metadata"][_OURS] = True
            self._layer = viewer.add_labels(data, **settings)
        self._outcomes = found.outcomes
        self._head("mm" if found.result.grid.spacing_known else "px")
        self.table.setRowCount(len(self._outcomes))
        for row, one in enumerate(self._outcomes):
            for place, text in enumerate(_texts(one)):
                self.table.setItem(row, place, QTableWidgetItem(text))
        self._host.show_message(found.sentence())

    def _fly(self, row: int, _: int) -> None:
        if self._volume is not None and self._layer in self._host.viewer.layers:
            place = self._host.place_of(self._volume)
            fly_to(self._host.viewer, self._layer, self._outcomes[row].mask, place.frame, place.keep)

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Result or labels", filter="Results (*.npz *.dcm *.nii *.nii.gz *.nrrd *.mha);;All files (*)"
        )
        if path:
            self.add_file(Path(path))


def _texts(one: Outcome) -> tuple[str, ...]:
    dice = "" if one.dice is None else f"{one.dice:.2f}"
    volume = "" if one.volume_difference is None else f"{one.volume_difference:+.2f}"
    return one.class_name, one.outcome, dice, volume, "" if one.hd95 is None else f"{one.hd95:.1f}"
