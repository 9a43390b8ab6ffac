"""Timing of consecutive stages."""

from __future__ import annotations

import time


class StageTimer:
    """Wall time of consecutive stages; it starts when created.

    Attributes:
        seconds: Time by stage name; the sum for a stage that runs several times.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Start a stage now; the time since the last one is not counted."""
        self._began = time.perf_counter()

    def end(self, stage: str) -> float:
        """End a stage and start the next; returns the seconds that it took."""
        now = time.perf_counter()
        took, self._began = now - self._began, now
        self.seconds[stage] = self.seconds.get(stage, 0.0) + took
        return took

    @property
    def running_s(self) -> float:
        """Seconds since the current stage began."""
        return time.perf_counter() - self._began
