"""A layer for each further sequence of a model of several; nothing is shown for models of one."""

from __future__ import annotations

from typing import Any

from qtpy.QtWidgets import QComboBox, QVBoxLayout, QWidget

from medmaskrcnn.io.sequences import stack_sequences
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.channels import names_of
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.scan_of_layer import scan_of_layer
from napari_medmaskrcnn.panels.controls import form, named
from napari_medmaskrcnn.panels.host import Host


class SequenceChoice(QWidget):
    """One list of image layers for each sequence of the chosen model but the first, which the scan's own list is.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._names: tuple[str, ...] = ("",)
        self.lists: dict[str, QComboBox] = {}
        self._rows: QWidget | None = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self.hide()

    def show_for(self, settings: ModelFileSettings | None) -> None:
        """Have a list for each sequence of a model."""
        self._names = ("",) if settings is None else names_of(settings, settings.scan_channels)
        if self._rows is not None:
            self._rows.deleteLater()
        self.lists = {
            name: named(QComboBox(), f"sequence {name}", f"The image layer of the sequence {name}")
            for name in self._names[1:]
        }
        self._rows = form(list(self.lists.items()))
        self._layout.addWidget(self._rows)
        self.setVisible(bool(self.lists))
        self.refresh()

    def refresh(self) -> None:
        """List the current image layers, keeping what is chosen; at first one whose name holds the sequence's."""
        layers = self._host.scan_layers()
        for number, (name, chosen) in enumerate(self.lists.items(), start=1):
            before = chosen.currentData()
            chosen.clear()
            for layer in layers:
                chosen.addItem(layer.name, layer)
            ids = [id(layer) for layer in layers]
            if before is not None and id(before) in ids:
                chosen.setCurrentIndex(ids.index(id(before)))
            else:
                fitting = [i for i, layer in enumerate(layers) if name.casefold() in layer.name.casefold()]
                chosen.setCurrentIndex(fitting[0] if fitting else min(number, len(layers) - 1))

    def volume(self, first: Any) -> Volume:
        """The scan of a layer, stacked with those of the other sequences where the layer does not hold all itself.

        Raises:
            NoScan: if a layer is missing or no scan.
            ReadError: if the sequences do not fit each other.
        """
        count = len(self._names)
        volume = scan_of_layer(first, channels=count)
        if volume.array.shape[0] == count:
            return volume
        others = {name: scan_of_layer(chosen.currentData()) for name, chosen in self.lists.items()}
        return stack_sequences({self._names[0]: volume, **others})
