"""What each stage took, by a clock of our own."""

from __future__ import annotations

import pytest

from medmaskrcnn.system.stage_timer import StageTimer


def test_stages_follow_one_another_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    timer = StageTimer()

    def passes(seconds: float) -> None:
        now[0] += seconds

    passes(2)
    assert timer.running_s == 2
    assert timer.end("read") == 2
    passes(3)
    assert timer.end("find") == 3
    passes(5)
    timer.start()  # those five seconds belong to no stage
    passes(1)
    assert timer.end("read") == 1
    assert timer.seconds == {"read": 3, "find": 3}
