"""Choose scan, model, device, classes and region; run, follow the progress, cancel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QMenu,
    QProgressBar,
    QPushButton,
    QToolButton,
    QWidget,
)

from medmaskrcnn.errors import ModelFileError, ReadError
from medmaskrcnn.hub.model_file import SUFFIX, read_model_settings, resolve_model, shipped_models
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, ENGINES, PRECISIONS, Region, SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.model_card import card_html
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.engine.messages import SegmentJob
from napari_medmaskrcnn.engine.worker import Worker
from napari_medmaskrcnn.layers.drawn_boxes import one_slice_axis, to_region
from napari_medmaskrcnn.layers.scan_of_layer import NoScan
from napari_medmaskrcnn.panels.controls import beside, button, column, form, named, note
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.sequence_choice import SequenceChoice

REGION = "region to segment"
WHOLE, SLICE, DRAWN = "whole scan", "current slice", "region I draw"


@dataclass(frozen=True)
class SegmentSettings:
    """The panel's inputs.

    Attributes:
        model: Name of a shipped model, or a path.
        where: One of :data:`WHOLE`, :data:`SLICE`, :data:`DRAWN`.
        options: All other inputs.
    """

    model: str = ""
    where: str = WHOLE
    options: SegmentOptions = AS_THE_MODEL_SAYS

    def to_job(self, volume: Volume, region: Region | None) -> SegmentJob:
        """The job with the arguments of the library's call.

        Raises:
            ValueError: if no class is chosen, or a drawn region is required and missing.
        """
        if self.options.classes == ():
            raise ValueError("No class is chosen. Choose at least one under Classes.")
        if self.where == DRAWN and region is None:
            raise ValueError("No region is drawn yet. Drag a rectangle over the scan, then Run.")
        return SegmentJob(volume, self.model, self.options.model_copy(update={"region": region}))


class SegmentPanel(QWidget):
    """The first tab.

    Args:
        host: What the panels share.
        worker: Runs the job.
    """

    def __init__(self, host: Host, worker: Worker) -> None:
        super().__init__()
        self._host, self._worker = host, worker
        self._volume: Volume | None = None
        self._model_settings: ModelFileSettings | None = None
        self.scan = named(QComboBox(), "scan", "The image layer to segment")
        self.sequences = SequenceChoice(host)
        self.model = named(QComboBox(), "model", "A model that comes with the package, or a file of yours")
        self.card = named(note(), "model card", "What the model is, and what it cannot do")
        self.device = named(QComboBox(), "device", "Where the network runs; auto takes a GPU if there is one")
        self.precision = named(QComboBox(), "precision", "In what the network computes; auto is what the model says")
        self.engine = named(QComboBox(), "engine", "What runs the network's layers; auto is what the model says")
        self.classes = named(QPushButton(), "classes", "Which classes to look for")
        self.where = named(QComboBox(), "where", "The whole scan, the slice that is shown, or a region you draw")
        self.domain = named(
            QCheckBox("Scans the model was not made for"),
            "allow out of domain",
            "Run it all the same; the result and every file made of it are stamped OUT OF DOMAIN",
        )
        self.run = button("Run", "Find, outline and measure every instance", self.start)
        self.cancel = button("Cancel", "Stop at once", worker.cancel)
        self.bar = named(QProgressBar(), "progress", "How much is done")
        self.doing = note()
        self._lay_out()
        self._connect()
        self.refresh_scans()
        self.refresh_devices()
        self._on_model()

    @property
    def settings(self) -> SegmentSettings:
        """The current inputs."""
        actions = self.classes.menu().actions() if self.classes.menu() else []
        chosen = tuple(action.text() for action in actions if action.isChecked())
        return SegmentSettings(
            model=str(self.model.currentData() or ""),
            where=self.where.currentText(),
            options=SegmentOptions.model_validate(
                {
                    "device": self.device.currentText() or "auto",
                    "precision": self.precision.currentText(),
                    "engine": self.engine.currentText(),
                    "classes": None if len(chosen) == len(actions) else chosen,
                    "allow_out_of_domain": self.domain.isChecked(),
                }
            ),
        )

    def start(self) -> None:
        """Run with the current inputs; errors in them are shown to the user."""
        if self._worker.busy:
            return
        settings = self.settings
        try:
            layer = self._chosen_layer()
            volume = self.sequences.volume(layer)
            job = settings.to_job(volume, self._region(volume))
        except (NoScan, ValueError, ReadError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._volume = volume
        self._host.model, self._host.options = settings.model, settings.options
        self._host.show_message("")
        self._show_busy(True)
        self._worker.start(job, f"segmenting {layer.name if layer is not None else 'the scan'}")

    def add_model(self, path: Path) -> None:
        """Add a model file to the list and select it; shows an error if it is not a model."""
        try:
            settings = read_model_settings(path)
        except ModelFileError as error:
            self._host.show_message(in_words(error), "Error")
            return
        self.model.addItem(f"{settings.card.name} ({path.name})", str(path))
        self.model.setCurrentIndex(self.model.count() - 1)

    def refresh_scans(self, *_: object) -> None:
        """List the current image layers, keeping the selection."""
        chosen = self.scan.currentData()
        layers = self._host.scan_layers()
        self.scan.clear()
        for layer in layers:
            self.scan.addItem(layer.name, layer)
        names = [id(layer) for layer in layers]
        if chosen is not None and id(chosen) in names:
            self.scan.setCurrentIndex(names.index(id(chosen)))
        self.scan.setPlaceholderText("" if layers else "open a scan first")
        self.sequences.refresh()

    def refresh_devices(self) -> None:
        """List the devices the engine can compute on."""
        chosen = self.device.currentText() or "auto"
        self.device.clear()
        self.device.addItems(["auto", *self._host.engine.devices])
        self.device.setCurrentText(chosen)

    def _lay_out(self) -> None:
        for name, path in shipped_models().items():
            self.model.addItem(name, name)
            self.model.setItemData(self.model.count() - 1, str(path), 3)
        from_disk = named(QToolButton(), "model from disk", "Add a model file, or all models of a folder")
        from_disk.setText("...")
        from_disk.setMinimumWidth(34)
        menu = QMenu(from_disk)
        menu.addAction("Model from a file", self._ask_file)
        menu.addAction("Models of a folder", self._ask_folder)
        from_disk.setMenu(menu)
        from_disk.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.where.addItems([WHOLE, SLICE, DRAWN])
        self.precision.addItems(PRECISIONS)
        self.engine.addItems(ENGINES)
        self.bar.setRange(0, 100)
        rows = (
            ("Scan", self.scan),
            ("Model", beside(self.model, from_disk, stretch=False)),
            ("Classes", self.classes),
            ("Where", self.where),
            ("Device", self.device),
            ("Precision", self.precision),
            ("Engine", self.engine),
        )
        column(
            [
                form(rows),
                self.sequences,
                self.card,
                self.domain,
                beside(self.run, self.cancel, stretch=True),
                self.bar,
                self.doing,
            ],
            self,
        )
        self._show_busy(False)

    def _connect(self) -> None:
        layers = self._host.viewer.layers.events
        self.scan.currentIndexChanged.connect(self._suggest_model)
        for event in (layers.inserted, layers.removed, layers.reordered):
            event.connect(self.refresh_scans)
        self.model.currentIndexChanged.connect(self._on_model)
        self.where.currentTextChanged.connect(self._on_where)
        self._worker.progressed.connect(self._on_progress)
        self._worker.finished.connect(self._on_finished)
        self._worker.failed.connect(self._on_failed)
        self._worker.cancelled.connect(self._on_cancelled)

    def _chosen_layer(self) -> Any:
        return self.scan.currentData()

    def _region(self, volume: Volume) -> Region | None:
        where = self.where.currentText()
        if where == SLICE:
            return self._host.current_slice(volume)
        box = self._host.drawn(REGION, volume) if where == DRAWN else None
        if box is None:
            return None
        return to_region(box, volume.grid.shape, whole_axis=None if volume.is_planar else one_slice_axis(box))

    def _suggest_model(self, *_: object) -> None:
        """Select the shipped model that was made for this kind of scan."""
        volume = getattr(self.scan.currentData(), "metadata", {}).get("medmaskrcnn", {}).get("volume")
        for row in range(self.model.count() if volume is not None else 0):
            try:
                card = read_model_settings(resolve_model(self.model.itemData(row))).card
            except ModelFileError:
                continue
            if card.modality == volume.modality and card.domain in (None, volume.provenance.generator):
                self.model.setCurrentIndex(row)
                return

    def _on_model(self, *_: object) -> None:
        name = self.model.currentData()
        if not name:
            return
        try:
            self._model_settings = read_model_settings(resolve_model(name))
        except ModelFileError as error:
            self._model_settings = None
            self.sequences.show_for(None)
            self.card.setText("")
            self._host.show_message(in_words(error), "Error")
            return
        self.card.setText(card_html(self._model_settings))
        self.sequences.show_for(self._model_settings)
        menu = QMenu(self.classes)
        for class_name in self._model_settings.model.class_names:
            action = menu.addAction(class_name)
            action.setCheckable(True)
            action.setChecked(True)
            action.toggled.connect(self._name_classes)
        self.classes.setMenu(menu)
        self._name_classes()

    def _name_classes(self, *_: object) -> None:
        chosen = self.settings.options.classes
        self.classes.setText("all" if chosen is None else ", ".join(chosen) or "none")

    def _on_where(self, where: str) -> None:
        if where != DRAWN:
            return
        try:
            volume = self.sequences.volume(self._chosen_layer())
        except (NoScan, ReadError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._host.drawing_layer(REGION, volume)
        self._host.show_message(
            "Drag a rectangle over the scan: all slices behind it count. "
            "Draw another one on a second slice to count only the slices between the two."
        )

    def _on_progress(self, share: float, text: str) -> None:
        self.bar.setValue(round(100 * share))
        self.doing.setText(text)

    def _on_finished(self, answer: object) -> None:
        if not isinstance(answer, CaseResult) or self._volume is None:
            return
        self._show_busy(False)
        self._host.remove_drawing(REGION)
        self._host.show(self._volume, answer)
        n = len(answer.kept)
        warnings = " ".join(answer.record.warnings)
        found = f"{n} instance{'' if n == 1 else 's'} found."
        self._host.show_message(f"{found} {warnings}".strip(), "Warning" if warnings else "")
        self.refresh_devices()

    def _on_failed(self, message: str, details: str) -> None:
        self._show_busy(False)
        self._host.show_message(message + (f"\n{details}" if details else ""), "Error")

    def _on_cancelled(self) -> None:
        self._show_busy(False)
        self._host.show_message("Cancelled. Nothing was changed.")
        QTimer.singleShot(0, self._host.engine.warm_up)

    def _show_busy(self, busy: bool) -> None:
        self.run.setEnabled(not busy)
        self.cancel.setEnabled(busy)
        self.bar.setVisible(busy)
        self.doing.setVisible(busy)
        self.bar.setValue(0)
        self.doing.setText("starting" if busy else "")

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Model file", filter=f"Models (*{SUFFIX})")
        if path:
            self.add_model(Path(path))

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of models")
        if not folder:
            return
        paths = sorted(Path(folder).glob(f"*{SUFFIX}"))
        for path in paths:
            self.add_model(path)
        if not paths:
            self._host.show_message(f"{folder} holds no model file (*{SUFFIX}).", "Warning")
