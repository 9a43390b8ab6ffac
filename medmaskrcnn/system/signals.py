"""A polite end: what is asked to end finishes its step first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_politely() -> Iterator[list[int]]:
    """Within the context SIGTERM is only noted: in the list that is given, once; a second one ends the process.

    Outside of the main thread, where Python has no signals, the list stays empty.
    """
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    earlier = signal.getsignal(signal.SIGTERM)

    def note(number: int, _: object) -> None:
        told.append(number)
        signal.signal(signal.SIGTERM, earlier if callable(earlier) else signal.SIG_DFL)

    signal.signal(signal.SIGTERM, note)
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, earlier if earlier is not None else signal.SIG_DFL)
