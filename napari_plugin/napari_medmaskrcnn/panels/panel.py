"""The main panel, with tabs to segment, review, save, compare and train, and a message line below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QSettings
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QPushButton, QTabWidget, QVBoxLayout, QWidget

from medmaskrcnn.structures.case_result import CaseResult
from napari_medmaskrcnn.engine.client import Engine
from napari_medmaskrcnn.engine.worker import Worker
from napari_medmaskrcnn.panels.compare_panel import ComparePanel
from napari_medmaskrcnn.panels.controls import Message, button, line, named
from napari_medmaskrcnn.panels.correct_panel import CorrectPanel
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.instance_table import InstanceTable
from napari_medmaskrcnn.panels.save_panel import SavePanel
from napari_medmaskrcnn.panels.segment_panel import SegmentPanel
from napari_medmaskrcnn.panels.threshold_sliders import ThresholdSliders
from napari_medmaskrcnn.panels.train_panel import TrainPanel

HINT = (
    "<b>Four steps.</b> 1. Open a scan (drop a DICOM folder, or File > Open Sample > medmaskrcnn). "
    "2. Segment: choose a model, Run. 3. Review: move the threshold, click a row, correct what is wrong. "
    "4. Save. <i>Research use only; not a medical device.</i>"
)
_HINT_SEEN = "hint seen"


class MedMaskPanel(QWidget):
    """napari's dock widget.

    Args:
        napari_viewer: Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.engine = Engine()
        self.host = Host(napari_viewer, self.engine)
        self.worker = Worker(self.engine, self)
        self.segment = SegmentPanel(self.host, self.worker)
        self.thresholds = ThresholdSliders(self.host)
        self.table = InstanceTable(self.host)
        self.correct = CorrectPanel(self.host, self.worker)
        self.save = SavePanel(self.host)
        self.compare = ComparePanel(self.host)
        self.train = TrainPanel(self.host, self._use_model)
        self.message = Message()
        self.tabs = named(QTabWidget(), "steps", "Segment, review, save")
        self._lay_out()
        self.host.message_posted.connect(self.message.show_message)
        self.host.session_changed.connect(self._on_session)
        napari_viewer.layers.events.inserted.connect(self._on_inserted)
        self.destroyed.connect(self.engine.stop)
        self.engine.warm_up()

    def closeEvent(self, event: QCloseEvent) -> None:
        """End the engine process with the panel; the layers stay."""
        self.engine.stop()
        super().closeEvent(event)

    def _lay_out(self) -> None:
        review = QWidget()
        layout = QVBoxLayout(review)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(5)
        layout.addWidget(self.thresholds)
        layout.addWidget(self.table, 1)
        layout.addWidget(line())
        layout.addWidget(self.correct)
        self.tabs.addTab(self.segment, "&Segment")
        self.tabs.addTab(review, "&Review")
        self.tabs.addTab(self.save, "Sa&ve")
        self.tabs.addTab(self.compare, "&Compare")
        self.tabs.addTab(self.train, "&Train")
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        self.hint, self.hint_button = self._hint()
        for widget in (self.hint, self.hint_button):
            whole.addWidget(widget)
        whole.addWidget(self.tabs, 1)
        whole.addWidget(self.message)
        self.setMinimumWidth(400)

    def _hint(self) -> tuple[QLabel, QPushButton]:
        """A hint on what to do, shown until the user dismisses it."""
        settings = QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "medmaskrcnn", "napari")
        label = named(QLabel(HINT), "first steps", "How to begin")
        label.setWordWrap(True)
        label.setContentsMargins(8, 8, 8, 0)

        def seen() -> None:
            settings.setValue(_HINT_SEEN, True)
            label.hide()
            close.hide()

        close = button("Got it", "Do not show this again", seen)
        fresh = not settings.value(_HINT_SEEN, False, type=bool)
        label.setVisible(fresh)
        close.setVisible(fresh)
        return label, close

    def _use_model(self, path: Path) -> None:
        """Choose a trained model for the next run."""
        self.segment.add_model(path)
        self.tabs.setCurrentIndex(0)

    def _on_session(self) -> None:
        if self.host.review is not None:
            self.tabs.setCurrentIndex(1)

    def _on_inserted(self, event: Any) -> None:
        """Offer layers of a saved result that a reader opened for review."""
        ours = event.value.metadata.get("medmaskrcnn", {})
        result, volume = ours.get("result"), ours.get("volume")
        if isinstance(result, CaseResult) and volume is not None and self.host.review is None:
            self.host.show_message("To review and correct this result, choose Save > Open a saved result.")
