"""Score thresholds: one slider for all classes, and one per class on demand. They act without rerunning the model."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QScrollArea, QSlider, QToolButton, QVBoxLayout, QWidget

from napari_medmaskrcnn.panels.controls import named
from napari_medmaskrcnn.panels.host import Host

_STEPS = 100
_TALLEST = 130


class ThresholdSliders(QWidget):
    """The score threshold sliders.

    Args:
        host: What the panels share.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host
        self._sliders: dict[str | None, tuple[QSlider, QLabel]] = {}
        self._following = False
        self.each = named(
            QToolButton(), "thresholds of each class", "A threshold of its own for each class; off, one holds for all"
        )
        self.each.setText("each class")
        self.each.setCheckable(True)
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._classes = QWidget()
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setWidget(self._classes)
        self._scroll.setMaximumHeight(_TALLEST)
        self._scroll.setVisible(False)
        self.each.toggled.connect(self._on_each)
        self._add(self._grid, 0, None)
        self._grid.addWidget(self.each, 0, 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(self._grid)
        layout.addWidget(self._scroll)
        host.session_changed.connect(self._on_session)
        host.shown_changed.connect(self._follow)

    def slider(self, class_name: str | None = None) -> QSlider:
        """The slider of a class, or the one for all classes."""
        return self._sliders[class_name][0]

    def _on_session(self) -> None:
        review = self._host.review
        for name in [name for name in self._sliders if name is not None]:
            del self._sliders[name]
        self._classes = QWidget()
        rows = QGridLayout(self._classes)
        for row, name in enumerate(review.class_names if review else ()):
            self._add(rows, row, name)
        self._scroll.setWidget(self._classes)
        self.setEnabled(review is not None)
        with QSignalBlocker(self.each):
            self.each.setChecked(review is not None and bool(review.class_thresholds))
        self._scroll.setVisible(self.each.isChecked())
        self._follow()

    def _on_each(self, ticked: bool) -> None:
        """Show a slider for each class; without them one threshold holds for all."""
        self._scroll.setVisible(ticked)
        review = self._host.review
        if review is not None and not ticked and review.class_thresholds:
            review.clear_class_thresholds()

    def _add(self, grid: QGridLayout, row: int, class_name: str | None) -> None:
        slider = named(
            QSlider(Qt.Orientation.Horizontal),
            f"score threshold {class_name or 'of all classes'}",
            "Instances with a score below it leave the result",
        )
        slider.setRange(0, _STEPS)
        value = QLabel()
        value.setMinimumWidth(32)
        label = QLabel(class_name or "Score at least")
        label.setBuddy(slider)
        slider.valueChanged.connect(lambda at, name=class_name: self._on_moved(name, at))
        for place, widget in enumerate((label, slider, value)):
            grid.addWidget(widget, row, place)
        self._sliders[class_name] = slider, value

    def _on_moved(self, class_name: str | None, at: int) -> None:
        if self._host.review is not None and not self._following:
            self._host.review.set_threshold(at / _STEPS, class_name)

    def _follow(self) -> None:
        review = self._host.review
        self._following = True
        for name, (slider, value) in self._sliders.items():
            score = 0.0
            if review is not None:
                score = review.threshold if name is None else review.class_thresholds.get(name, review.threshold)
            if abs(slider.value() / _STEPS - score) > 0.5 / _STEPS:
                slider.setValue(round(score * _STEPS))
            value.setText(f"{score:.2f}")
        self._following = False
