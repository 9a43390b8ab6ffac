"""How long each stage of some work takes."""

from __future__ import annotations

import time


class StageTimer:
    """Wall time of stages that follow one another; it runs from the moment it is made.

    Attributes:
        seconds: By the stage's name; a stage that comes several times has their sum.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Begin a stage now: the time since the last one belongs to none."""
        self._began = time.perf_counter()

    def end(self, stage: str) -> float:
        """End a stage and begin the next; the seconds that this one took."""
        now = time.perf_counter()
        took, self._began = now - self._began, now
        self.seconds[stage] = self.seconds.get(stage, 0.0) + took
        return took

    @property
    def running_s(self) -> float:
        """Seconds since the stage that now runs began."""
        return time.perf_counter() - self._began
