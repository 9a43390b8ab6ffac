"""One engine process for each viewer, however often its panel is closed and opened again.

The process outlives the panel by :data:`GRACE_MS`, so that reopening finds it with its model loaded, and is ended with
the window and with the program always.
"""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from qtpy.QtCore import QTimer

from napari_medmaskrcnn.engine.client import Engine

GRACE_MS = 15_000


@dataclass
class _Held:
    engine: Engine
    users: int
    grace: QTimer


_held: WeakKeyDictionary[Any, _Held] = WeakKeyDictionary()


def borrow_engine(viewer: Any) -> Engine:
    """The viewer's engine; :func:`return_engine` says that a panel does not need it any more."""
    held = _held.get(viewer)
    if held is None:
        held = _held[viewer] = _Held(Engine(), 0, QTimer())
        held.grace.setSingleShot(True)
        held.grace.timeout.connect(held.engine.stop)
    held.grace.stop()
    held.users += 1
    return held.engine


def return_engine(viewer: Any) -> None:
    """A panel was closed: the process ends after the grace time if no other panel of the viewer was opened by then."""
    held = _held.get(viewer)
    if held is None:
        return
    held.users = max(0, held.users - 1)
    if held.users == 0:
        held.grace.start(GRACE_MS)


def end_engine(viewer: Any) -> None:
    """The viewer's window was closed: end its process now."""
    held = _held.pop(viewer, None)
    if held is not None:
        held.grace.stop()
        held.engine.stop()


def _end_all() -> None:
    for held in list(_held.values()):
        held.engine.stop()
    _held.clear()


atexit.register(_end_all)
