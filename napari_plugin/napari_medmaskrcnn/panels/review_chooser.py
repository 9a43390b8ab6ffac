"""The list of open reviews, with what is unsaved marked, and the button that closes one."""

from __future__ import annotations

from collections.abc import Callable

from napari.layers import Image, Labels
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QMenu, QPushButton, QSizePolicy, QToolButton, QWidget

from medmaskrcnn.errors import MedMaskRCNNError
from napari_medmaskrcnn.core.new_review import empty_result
from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.core.review_model import ReviewModel
from napari_medmaskrcnn.io.writers import result_of_layers, scan_under_labels
from napari_medmaskrcnn.layers.scan_of_layer import NoScan
from napari_medmaskrcnn.panels.controls import button, named
from napari_medmaskrcnn.panels.host import Host
from napari_medmaskrcnn.panels.questions import CANCEL, ask

SAVE, DISCARD = "Save and close", "Close without saving"
_UNSAVED = " (unsaved)"


class ReviewChooser(QWidget):
    """Shows which review is on the canvas and lets the user take up another.

    Args:
        host: What the panels share.
        save: Saves a review; False if it could not be saved.
        chosen_scan: The layer of the scan that an empty review is of, and the classes that it offers.
    """

    def __init__(
        self,
        host: Host,
        save: Callable[[ReviewModel], bool],
        chosen_scan: Callable[[], tuple[Image | None, tuple[str, ...]]],
    ) -> None:
        super().__init__()
        self._host, self._save, self._chosen_scan = host, save, chosen_scan
        self.choice = named(QComboBox(), "review", "The review on the canvas; others stay open")
        self.choice.setPlaceholderText("no review is open")
        self.choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.choice.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.close_one: QPushButton = named(
            button("Close", "Close this review; you are asked if it is unsaved", self.close_current), "close the review"
        )
        self.close_one.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.choice, 1)
        layout.addWidget(self.close_one)
        self.new = named(QToolButton(), "new review", "Begin a review of a scan alone, of a Labels layer, or of a file")
        self.new.setText("New")
        self.new.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self.new)
        menu.addAction("Empty review of the scan", self.begin_empty)
        menu.addAction("Of the selected Labels layer", self.adopt_labels)
        self.new.setMenu(menu)
        layout.insertWidget(1, self.new)
        self.choice.activated.connect(self._on_chosen)
        host.session_changed.connect(self.refresh)
        host.unsaved_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """List the reviews."""
        reviews = self._host.reviews
        titles = [review.title + (_UNSAVED if review.unsaved else "") for review in reviews.all]
        if titles != [self.choice.itemText(row) for row in range(self.choice.count())]:
            self.choice.clear()
            self.choice.addItems(titles)
        self.choice.setCurrentIndex(-1 if reviews.current is None else reviews.all.index(reviews.current))
        for control in (self.choice, self.close_one):
            control.setEnabled(bool(titles))

    def close_current(self) -> None:
        """Close the review that is shown; ask if it has unsaved changes."""
        review = self._host.review
        if review is None:
            return
        if review.unsaved:
            answer = ask(self, f"Save {review.title} before closing it?", "", [SAVE, DISCARD])
            if answer == CANCEL or (answer == SAVE and not self._save(review)):
                return
        self._host.close_review(review)

    def begin_empty(self) -> None:
        """Begin a review of the chosen scan without any instance."""
        layer, class_names = self._chosen_scan()
        try:
            volume = self._host.scan_of(layer)
        except NoScan as error:
            self._host.show_message(str(error), "Error")
            return
        assert layer is not None
        self._host.show(volume, empty_result(volume, class_names), title=f"{layer.name}: manual", saved=True)
        self._host.show_message("Choose a class, or type a new one, then Paint or Draw a box.")

    def adopt_labels(self) -> None:
        """Review a copy of the Labels layer that is selected, on the open scan that it lies on."""
        layer = self._host.viewer.layers.selection.active
        if not isinstance(layer, Labels):
            self._host.show_message("Select a Labels layer first.", "Warning")
            return
        try:
            result, volume = result_of_layers([layer.as_layer_data_tuple()])
        except MedMaskRCNNError as error:
            self._host.show_message(in_words(error), "Error")
            return
        below = next((i for i in self._host.scan_layers() if self._lies_on(layer, i)), None)
        volume = self._host.scan_of(below) if below is not None else volume
        layer.visible = False
        self._host.show(volume, result, title=layer.name)
        self._host.show_message(
            f"{len(result.kept)} instances of {layer.name}. The layer itself stays as it is, hidden."
        )

    def _lies_on(self, labels: Labels, image: Image) -> bool:
        data, meta, _ = labels.as_layer_data_tuple()
        return scan_under_labels(data, meta, image) is not None

    def _on_chosen(self, row: int) -> None:
        self._host.reviews.show(self._host.reviews.all[row])
