"""Commands that write manifests. Whoever trains a model starts here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset
from medmaskrcnn_datasets.phantom_settings import Shape3

app = typer.Typer(
    help="Write labelled data sets in the form that training reads: a manifest.json beside images and label maps.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
_errors = Console(stderr=True)


@app.callback()
def _root() -> None:
    """Write labelled data sets in the form that training reads: a manifest.json beside images and label maps."""


@app.command()
def phantoms(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    count: Annotated[int, typer.Option(min=1, help="How many phantoms.")] = 60,
    first_seed: Annotated[int, typer.Option(min=0, help="Seed of the first; the others follow.")] = 0,
    val: Annotated[int, typer.Option(min=0, help="The last so many before the test cases are for validation.")] = 0,
    test: Annotated[int, typer.Option(min=0, help="The last so many are for testing.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    max_shape: Annotated[str, typer.Option(help="Most voxels up-down, front-back, right-left.")] = "128,256,256",
) -> None:
    """Synthetic CT scans of a trunk with organs and tumours.

    Example:

    `python -m medmaskrcnn_datasets phantoms --count 60 --val 6 -o data/phantoms`
    """
    seeds = range(first_seed, first_seed + count)
    if val + test >= count:
        raise typer.BadParameter(f"--val and --test together must leave some of {count} cases for training")
    with _told(), _progress("phantoms") as progress:
        manifest = phantom_dataset(
            out,
            seeds,
            max_shape=_shape(max_shape),
            val=seeds[count - test - val : count - test],
            test=seeds[count - test :],
            workers=workers,
            progress=progress,
        )
    typer.echo(manifest)


def _shape(text: str) -> Shape3:
    try:
        d, h, w = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--max-shape wants three whole numbers like 128,256,256, got {text!r}") from None
    if min(d, h, w) < 2:
        raise typer.BadParameter(f"--max-shape wants at least 2 along each axis, got {text!r}")
    return d, h, w


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, fed with (done, total)."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_errors) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _told() -> Iterator[None]:
    """Errors about files end the command with their message and exit code 1."""
    try:
        yield
    except (MedMaskRCNNError, ValueError) as error:
        _errors.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from error
