"""Where the command line writes: answers on stdout, everything else on stderr.

File names and messages are printed as they are: no rich markup is read from them, no line is broken inside them, and a
terminal's control characters in a file name are made harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from medmaskrcnn.report.result_document import to_json

OUT = Console(markup=False, highlight=False, soft_wrap=True)
ERR = Console(markup=False, highlight=False, soft_wrap=True, stderr=True)

ProgressCall = Callable[[str, float], None]


def echo(message: str) -> None:
    """A line of the answer, on stdout."""
    OUT.print(plain(message))


def print_status(kind: str, message: str) -> None:
    """A line on stderr, ``kind`` being ``"error"``, ``"warning"`` or ``"note"``."""
    styles = {"error": "bold red", "warning": "yellow"}
    ERR.print(Text(f"{kind}: ", style=styles.get(kind, "dim")).append(plain(message), style="not bold default"))


def plain(text: str) -> str:
    """``text`` without characters that would steer the terminal (a file name may hold any)."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


@contextmanager
def stage_bars(title: str, *, shown: bool) -> Iterator[ProgressCall]:
    """One progress bar per stage, on stderr; gives the callable to report ``(stage, fraction 0..1)`` to.

    Nothing is drawn where ``shown`` is false or stderr is not a terminal.
    """
    if not (shown and ERR.is_terminal):
        yield lambda stage, fraction: None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=ERR, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                for earlier in tasks.values():
                    progress.update(earlier, completed=1.0)
                tasks[stage] = progress.add_task(f"{plain(title)}: {stage}", total=1.0)
            progress.update(tasks[stage], completed=min(max(fraction, 0.0), 1.0))

        yield report


def print_json(value: Any) -> None:
    """``value`` as strict JSON on stdout (no NaN), and nothing else."""
    OUT.file.write(to_json(value))
