"""Runs reading and writing on a thread, so that the window stays free; progress is in napari's activity dock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from napari.utils import progress as activity
from qtpy.QtCore import QObject, Signal


class Background(QObject):
    """Runs functions one beside the other; their answers arrive on the receiver's thread."""

    _ended = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.running = 0
        """How many functions run."""
        self._ended.connect(self._on_end)

    def start(
        self,
        what: str,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Run ``work`` on a thread.

        Args:
            what: Its name in the activity dock.
            work: The function; it must touch neither Qt nor napari.
            then: Called with its answer.
            failed: Called with the exception that it raised.
        """
        dock = activity(total=0, desc=what)
        self.running += 1

        def run() -> None:
            try:
                told = partial(then, work())
            except Exception as error:
                told = partial(failed, error)
            with suppress(RuntimeError):  # the panel was closed meanwhile, and Qt has deleted this object
                self._ended.emit((dock, told))

        threading.Thread(target=run, name=f"medmaskrcnn: {what}", daemon=True).start()

    def _on_end(self, ended: tuple[Any, Callable[[], None]]) -> None:
        dock, told = ended
        self.running -= 1
        dock.close()
        told()
