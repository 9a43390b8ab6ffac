"""Asks before the panel or napari's window closes with work that would be lost, and ends what is running.

napari calls ``destroyOnClose`` of a dock when its close button is clicked, which is replaced here by a call that asks
first. The window is watched by an event filter. A script that calls ``viewer.close()`` is not asked: its canvas is
closed before the window hears of it, and the copies of :mod:`napari_medmaskrcnn.core.autosave` remain.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import ref

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtWidgets import QDockWidget, QWidget


class ClosingGuard(QObject):
    """Watches the panel's dock and the window.

    Args:
        panel: The panel; its parent.
        viewer: napari's viewer.
        may_close: Asks the user where needed; False if nothing is to be closed.
        end: Called once when panel or window is gone, with whether the window is.
    """

    def __init__(self, panel: QWidget, viewer: Any, may_close: Callable[[], bool], end: Callable[[bool], None]) -> None:
        super().__init__(panel)
        self._panel, self._viewer, self._may_close, self._end = panel, viewer, may_close, end
        # weak, since napari takes a window that something still holds for a leak
        self._window: Callable[[], QWidget | None] = _no_widget
        self._canvas: Callable[[], QWidget | None] = _no_widget
        self._dock_name = ""
        self.ended = False
        window = getattr(viewer, "window", None)  # a viewer's model alone has none
        if window is not None:
            self._window, self._canvas = ref(window._qt_window), ref(window._qt_viewer)
            window._qt_window.installEventFilter(self)
        panel.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Qt's hook; True if the event stops here."""
        kind = event.type()
        if self.ended:
            return False
        if kind == QEvent.Type.Close and watched is self._window():
            canvas = self._canvas()
            if canvas is not None and not canvas.isHidden() and not self._may_close():
                event.ignore()
                return True
            QTimer.singleShot(0, self._if_window_gone)
        elif watched is self._panel and kind == QEvent.Type.ParentChange:
            self._on_parent()
        return False

    def close_panel(self) -> None:
        """Close the panel, unless the user would rather not."""
        if not self.ended and self._may_close():
            self.finish(window_gone=False)
            dock = self._panel.parent()
            if isinstance(dock, QDockWidget):
                self._viewer.window.remove_dock_widget(dock)
            self._panel.deleteLater()

    def _on_parent(self) -> None:
        dock = self._panel.parent()
        if isinstance(dock, QDockWidget):
            self._dock_name = dock.windowTitle()
            dock.destroyOnClose = self.close_panel
        elif self._dock_name:
            QTimer.singleShot(0, self._if_panel_gone)

    def _if_panel_gone(self) -> None:
        """The dock was removed by a script: the question comes late, and the answer may bring the panel back."""
        with suppress(RuntimeError):  # the panel was deleted by Qt
            if self.ended or self._panel.parent() is not None:
                return
            if self._may_close():
                self.finish(window_gone=False)
                self._panel.deleteLater()
            else:
                self._viewer.window.add_dock_widget(self._panel, name=self._dock_name, area="right")

    def _if_window_gone(self) -> None:
        """napari itself may have asked, too, and the window still be there."""
        gone, window = True, self._window()
        with suppress(RuntimeError):
            gone = window is None or not window.isVisible()
        if gone and not self.ended:
            self.finish(window_gone=True)

    def finish(self, *, window_gone: bool) -> None:
        """End without a question."""
        self.ended = True
        window = self._window()
        with suppress(RuntimeError):
            if window is not None:
                window.removeEventFilter(self)
            dock = self._panel.parent()
            if isinstance(dock, QDockWidget):
                dock.__dict__.pop("destroyOnClose", None)
        self._end(window_gone)


def _no_widget() -> None:
    return None
