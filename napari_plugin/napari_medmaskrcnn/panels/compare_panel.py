"""Compare two results of one scan: matched, missed and false objects in colour and in a table."""

from __future__ import annotations

from pathlib import Path

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
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.compare import Comparison, compare, comparison_layers
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.io.reopen import reopen
from napari_medmaskrcnn.layers.scan_of_layer import NoScan, scan_of_layer
from napari_medmaskrcnn.panels.controls import button, column, form, named, note
from napari_medmaskrcnn.panels.host import Host

UNDER_REVIEW = "result under review"


class ComparePanel(QWidget):
    """The fourth tab.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._files: dict[str, CaseResult] = {}
        self.result = named(QComboBox(), "result", "What is judged")
        self.reference = named(QComboBox(), "reference", "What it is judged by")
        self.iou = named(QDoubleSpinBox(), "agreement", "Intersection over union from which two masks are one object")
        self.iou.setRange(0.05, 1.0)
        self.iou.setSingleStep(0.05)
        self.iou.setValue(0.5)
        self.by_class = named(QCheckBox("classes must match"), "classes must match", "Or compare shapes alone")
        self.by_class.setChecked(True)
        self.open = button("Add from a file...", "instances.npz, SEG, RTSTRUCT or label map of this scan", self._ask)
        self.run = button("Compare", "Match the two and show the difference in colours", self.start)
        self.table = named(QTableWidget(0, 3), "comparison", "What became of each object")
        self.table.setHorizontalHeaderLabels(["class", "outcome", "Dice"])
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.verticalHeader().hide()
        colours = note("Green is matched, red was missed, yellow is false; the layers' names say it too.")
        rows = (("Result", self.result), ("Reference", self.reference), ("Agreement", self.iou))
        column([form(rows), self.by_class, self.open, self.run, self.table, colours], self, stretch=False)
        host.session_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """List the results that can be compared."""
        names = ([UNDER_REVIEW] if self._host.review is not None else []) + list(self._files)
        for box, place in ((self.result, 0), (self.reference, 1)):
            chosen = box.currentText()
            box.clear()
            box.addItems(names)
            box.setCurrentText(chosen if chosen in names else names[min(place, len(names) - 1)] if names else "")
        self.run.setEnabled(len(names) > 1)

    def add_file(self, path: Path) -> None:
        """Add the result or the labels in a file to the list."""
        known: list[Volume] = [] if self._host.review is None else [self._host.review.volume]
        for layer in self._host.scan_layers():
            try:
                known.append(scan_of_layer(layer))
            except NoScan:
                continue
        try:
            _, result = reopen(path, known)
        except (MedMaskRCNNError, ValueError, OSError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._files[f"{path.parent.name}/{path.name}"] = result
        self.refresh()

    def start(self) -> None:
        """Compare the chosen results."""
        try:
            found = compare(
                self._instances(self.result.currentText()),
                self._instances(self.reference.currentText()),
                iou_threshold=self.iou.value(),
                by_class=self.by_class.isChecked(),
            )
        except ValueError as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._show(found)

    def _instances(self, name: str) -> Instances:
        if name == UNDER_REVIEW and self._host.review is not None:
            return self._host.review.to_result().instances
        return self._files[name].instances

    def _show(self, found: Comparison) -> None:
        for layer in [one for one in self._host.viewer.layers if one.metadata.get("medmaskrcnn_comparison")]:
            self._host.viewer.layers.remove(layer)
        for data, settings, _ in comparison_layers(found):
            settings["metadata"]["medmaskrcnn_comparison"] = True
            self._host.viewer.add_labels(data, **settings)
        rows = found.rows()
        self.table.setRowCount(len(rows))
        for row, texts in enumerate(rows):
            for place, text in enumerate(texts):
                self.table.setItem(row, place, QTableWidgetItem(text))
        self._host.show_message(found.sentence())

    def _ask(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Result or labels", filter="Results (*.npz *.dcm *.nii *.nii.gz *.nrrd *.mha);;All files (*)"
        )
        if path:
            self.add_file(Path(path))
