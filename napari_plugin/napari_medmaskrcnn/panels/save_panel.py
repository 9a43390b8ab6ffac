"""Save the result as files or as a training case, and reopen a saved one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QGridLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.export.write import write_result
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.core.training_case import add_training_case
from napari_medmaskrcnn.io.reopen import reopen
from napari_medmaskrcnn.layers.scan_of_layer import NoScan, scan_of_layer
from napari_medmaskrcnn.panels.controls import button, line, named, note
from napari_medmaskrcnn.panels.host import Host

FORMATS = {
    "DICOM SEG": "seg",
    "RTSTRUCT": "rtstruct",
    "DICOM SR": "sr",
    "NIfTI": "nifti",
    "CSV": "csv",
    "HTML report": "html",
    "JSON": "json",
    "PNG": "png",
}
_FIRST = ("DICOM SEG", "CSV")


class SavePanel(QWidget):
    """The third tab.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self.formats = {name: named(QCheckBox(name), f"write {name}") for name in FORMATS}
        self.deidentify = named(
            QCheckBox("without the patient's identity"),
            "de-identify",
            "No name, ID or date in DICOM files, hashed UIDs",
        )
        self.folder = named(QLineEdit(), "output folder", "Where the files go; instances.npz always goes there too")
        self.manifest = named(QLineEdit(), "manifest", "A manifest of labelled cases; made if it is not there")
        self.split = named(QComboBox(), "split", "The set that the case belongs to")
        self.split.addItems(["train", "val", "test", "open"])
        self.save = button("Save", "Write the chosen files", self.write)
        self.add = button("Add as a training case", "Scan and instances into the manifest", self.add_case)
        self.open = button(
            "Open a saved result...", "instances.npz, a SEG, an RTSTRUCT or a label map", self._ask_result
        )
        self._lay_out()
        host.session_changed.connect(self._enable)
        self._enable()

    def write(self) -> None:
        """Write the chosen formats into the folder."""
        review = self._host.review
        if review is None:
            return
        if not self.folder.text():
            self._host.show_message("Choose a folder to save into.", "Warning")
            return
        wanted = [FORMATS[name] for name, box in self.formats.items() if box.isChecked()]
        try:
            files = write_result(
                review.to_result(),
                review.volume,
                self.folder.text(),
                formats=wanted,
                deidentify=self.deidentify.isChecked(),
            )
        except (MedMaskRCNNError, ValueError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._host.show_message(f"Saved to {self.folder.text()}: {', '.join(path.name for path in files.values())}.")

    def add_case(self) -> None:
        """Add scan and instances to the manifest."""
        review = self._host.review
        if review is None:
            return
        if not self.manifest.text():
            self._host.show_message("Choose a manifest to add the case to.", "Warning")
            return
        split: Any = self.split.currentText()
        try:
            case = add_training_case(
                Path(self.manifest.text()), review.to_result(), review.volume, None if split == "open" else split
            )
        except (MedMaskRCNNError, ValueError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._host.show_message(f"Added as case {case} to {self.manifest.text()}.")

    def open_result(self, path: Path) -> None:
        """Continue with a saved result, on the chosen scan or the one found through its record."""
        known = []
        for layer in self._host.scan_layers():
            try:
                known.append(scan_of_layer(layer))
            except NoScan:
                continue
        try:
            volume, result = reopen(path, known)
        except (MedMaskRCNNError, ValueError, OSError) as error:
            self._host.show_message(in_words(error), "Error")
            return
        self._host.ensure_scan_shown(volume)
        self._host.show(volume, result)
        self._host.show_message(f"{len(result.kept)} instances from {path.name}.")

    def _lay_out(self) -> None:
        grid = QGridLayout()
        for place, (name, box) in enumerate(self.formats.items()):
            box.setChecked(name in _FIRST)
            grid.addWidget(box, *divmod(place, 2))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(5)
        layout.addLayout(grid)
        layout.addWidget(self.deidentify)
        layout.addLayout(self._chooser(self.folder, "folder for the files", self._ask_folder))
        layout.addWidget(self.save)
        layout.addWidget(line())
        layout.addWidget(note("What you corrected can train a model:"))
        layout.addLayout(self._chooser(self.manifest, "manifest.json", self._ask_manifest))
        row = QHBoxLayout()
        row.addWidget(self.split)
        row.addWidget(self.add, 1)
        layout.addLayout(row)
        layout.addWidget(line())
        layout.addWidget(self.open)
        layout.addStretch(1)

    def _chooser(self, field: QLineEdit, text: str, ask: Callable[[], None]) -> QHBoxLayout:
        field.setPlaceholderText(text)
        browse = named(button("...", "", ask), f"choose {text}")
        browse.setMaximumWidth(36)
        row = QHBoxLayout()
        row.addWidget(field, 1)
        row.addWidget(browse)
        return row

    def _enable(self) -> None:
        for control in (self.save, self.add):
            control.setEnabled(self._host.review is not None)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the files", self.folder.text())
        if folder:
            self.folder.setText(folder)

    def _ask_manifest(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Manifest", filter="Manifests (*.json)", options=QFileDialog.Option.DontConfirmOverwrite
        )
        if path:
            self.manifest.setText(path)

    def _ask_result(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Result", filter="Results (*.npz *.dcm *.nii *.nii.gz *.nrrd *.mha);;All files (*)"
        )
        if path:
            self.open_result(Path(path))
