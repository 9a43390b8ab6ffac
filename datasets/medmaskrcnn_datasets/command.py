"""Commands that write manifests. Whoever trains a model starts here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.msd import InstanceRule, msd_dataset
from medmaskrcnn_datasets.phantom import make_phantom
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset
from medmaskrcnn_datasets.phantom_settings import PhantomSettings, Shape3
from medmaskrcnn_datasets.splits import SplitRule

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


@app.command()
def study(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    seed: Annotated[int, typer.Option(min=0, help="Which phantom.")] = 7,
    tumours: Annotated[int, typer.Option(min=0, max=8, help="How many tumours.")] = 4,
    slices: Annotated[int, typer.Option(min=2, help="How many slices; they share 320 mm.")] = 107,
    matrix: Annotated[int, typer.Option(min=16, help="Rows and columns; they share 370 mm.")] = 256,
) -> None:
    """One phantom as a hospital exports it: a folder of DICOM.

    `python -m medmaskrcnn_datasets study --seed 7 -o study`
    """
    settings = PhantomSettings(
        seed=seed,
        shape=(slices, matrix, matrix),
        spacing_mm=(round(320 / slices, 3), round(370 / matrix, 4), round(370 / matrix, 4)),
        tumours=tumours,
        touching=tumours >= 2,
    )
    with _told(), _progress("slices") as progress:
        write_dicom_series(make_phantom(settings), out, progress=progress)
    typer.echo(out)


@app.command()
def msd(
    folder: Annotated[Path, typer.Argument(metavar="DATASET_DIR", help="Folder with a dataset.json; only read.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    rule: Annotated[
        InstanceRule, typer.Option(help="A label value is one instance, or each of its components is.")
    ] = "one",
    least_voxels: Annotated[int, typer.Option(min=1, help="Smaller components are left out.")] = 1,
    test: Annotated[str, typer.Option(help="Patients for testing, separated by commas.")] = "",
    val: Annotated[str, typer.Option(help="Patients for validation, separated by commas.")] = "",
    folds: Annotated[int, typer.Option(min=0, help="Deal all other patients into so many folds.")] = 0,
    fold: Annotated[int, typer.Option(min=0, help="The fold for validation, from 0.")] = 0,
    patient: Annotated[str, typer.Option(help="Regular expression; its match in a case's name is the patient.")] = ".*",
) -> None:
    """Cases in the layout of the Medical Segmentation Decathlon.

    `python -m medmaskrcnn_datasets msd AbdomenMR -o data/abdomen --test chaos_03,chaos_05`

    `python -m medmaskrcnn_datasets msd AbdomenMR -o data/fold0 --folds 5 --fold 0`
    """
    with _told(), _progress("cases") as progress:
        manifest = msd_dataset(
            folder,
            out,
            rule=rule,
            least_voxels=least_voxels,
            splits=SplitRule(_names(test), _names(val), folds, fold),
            patient_of=lambda case: _matched(patient, case),
            progress=progress,
        )
    typer.echo(manifest)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _matched(pattern: str, case: str) -> str:
    try:
        found = re.search(pattern, case)
    except re.error as error:
        raise ValueError(f"--patient must be a regular expression, got {pattern!r}: {error}") from None
    if not found or not found.group():
        raise ValueError(f"--patient {pattern!r} matches nothing in the case {case!r}")
    return found.group()


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
