"""``medmaskrcnn trace``: one slice or tile on its way through a network, or how a training went, as a page to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.cli.console import echo
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.options import READING, RUNNING, LogOption, naming_the_flag, with_segment_options
from medmaskrcnn.cli.tables import print_table
from medmaskrcnn.explain.training import is_training, trace_training
from medmaskrcnn.settings import SegmentOptions

EXAMPLES = (
    "medmaskrcnn trace scan.nii.gz --model abdomen-mr -o trace.html",
    "medmaskrcnn trace study/ --model my.safetensors -o trace.html --slice 40",
    "medmaskrcnn trace run/ -o training.html   (a folder of medmaskrcnn train)",
)


@with_segment_options(*RUNNING, "series", *READING)
def trace_command(
    *,
    scan: Annotated[
        Path, typer.Argument(metavar="SCAN|RUN", help="A file, a folder of DICOM, or the folder of a training.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_FILE",
            help="A model that ships (medmaskrcnn models), or a .safetensors file; a training needs none.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The page to write.")] = Path("trace.html"),
    slice_index: Annotated[
        int | None,
        typer.Option(
            "--slice",
            metavar="N",
            help="Which slice, from 0 (for most models from the feet up).",
            show_default="the middle",
        ),
    ] = None,
    options: SegmentOptions,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables.")] = False,
    log: LogOption = None,
) -> None:
    """Show what a network does with one slice (2D, 2.5D) or tile (3D): a page with pictures of every step.

    Of a training's folder: its losses and scores by epoch, and what each of them means.

    From the input over feature maps, anchors, proposals, RoIAlign beside RoIPool, corrected boxes, scores and masks to
    what was removed, with shapes, time and memory; and how it differs from what articles teach of 800 x 800 images.
    """
    with logging_to(log, hidden=[scan]), failing_as_one(str(scan)):
        if is_training(scan):
            _trace_training(scan, out, quiet=quiet)
            return
        if model is None:
            raise typer.BadParameter("which model is to be traced?", param_hint="--model")
        from medmaskrcnn.explain.trace import trace  # here: help and wrong use need no torch

        try:
            with naming_the_flag():
                traced = trace(scan, model, slice_index=slice_index, options=options)
        except ValueError as error:  # no such slice, a network of another kind
            raise typer.BadParameter(str(error)) from error
        traced.save(out)
        if not quiet:
            steps = [[line.title, line.shape, *line.cost] for line in traced.stages]
            print_table(traced.title, ["step", "hands on", "time", "memory"], steps, numbers=("time", "memory"))
            rows = [[d.what, d.articles, d.here] for d in traced.differences]
            print_table("as articles teach it for 800 x 800", ["", "articles", "here"], rows, numbers=())
        echo(f"written to {out}")


def _trace_training(run: Path, out: Path, *, quiet: bool) -> None:
    """Write the page of a training, and print its epochs."""
    traced = trace_training(run)
    traced.save(out)
    if not quiet:
        terms, scores = list(traced.epochs[0].losses), list(traced.epochs[-1].scores)
        rows = [
            [f"{e.step:,}", *(f"{e.losses[n]:.3f}" if n in e.losses else "" for n in terms),
             *(f"{e.scores[n]:.3f}" if n in e.scores else "" for n in scores)]
            for e in traced.epochs
        ]  # fmt: skip
        header = ["step", *terms, *scores]
        print_table("losses since the validation before, and scores at it", header, rows, numbers=header)
    echo(f"written to {out}")
