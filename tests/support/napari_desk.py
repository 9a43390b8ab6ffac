"""A viewer with the panel that the tests of a module share, and a user's hands: clicks, keys, drags, answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QMessageBox, QPushButton, QWidget

from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.volume import Volume
from napari_medmaskrcnn.layers.image_layers import volume_to_layer
from napari_medmaskrcnn.panels.panel import MedMaskPanel

POLL_MS = 20


class Desk:
    """napari with the panel; the engine answers with what a test laid ready.

    Attributes:
        viewer, panel: napari's viewer and the panel in it.
        answers: What the next jobs are answered with.
        asked: The jobs that the engine was given.
        questions: The questions that the user was asked.
    """

    def __init__(self, viewer: Any) -> None:
        self.viewer = viewer
        self.answers: list[CaseResult] = []
        self.asked: list[Any] = []
        self.questions: list[str] = []
        self.bot: QtBot = None  # type: ignore[assignment]
        self.open_panel()

    def open_panel(self) -> None:
        """Open the panel, as its menu entry does."""
        self.panel = MedMaskPanel(self.viewer)
        self.dock = self.viewer.window.add_dock_widget(self.panel, name="medmaskrcnn", area="right")
        self.panel.hint_button.click()

    def clear(self) -> None:
        """An empty viewer with an open panel."""
        if self.panel.guard.ended:
            self.open_panel()
        self.panel.host.close()
        self.viewer.layers.clear()
        self.answers.clear()
        self.asked.clear()
        self.questions.clear()
        self.panel.tabs.setCurrentIndex(0)
        self.panel.segment._model_is_chosen = False
        self.panel.segment.domain.setChecked(False)
        self.panel.segment.where.setCurrentIndex(0)
        self.viewer.window._qt_window.activateWindow()
        QApplication.processEvents()

    def scan(self, volume: Volume, name: str) -> Any:
        """Add a scan as the reader does."""
        data, settings, _ = volume_to_layer(volume, name)
        return self.viewer.add_image(data, **settings)

    def run(self, answer: CaseResult | None = None) -> None:
        """Click Run and wait for its end."""
        if answer is not None:
            self.answers.append(answer)
        self.panel.tabs.setCurrentIndex(0)
        with self.bot.waitSignal(self.panel.worker.finished, timeout=5000):
            self.click(self.panel.segment.run)

    def save(self) -> None:
        """Click Save in its tab, and wait until the files are written."""
        self.panel.tabs.setCurrentIndex(2)
        self.click(self.panel.save.save)
        self.bot.waitUntil(lambda: not self.panel.save.background.running, timeout=10_000)

    def click(self, widget: QWidget, at: QPoint | None = None) -> None:
        """A click of the left button."""
        assert widget.isEnabled(), f"{widget.accessibleName()} is greyed out"
        self.bot.mouseClick(widget, Qt.MouseButton.LeftButton, pos=at or widget.rect().center())

    def key(self, keys: str) -> None:
        """Press a key, such as ``"Ctrl+Z"``, with the focus on the canvas."""
        *modifiers, letter = keys.split("+")
        names = {"Ctrl": Qt.KeyboardModifier.ControlModifier, "Shift": Qt.KeyboardModifier.ShiftModifier}
        held = Qt.KeyboardModifier.NoModifier
        for name in modifiers:
            held |= names[name]
        native = self.viewer.window._qt_viewer.canvas.native
        native.setFocus()
        self.bot.keyClick(native, getattr(Qt.Key, f"Key_{letter}"), held)

    def press_in(self, widget: QWidget, key: str) -> None:
        """Press a key in a widget."""
        self.bot.keyClick(widget, getattr(Qt.Key, f"Key_{key}"))

    def close_panel(self) -> None:
        """Click the close button of the panel's dock."""
        self.dock.titleBarWidget().close_button.click()
        QApplication.processEvents()

    def button_in(self, widget: QWidget, text: str) -> QPushButton:
        """The button of this text in a widget."""
        QApplication.processEvents()  # Qt shows new children of a layout then
        return next(one for one in widget.findChildren(QPushButton) if one.text() == text and one.isVisible())

    @contextmanager
    def answering(self, label: str) -> Iterator[None]:
        """Click the button of this text in the question that is asked meanwhile; it must be asked."""
        before = len(self.questions)
        timer = QTimer()
        timer.setInterval(POLL_MS)

        def look() -> None:
            box = QApplication.activeModalWidget()
            if isinstance(box, QMessageBox):
                timer.stop()
                self.questions.append(box.text())
                button = next(one for one in box.findChildren(QPushButton) if one.text() == label)
                self.bot.mouseClick(button, Qt.MouseButton.LeftButton)

        timer.timeout.connect(look)
        timer.start()
        yield
        timer.stop()
        assert len(self.questions) > before, "nothing was asked"

    def canvas_at(self, row_mm: float, column_mm: float) -> QPoint:
        """Where a point of the shown plane lies on the canvas, in pixels."""
        native = self.viewer.window._qt_viewer.canvas.native
        camera = getattr(self.viewer, "scene", self.viewer).camera  # napari moved it in 0.9
        centre, zoom = np.array(camera.center[-2:]), camera.zoom
        row, column = (np.array([row_mm, column_mm]) - centre) * zoom + [native.height() / 2, native.width() / 2]
        return QPoint(round(column), round(row))

    def drag(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        held: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier,
    ) -> None:
        """Press, move and release over the canvas, from one position in mm to another."""
        native = self.viewer.window._qt_viewer.canvas.native
        first, last = self.canvas_at(*start), self.canvas_at(*end)
        self.bot.mouseMove(native, first)
        self.bot.mousePress(native, Qt.MouseButton.LeftButton, held, first)
        for step in range(1, 6):
            at = first + (last - first) * step / 5
            event = QMouseEvent(
                QEvent.Type.MouseMove,
                QPointF(at),
                QPointF(native.mapToGlobal(at)),
                Qt.MouseButton.NoButton,
                Qt.MouseButton.LeftButton,
                held,
            )  # qtbot's mouseMove holds no button
            QApplication.sendEvent(native, event)
            self.bot.wait(10)
        self.bot.mouseRelease(native, Qt.MouseButton.LeftButton, held, last)
