"""Choose scan, model, device, classes and region; run, follow the progress, cancel."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QLineEdit,
    QMenu,
    QProgressBar,
    QPushButton,
    QToolButton,
    QWidget,
)

from medmaskrcnn.errors import ModelFileError, ReadError, UnsuitableScanError
from medmaskrcnn.hub.model_file import SUFFIX, read_model_settings, resolve_model, shipped_models
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, ENGINES, PRECISIONS, Region, SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.model_card import card_html
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.engine.messages import SegmentJob
from napari_medmaskrcnn.engine.worker import Worker
from napari_medmaskrcnn.layers.drawn_boxes import one_slice_axis, to_region
from napari_medmaskrcnn.layers.scan_of_layer import NoScan
from napari_medmaskrcnn.layers.voxel_size import set_voxel_size, size_text, sizes_in
from napari_medmaskrcnn.panels.controls import beside, button, column, fixed_height, form, keep_place, named, note
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.questions import CANCEL, ask
from napari_medmaskrcnn.panels.sequence_choice import SequenceChoice
from napari_medmaskrcnn.panels.study_chooser import OpenButton
from napari_medmaskrcnn.panels.view_controls import ViewControls

REGION = "region to segment"
WHOLE, SLICE, DRAWN = "whole scan", "current slice", "region I draw"
KEEP_OLD, TAKE_NEW, HAVE_BOTH = "Keep the old ones", "Take the new ones", "Have both"
_CARD_LINES, _FIT_LINES = 5, 3


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
        self._model = ""
        self._model_is_chosen = False
        """The user chose the model: no other one is suggested any more."""
        self._warnings: tuple[str, ...] = ()
        self._scan_is_chosen = False
        self._model_settings: ModelFileSettings | None = None
        self.scan = named(QComboBox(), "scan", "The image layer to segment")
        self.sequences = SequenceChoice(host)
        self.size = named(QLineEdit(), "voxel size", "Of the scan; enter it in mm where the file does not tell it")
        self.open = OpenButton(host)
        self.view = ViewControls(host)
        self.size.setPlaceholderText("unknown; enter slices x rows x columns in mm")
        self.model = named(QComboBox(), "model", "A model that comes with the package, or a file of yours")
        self.card = named(note(), "model card", "What the model is, and what it cannot do")
        self.fit = named(note(), "suitability", "Whether the model was made for this scan")
        self.device = named(QComboBox(), "device", "Where the network runs; auto takes a GPU if there is one")
        self.precision = named(QComboBox(), "precision", "In what the network computes; auto is what the model says")
        self.engine = named(QComboBox(), "engine", "What runs the network's layers; auto is what the model says")
        self.classes = named(QPushButton(), "classes", "Which classes to look for")
        self.where = named(QComboBox(), "where", "The whole scan, the slice that is shown, or a region you draw")
        self.domain = named(
            QCheckBox("Allow scans outside the model's domain"),
            "allow out of domain",
            "Run it all the same; the result and every file made of it are stamped OUT OF DOMAIN",
        )
        self.run = button("Run", "Find, outline and measure every instance", self.start)
        self.cancel = button("Cancel", "Stop at once", worker.cancel)
        self.bar = named(QProgressBar(), "progress", "How much is done")
        self.doing = note()
        self.doing.setWordWrap(False)
        self._lay_out()
        self._connect()
        self._on_model()
        self._on_scan()
        self.refresh_scans()
        self.refresh_devices()

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
            volume = self._scan_of(layer)
            job = settings.to_job(volume, self._region(volume))
        except (NoScan, ValueError, ReadError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        if self._refusal(volume):
            self._host.show_message(self._refusal(volume), "Error")
            return
        self._volume = volume
        self._model, self._host.options = settings.model, settings.options
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
        """List the image layers. What the user chose stays; else the topmost visible one is taken."""
        before = self.scan.currentData()
        layers = self._host.scan_layers()
        if not any(layer is before for layer in layers):
            self._scan_is_chosen = False
        if not self._scan_is_chosen:
            chosen = next((layer for layer in layers if layer.visible), next(iter(layers), None))
        else:
            chosen = before
        with QSignalBlocker(self.scan):
            self.scan.clear()
            for layer in layers:
                self.scan.addItem(layer.name, layer)
            self.scan.setCurrentIndex(next((row for row, one in enumerate(layers) if one is chosen), -1))
        self.scan.setPlaceholderText("" if layers else "open a scan first")
        self.sequences.refresh()
        if chosen is not before:
            self._on_scan()

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
            ("Scan", beside(self.scan, self.open, stretch=False)),
            ("Voxels", self.size),
            ("View", self.view),
            ("Model", beside(self.model, from_disk, stretch=False)),
            ("Classes", self.classes),
            ("Where", self.where),
            ("Device", self.device),
            ("Precision", beside(self.precision, self.engine, stretch=True)),
        )
        self.card_place = fixed_height(self.card, _CARD_LINES)
        self.fit_place = fixed_height(self.fit, _FIT_LINES)
        self.doing.setFixedHeight(self.doing.fontMetrics().lineSpacing() + 2)
        runs = beside(self.run, self.cancel, stretch=True)
        places = [form(rows), self.card_place, self.fit_place, self.domain, runs, keep_place(self.bar), self.doing]
        places.append(self.sequences)  # last, so that Run stays where it is
        column(places, self)
        self._show_busy(False)

    def _connect(self) -> None:
        for event in self._layer_events():
            event.connect(self.refresh_scans)
        self._host.viewer.layers.events.inserted.connect(self._watch)
        for layer in self._host.scan_layers():
            layer.events.visible.connect(self.refresh_scans)
        self.scan.currentIndexChanged.connect(self._on_scan)
        self.scan.activated.connect(self._on_scan_chosen)
        self.size.editingFinished.connect(self._on_size)
        self.model.currentIndexChanged.connect(self._on_model_chosen)
        self.domain.toggled.connect(self._check_fit)
        self.where.currentTextChanged.connect(self._on_where)
        self._worker.progressed.connect(self._on_progress)
        self._worker.finished.connect(self._on_finished)
        self._worker.failed.connect(self._on_failed)
        self._worker.cancelled.connect(self._on_cancelled)

    def scan_and_classes(self) -> tuple[Image | None, tuple[str, ...]]:
        """The chosen scan's layer, and the classes of the model if it was made for that scan."""
        layer = self._chosen_layer()
        volume = getattr(layer, "metadata", {}).get("medmaskrcnn", {}).get("volume")
        fits = volume is not None and self._model_settings is not None and _made_for(self._model_settings, volume)
        return layer, self._model_settings.model.class_names if fits and self._model_settings else ("object",)

    def leave(self) -> None:
        """The panel is closed: stop following the layers."""
        for event in self._layer_events():
            event.disconnect(self.refresh_scans)
        self._host.viewer.layers.events.inserted.disconnect(self._watch)
        self.view.leave()
        for layer in self._host.scan_layers():
            layer.events.visible.disconnect(self.refresh_scans)

    def _layer_events(self) -> tuple[Any, ...]:
        layers = self._host.viewer.layers.events
        return layers.inserted, layers.removed, layers.reordered

    def _watch(self, event: Any) -> None:
        if isinstance(event.value, Image):
            event.value.events.visible.connect(self.refresh_scans)

    def _chosen_layer(self) -> Any:
        return self.scan.currentData()

    def _on_scan_chosen(self, *_: object) -> None:
        self._scan_is_chosen = True

    def _on_size(self) -> None:
        """Give the scan the voxel size that was entered, if it has none yet."""
        layer = self._chosen_layer()
        if layer is None or not self.size.text().strip() or size_text(layer):
            return
        volume = layer.metadata.get("medmaskrcnn", {}).get("volume")
        planar = layer.ndim == 2 or layer.rgb or (volume is not None and volume.is_planar)
        try:
            set_voxel_size(layer, sizes_in(self.size.text(), 2 if planar else 3))
        except ValueError as error:
            self._host.show_message(str(error), "Warning")
            return
        self._on_scan()

    def _on_scan(self, *_: object) -> None:
        layer = self._chosen_layer()
        text = "" if layer is None else size_text(layer)
        self.size.setText(text)
        self.size.setReadOnly(bool(text) or layer is None)
        self.view.follow_scan(layer)
        self._suggest_model()
        self._check_fit()

    def _on_model_chosen(self, *_: object) -> None:
        self._model_is_chosen = True
        self._on_model()

    def model_for(self, review: ReviewModel, class_name: str) -> str:
        """The model that outlines an object of a class in a review.

        The one that made the review if it is there and knows the class; of a review from a file of another program, or
        for a class that its model does not know, the one chosen in this tab.
        """
        for name in (review.model, review.record.model_name):
            try:
                if name and class_name in read_model_settings(resolve_model(name)).model.class_names:
                    return name
            except ModelFileError:
                continue
        return self.settings.model

    def _check_fit(self, *_: object) -> None:
        """Say at once whether the model was made for the scan."""
        volume = getattr(self._chosen_layer(), "metadata", {}).get("medmaskrcnn", {}).get("volume")
        self._warnings = ()
        if self.sequences.lists:  # they are put together, and checked, when the model is run
            volume = None
        refusal = self._refusal(volume) if volume is not None else ""
        self.fit.setText(f"<b>Cannot run:</b> {escape(refusal)}" if refusal else escape(" ".join(self._warnings)))

    def _refusal(self, volume: Volume) -> str:
        """Why the model may not be run on a scan; "" if it may."""
        self._warnings = ()
        if self._model_settings is None:
            return ""
        try:
            self._warnings = check_suitable(volume, self._model_settings, self.settings.options)
        except UnsuitableScanError as error:
            return in_words(error)
        return ""

    def _scan_of(self, layer: Any) -> Volume:
        """The scan of a layer, with the model's further sequences; results will lie where the layer lies."""
        volume = self.sequences.volume(layer)
        self._host.remember(volume, layer)
        return volume

    def _region(self, volume: Volume) -> Region | None:
        where = self.where.currentText()
        if where == SLICE:
            return self._host.current_slice(volume)
        box = self._host.drawn(REGION, volume) if where == DRAWN else None
        if box is None:
            return None
        return to_region(box, volume.grid.shape, whole_axis=None if volume.is_planar else one_slice_axis(box))

    def _suggest_model(self) -> None:
        """Select the shipped model that was made for this kind of scan, unless the user has chosen one."""
        volume = getattr(self._chosen_layer(), "metadata", {}).get("medmaskrcnn", {}).get("volume")
        if volume is None or self._model_is_chosen:
            return
        for row in range(self.model.count()):
            try:
                settings = read_model_settings(resolve_model(self.model.itemData(row)))
            except ModelFileError:
                continue
            if _made_for(settings, volume):
                with QSignalBlocker(self.model):
                    self.model.setCurrentIndex(row)
                self._on_model()
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
        self._check_fit()

    def _name_classes(self, *_: object) -> None:
        chosen = self.settings.options.classes
        self.classes.setText("all" if chosen is None else ", ".join(chosen) or "none")

    def _on_where(self, where: str) -> None:
        if where != DRAWN:
            return
        try:
            volume = self._scan_of(self._chosen_layer())
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
        n = len(answer.kept)
        found = f"{n} instance{'' if n == 1 else 's'} found."
        former = self._host.reviews_of(self._volume) if "region" in answer.record.settings else []
        if former:
            found = f"{found} {self._add_to(former, answer)}"
        else:
            layer = self._host.layer_of(self._volume)
            scan = layer.name if layer is not None else "scan"
            review = self._host.show(self._volume, answer, title=f"{scan}: {answer.record.model_name}")
            review.model = self._model
        if self.where.currentText() == DRAWN:  # the next region can be drawn at once
            self._host.drawing_layer(REGION, self._volume)
        warnings = " ".join(answer.record.warnings)
        self._host.show_message(f"{found} {warnings}".strip(), "Warning" if warnings else "")
        self.refresh_devices()

    def _add_to(self, reviews: list[ReviewModel], answer: CaseResult) -> str:
        """Add what was found in a region to the scan's review; what overlaps is asked about. Returns what was done."""
        review = self._host.review if self._host.review in reviews else reviews[-1]
        assert review is not None
        self._host.reviews.show(review)
        overlapping = review.overlapping(answer)
        choice = KEEP_OLD
        if overlapping:
            choice = ask(
                self,
                f"{len(overlapping)} of what was found lie on instances of {review.title}.",
                "Keep those that are there, take the new ones in their place, or have both, overlapping.",
                [KEEP_OLD, TAKE_NEW, HAVE_BOTH],
            )
        if choice == CANCEL:
            return "Nothing was added."
        keys = review.extend(
            answer,
            leave_out=overlapping if choice == KEEP_OLD else (),
            in_place_of={key for keys in overlapping.values() for key in keys} if choice == TAKE_NEW else (),
        )
        self._host.select(tuple(key for key in keys if review.is_in(key)))
        return f"{len([key for key in keys if review.is_in(key)])} added to {review.title}."

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


def _made_for(settings: ModelFileSettings, volume: Volume) -> bool:
    """Whether a model was made for this kind of scan; of pictures without a modality those models that need none."""
    if settings.card.modality != volume.modality:
        return False
    if volume.modality is None and not (volume.is_planar and volume.spacing_mm is None):
        return False
    try:
        check_suitable(volume, settings)
    except UnsuitableScanError:
        return False
    return True
