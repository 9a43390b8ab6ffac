"""Commands that write manifests, the starting point for training a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn_datasets.adapter_commands import ADAPTERS
from medmaskrcnn_datasets.console import bar, report_errors
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import make_phantom
from medmaskrcnn_datasets.phantom_dataset import phantom_dataset
from medmaskrcnn_datasets.phantom_settings import PhantomSettings, Shape3

app = typer.Typer(
    help="Write labelled data sets in the form that training reads: a manifest.json beside images and label maps.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)
for adapter in ADAPTERS:
    app.command()(adapter)


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
    with report_errors(), bar("phantoms") as progress:
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
    with report_errors(), bar("slices") as progress:
        write_dicom_series(make_phantom(settings), out, progress=progress)
    typer.echo(out)


def _shape(text: str) -> Shape3:
    try:
        d, h, w = (int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--max-shape wants three whole numbers like 128,256,256, got {text!r}") from None
    if min(d, h, w) < 2:
        raise typer.BadParameter(f"--max-shape wants at least 2 along each axis, got {text!r}")
    return d, h, w
