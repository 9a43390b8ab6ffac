"""Output of this package's commands on standard error: progress bar, notes and errors."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medmaskrcnn.errors import MedMaskRCNNError

_errors = Console(stderr=True)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, updated with (done, total)."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_errors) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def tell(text: str) -> None:
    """Print what was assumed or found."""
    _errors.print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


@contextmanager
def report_errors() -> Iterator[None]:
    """Show warnings; end the command with message and exit code 1 on file errors."""
    handler = RichHandler(logging.WARNING, _errors, show_time=False, show_path=False)
    package = logging.getLogger("medmaskrcnn_datasets")
    package.addHandler(handler)
    try:
        yield
    except (MedMaskRCNNError, ValueError) as error:
        reason = error.reason if isinstance(error, MedMaskRCNNError) else error
        _errors.print(f"[red]error:[/red] {reason}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    finally:
        package.removeHandler(handler)
