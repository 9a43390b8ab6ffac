"""Progress bars, tables and texts."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medmaskrcnn.cli import console


def draw(monkeypatch, *, terminal: bool, shown: bool) -> str:
    """What two stages leave on a console of the given kind."""
    file = io.StringIO()
    monkeypatch.setattr(console, "ERR", Console(file=file, force_terminal=terminal, width=100))
    with console.stage_bars("case [1]", shown=shown) as report:
        report("read", 0.0)
        report("find", 0.5)
        report("find", 2.0)
    return file.getvalue()


def test_bars_are_drawn_per_stage_on_a_terminal(monkeypatch):
    drawn = draw(monkeypatch, terminal=True, shown=True)
    assert "case [1]: read" in drawn
    assert "case [1]: find" in drawn


@pytest.mark.parametrize(("terminal", "shown"), [(False, True), (True, False)])
def test_no_bars_without_terminal_or_when_quiet(monkeypatch, terminal, shown):
    assert draw(monkeypatch, terminal=terminal, shown=shown) == ""


def test_plain_keeps_letters_and_drops_control_characters():
    assert console.plain("Größe 3 µm\n\x1b[31m\r") == "Größe 3 µm\n\ufffd[31m\ufffd"
