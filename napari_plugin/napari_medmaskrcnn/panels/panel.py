"""The main panel, with tabs to segment, review, save, compare and train, and a message area of fixed height below."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QSettings
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QLabel, QPushButton, QTabWidget, QVBoxLayout, QWidget

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.structures.case_result import CaseResult
from napari_medmaskrcnn.core.autosave import Abandoned, discard
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.engine.per_viewer import borrow_engine, end_engine, return_engine
from napari_medmaskrcnn.engine.worker import Worker
from napari_medmaskrcnn.io.reopen import reopen
from napari_medmaskrcnn.panels.closing import ClosingGuard
from napari_medmaskrcnn.panels.compare_panel import ComparePanel
from napari_medmaskrcnn.panels.controls import Message, button, line, named
from napari_medmaskrcnn.panels.correct_panel import CorrectPanel
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.instance_table import InstanceTable
from napari_medmaskrcnn.panels.questions import ask
from napari_medmaskrcnn.panels.review_chooser import DISCARD, SAVE, ReviewChooser
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

CLOSE = "Close"


class MedMaskPanel(QWidget):
    """napari's dock widget.

    Args:
        napari_viewer: Given by napari.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._keep_copies = True
        self.engine = borrow_engine(napari_viewer)
        self.host = Host(napari_viewer, self.engine)
        self.worker = Worker(self.engine, self)
        self.segment = SegmentPanel(self.host, self.worker)
        self.thresholds = ThresholdSliders(self.host)
        self.table = InstanceTable(self.host)
        self.correct = CorrectPanel(self.host, self.worker, self.segment.model_for)
        self.save = SavePanel(self.host)
        self.compare = ComparePanel(self.host)
        self.train = TrainPanel(self.host, self._use_model)
        self.reviews = ReviewChooser(self.host, self.save.write, self.segment.scan_and_classes)
        self.message = Message()
        self.tabs = named(QTabWidget(), "steps", "Segment, review, save")
        self._lay_out()
        self.host.message_posted.connect(self.message.show_message)
        self.host.session_changed.connect(self._on_session)
        napari_viewer.layers.events.inserted.connect(self._on_inserted)
        self.guard = ClosingGuard(self, napari_viewer, self.may_close, self._end)
        self.engine.warm_up()
        self._offer_abandoned()

    def closeEvent(self, event: QCloseEvent) -> None:
        """Closed by a script: ask as when the dock's button is clicked."""
        if self.guard.ended:
            super().closeEvent(event)
        else:
            event.ignore()
            self.guard.close_panel()

    def may_close(self) -> bool:
        """Ask the user about unsaved reviews and what is running; False if the panel is to stay open."""
        unsaved = self.host.reviews.unsaved
        running = [
            *(["The model that is running is stopped."] if self.worker.busy else []),
            *(["Files are being written."] if self.save.background.running else []),
            *(["The training is stopped after its step; it can be resumed."] if self.train.running else []),
        ]
        if not unsaved and not running:
            return True
        named_ones = ", ".join(review.title for review in unsaved)
        question = f"Save {named_ones} before closing?" if unsaved else "Close while something is running?"
        answer = ask(self, question, " ".join(running), [SAVE, DISCARD] if unsaved else [CLOSE])
        if answer == SAVE:
            return all(self.save.write(review) for review in unsaved)
        self._keep_copies = answer != DISCARD
        return answer in (DISCARD, CLOSE)

    def _end(self, window_gone: bool) -> None:
        """Panel or window is gone: end what is running, remove the layers, return the engine."""
        self._viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.segment.leave()
        self.train.end()
        self.worker.cancel()
        if not self._keep_copies:
            for review in self.host.reviews.all:
                self.host.autosave.forget(review)
        elif self.host.reviews.unsaved:
            self.host.write_copies()
        self.host.autosave.wait()
        if window_gone:
            self.host.leave()
            end_engine(self._viewer)
        else:
            self.host.close()
            return_engine(self._viewer)

    def _lay_out(self) -> None:
        review = QWidget()
        layout = QVBoxLayout(review)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(5)
        layout.addWidget(self.reviews)
        layout.addWidget(self.thresholds)
        layout.addWidget(self.table, 1)
        layout.addWidget(line())
        layout.addWidget(self.correct)
        self.correct.bind_keys(review)
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

    def _offer_abandoned(self) -> None:
        """Offer the latest review that a crash left behind."""
        for copy in self.host.autosave.abandoned()[:1]:
            when = time.strftime("%d.%m. %H:%M", time.localtime(copy.when))
            self.message.offer(
                f"A review was not saved before napari ended: {copy.title}, {when}.",
                {"Restore": partial(self._restore, copy), "Discard": partial(self._discard, copy)},
            )

    def _restore(self, copy: Abandoned) -> None:
        try:
            volume, result = reopen(copy.folder / "instances.npz", self.host.open_scans())
        except (MedMaskRCNNError, ValueError, OSError) as error:
            self.message.offer(
                f"It cannot be restored yet: {in_words(error)}.",
                {"Restore": partial(self._restore, copy), "Discard": partial(self._discard, copy)},
            )
            return
        review = self.host.show(volume, result, title=copy.title)
        review.folder = copy.target or review.folder
        self.host.autosave.adopt(copy, review)
        self.host.show_message(f"{review.title} was restored. It is not saved yet.")

    def _discard(self, copy: Abandoned) -> None:
        discard(copy)
        self.host.show_message("")
        self._offer_abandoned()

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
        if isinstance(result, CaseResult) and volume is not None:
            self.message.offer("This result can be reviewed and corrected.", {"Review": partial(self._adopt, result)})

    def _adopt(self, result: CaseResult) -> None:
        """Review a result that a reader opened: its layers are replaced by those of the review."""
        layers = [one for one in self._viewer.layers if one.metadata.get("medmaskrcnn", {}).get("result") is result]
        if not layers:
            return
        volume = layers[0].metadata["medmaskrcnn"]["volume"]
        for layer in layers:
            self._viewer.layers.remove(layer)
        review = self.host.show(volume, result, saved=True)
        self.host.show_message(f"{review.title}: {len(result.kept)} instances.")
