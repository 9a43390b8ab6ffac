"""Opens a study: its series are listed in the background, chosen with their pictures, and read in the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QMenu,
    QTableWidget,
    QTableWidgetItem,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_medmaskrcnn.core.remedies import in_words
from napari_medmaskrcnn.io.study import THUMBNAIL_PX, Series, series_of
from napari_medmaskrcnn.layers.image_layers import LayerData, volume_to_layer
from napari_medmaskrcnn.panels.background import Background
from napari_medmaskrcnn.panels.controls import button, named
from napari_medmaskrcnn.panels.host import Host

_HEADS = ("", "series", "description", "date", "slices x rows x columns")


class SeriesChooser(QDialog):
    """The list of a study's series.

    Args:
        series: What there is.
        parent: Qt parent.
    """

    def __init__(self, series: Sequence[Series], parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Series of the study")
        self.setObjectName("series chooser")
        self.table = named(QTableWidget(len(series), len(_HEADS)), "series", "Select the series to open")
        self.table.setHorizontalHeaderLabels(_HEADS)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setIconSize(QSize(THUMBNAIL_PX, THUMBNAIL_PX))
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(THUMBNAIL_PX + 6)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.horizontalHeader().setSectionResizeMode(2, QHeaderView.ResizeMode.Stretch)
        for row, one in enumerate(series):
            picture = QTableWidgetItem()
            if one.thumbnail is not None:
                picture.setIcon(_icon(one.thumbnail))
            self.table.setItem(row, 0, picture)
            for place, text in enumerate((one.name, one.description, one.date, one.size), start=1):
                self.table.setItem(row, place, QTableWidgetItem(text))
        self.table.selectRow(0)
        self.table.doubleClicked.connect(self.accept)
        self.open = button("Open", "Open the selected series", self.accept)
        self.cancel = button("Cancel", "Open none", self.reject)
        row_of_buttons = QHBoxLayout()
        row_of_buttons.addWidget(self.open)
        row_of_buttons.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.addWidget(self.table)
        layout.addLayout(row_of_buttons)
        self.resize(720, 420)

    def chosen(self) -> list[int]:
        """Rows that are selected."""
        return sorted({index.row() for index in self.table.selectionModel().selectedRows()})


class OpenButton(QToolButton):
    """Opens a file or folder without stopping the window.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self.background = Background(self)
        named(self, "open a study", "Open a folder or file; of several series you choose")
        self.setText("Open")
        menu = QMenu(self)
        menu.addAction("Folder of a study", self._ask_folder)
        menu.addAction("File", self._ask_file)
        self.setMenu(menu)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)

    def open_study(self, path: Path) -> None:
        """List what is below a path, let the user choose if it is more than one series, and read it."""
        self._host.show_message(f"Looking at {path.name}.")
        self.background.start(f"looking at {path.name}", lambda: series_of(path), self._on_listed, self._on_failed)

    def _on_listed(self, series: list[Series]) -> None:
        if not series:
            self._host.show_message("There is no scan that can be shown.", "Warning")
            return
        rows = [0]
        if len(series) > 1:
            dialog = SeriesChooser(series, self)
            if dialog.exec() != QDialog.DialogCode.Accepted:
                self._host.show_message("")
                return
            rows = dialog.chosen()
        for row in rows:
            self._read(series[row])

    def _read(self, one: Series) -> None:
        self._host.show_message(f"Reading {one.name}.")
        self.background.start(
            f"reading {one.name}", lambda: volume_to_layer(one.scan.read(), one.name), self._on_read, self._on_failed
        )

    def _on_read(self, layer: LayerData) -> None:
        data, settings, _ = layer
        self._host.viewer.add_image(data, **settings)
        self._host.show_message(f"{settings['name']} is open.")

    def _on_failed(self, error: Exception) -> None:
        self._host.show_message(in_words(error) or type(error).__name__, "Error")

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of a study")
        if folder:
            self.open_study(Path(folder))

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Scan")
        if path:
            self.open_study(Path(path))


def _icon(picture: np.ndarray) -> QIcon:
    grey = np.ascontiguousarray(picture)
    image = QImage(grey.tobytes(), grey.shape[1], grey.shape[0], grey.shape[1], QImage.Format.Format_Grayscale8)
    side = Qt.AspectRatioMode.KeepAspectRatio
    return QIcon(QPixmap.fromImage(image.copy()).scaled(THUMBNAIL_PX, THUMBNAIL_PX, side))
