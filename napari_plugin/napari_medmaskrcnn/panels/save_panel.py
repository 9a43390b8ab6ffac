"""Save the result as files or as a training case, and reopen a saved one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QGridLayout, QHBoxLayout, QLineEdit, QVBoxLayout, QWidget

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.export.dicom_files import DICOM_FORMATS
from medmaskrcnn.export.write import FILE_NAMES, write_result
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.core.save_folder import other_scan_in, suggested_folder
from napari_medmaskrcnn.core.training_case import CaseExists, add_training_case
from napari_medmaskrcnn.io.reopen import reopen
from napari_medmaskrcnn.panels.background import Background
from napari_medmaskrcnn.panels.controls import button, line, named, note
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.questions import ask

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
RESULT = FILE_NAMES["instances"]
REPLACE = "Replace it"


class SavePanel(QWidget):
    """The third tab.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self.background = Background(self)
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
        self.save = button("Save", "Write the chosen files", self.start)
        self.add = button("Add as a training case", "Scan and instances into the manifest", self.add_case)
        self.open = button(
            "Open a saved result...", "instances.npz, a SEG, an RTSTRUCT or a label map", self._ask_result
        )
        self._lay_out()
        self.folder.textEdited.connect(self._on_folder)
        host.session_changed.connect(self._follow_review)
        self._follow_review()

    def start(self) -> None:
        """Write the review that is shown, on a thread."""
        review = self._host.review
        folder = self._place_for(review) if review is not None else None
        if review is None or folder is None:
            return
        work, state = self._writing(review, folder), review.state()
        self.save.setEnabled(False)
        self._host.show_message(f"Saving to {folder}.")
        self.background.start(
            f"saving {review.title}", work, partial(self._on_written, review, folder, state), self._on_failed
        )

    def write(self, review: ReviewModel | None = None) -> bool:
        """Write the chosen formats of a review, by default of the one shown; False, with the reason told, if it cannot.

        A folder with another scan's result is written into only if the user says so.
        """
        review = review or self._host.review
        folder = self._place_for(review) if review is not None else None
        if review is None or folder is None:
            return False
        state = review.state()
        try:
            files = self._writing(review, folder)()
        except (MedMaskRCNNError, ValueError) as error:
            self._on_failed(error)
            return False
        self._on_written(review, folder, state, files)
        return True

    def _place_for(self, review: ReviewModel) -> Path | None:
        """The folder to write a review into; ``None`` if there is none, or the user would rather not."""
        folder = self._folder_of(review)
        if folder is None:
            self._host.show_message("Choose a folder to save into.", "Warning")
        elif other_scan_in(folder, review.volume) and not self._may_replace(folder):
            self._host.show_message(f"Not saved: {folder} holds the result of another scan.", "Warning")
            return None
        return folder

    def _writing(self, review: ReviewModel, folder: Path) -> Callable[[], dict[str, Path]]:
        """What writes a review as it is now."""
        wanted = [FORMATS[name] for name, box in self.formats.items() if box.isChecked() and box.isEnabled()]
        deidentify = self.deidentify.isChecked()
        return partial(
            write_result, review.to_result(), review.volume, folder, formats=wanted, deidentify=deidentify,
            overwrite=True,
        )  # fmt: skip # the user has been asked

    def _on_written(self, review: ReviewModel, folder: Path, state: tuple[object, ...], files: dict[str, Path]) -> None:
        self.save.setEnabled(self._host.review is not None)
        self._host.saved(review, folder, state)
        self._host.show_message(f"Saved to {folder}: {', '.join(path.name for path in files.values())}.")

    def _on_failed(self, error: Exception) -> None:
        self.save.setEnabled(self._host.review is not None)
        self._host.show_message(in_words(error) or type(error).__name__, "Error")

    def _folder_of(self, review: ReviewModel) -> Path | None:
        """The folder that is entered for the review on the canvas; for others the one that they have."""
        if review is not self._host.review:
            return review.folder
        entered = self.folder.text().strip()
        return Path(entered) if entered else None

    def _may_replace(self, folder: Path) -> bool:
        question = f"{folder.name} holds the result of another scan. Replace it?"
        return ask(self, question, f"Its files in {folder} would be lost.", [REPLACE]) == REPLACE

    def add_case(self) -> None:
        """Add scan and instances to the manifest; a scan that is a case already is replaced if the user wants it."""
        review = self._host.review
        if review is None:
            return
        if not self.manifest.text():
            self._host.show_message("Choose a manifest to add the case to.", "Warning")
            return
        try:
            case = self._add_case(review, replace=False)
        except CaseExists as there:
            question = f"This scan is {there.case_id} of the manifest already. Replace its instances?"
            if ask(self, question, "Its labels and its split become those of this review.", [REPLACE]) != REPLACE:
                self._host.show_message("Nothing was added.")
                return
            case = self._add_case(review, replace=True)
        if case is not None:
            self._host.show_message(f"Added as case {case} to {self.manifest.text()}.")

    def _add_case(self, review: ReviewModel, *, replace: bool) -> str | None:
        chosen: Any = self.split.currentText()
        path, split = Path(self.manifest.text()), None if chosen == "open" else chosen
        try:
            return add_training_case(path, review.to_result(), review.volume, split, replace=replace)
        except CaseExists:
            raise
        except (MedMaskRCNNError, ValueError) as error:
            self._host.show_message(in_words(error), "Error")
            return None

    def open_result(self, path: Path) -> None:
        """Continue with a saved result, on the scan that is open or the one found through its record."""
        try:
            found = reopen(path, self._host.open_scans())
        except (MedMaskRCNNError, ValueError, OSError) as error:
            self._on_failed(error)
            return
        self._on_opened(path, found)

    def start_opening(self, path: Path) -> None:
        """The same on a thread: the scan may have to be read."""
        scans = self._host.open_scans()
        self._host.show_message(f"Opening {path.name}.")
        self.background.start(
            f"opening {path.name}", lambda: reopen(path, scans), partial(self._on_opened, path), self._on_failed
        )

    def _on_opened(self, path: Path, found: tuple[Volume, CaseResult]) -> None:
        volume, result = found
        title = path.parent.name if path.name == RESULT else path.name
        review = self._host.show(volume, result, title=title, saved=True)
        review.folder = path.parent if path.name == RESULT else suggested_folder(volume)
        self._follow_review()
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

    def _follow_review(self) -> None:
        """Show the folder of the review on the canvas, and offer the formats that its scan can be written as."""
        review = self._host.review
        for control in (self.save, self.add):
            control.setEnabled(review is not None)
        self.folder.setText(str(review.folder or "") if review is not None else "")
        is_dicom = review is None or review.volume.provenance.format == "DICOM"
        for name, box in self.formats.items():
            if FORMATS[name] in DICOM_FORMATS:
                box.setEnabled(is_dicom)
                box.setToolTip(f"write {name}" if is_dicom else f"{name} belongs to a DICOM series; this scan is none")
        pictures = [self.formats[name] for name in ("DICOM SEG", "RTSTRUCT", "NIfTI")]
        if not any(box.isChecked() and box.isEnabled() for box in pictures):
            self.formats["NIfTI"].setChecked(True)

    def _on_folder(self) -> None:
        if self._host.review is not None:
            entered = self.folder.text().strip()
            self._host.review.folder = Path(entered) if entered else None

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the files", self.folder.text())
        if folder:
            self.folder.setText(folder)
            self._on_folder()

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
            self.start_opening(Path(path))
