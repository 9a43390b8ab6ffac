"""``medmaskrcnn trace``: one slice or tile on its way through a network, step by step, as a page to read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.cli.console import say
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.segment import Device
from medmaskrcnn.cli.tables import print_table

EXAMPLES = (
    "medmaskrcnn trace scan.nii.gz --model abdomen-mr -o trace.html",
    "medmaskrcnn trace study/ --model my.safetensors -o trace.html --slice 40",
)


def trace_command(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="A scan: a file, or a folder of DICOM.")],
    model: Annotated[
        str,
        typer.Option(metavar="NAME_OR_FILE", help="A model that ships (medmaskrcnn models), or a .safetensors file."),
    ],
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
    series: Annotated[
        str | None,
        typer.Option(metavar="UID|N|largest", help="Which series of a folder with several (medmaskrcnn info)."),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network runs.")] = Device.AUTO,
    allow_out_of_domain: Annotated[
        bool, typer.Option("--allow-out-of-domain", help="Run a model on scans that it refuses; the page says so.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No tables.")] = False,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all details, with tracebacks, here.")] = None,
) -> None:
    """Show what a network does with one slice (2D, 2.5D) or tile (3D): a page with pictures of every step.

    From the input over feature maps, anchors, proposals, RoIAlign beside RoIPool, corrected boxes, scores and masks to
    what was removed, with shapes, time and memory; and how it differs from what articles teach of 800 x 800 images.
    """
    with logging_to(log, hidden=[scan]), failing_as_one(str(scan)):
        from medmaskrcnn.explain.trace import trace  # here: help and wrong use need no torch

        try:
            traced = trace(
                scan,
                model,
                slice_index=slice_index,
                device=device.value,
                series=series,
                allow_out_of_domain=allow_out_of_domain,
            )
        except ValueError as error:  # no such slice, a device that is not there
            raise typer.BadParameter(str(error)) from error
        traced.save(out)
        if not quiet:
            steps = [[line.title, line.shape, *line.cost] for line in traced.stages]
            print_table(traced.title, ["step", "hands on", "time", "memory"], steps, numbers=("time", "memory"))
            rows = [[d.what, d.articles, d.here] for d in traced.differences]
            print_table("as articles teach it for 800 x 800", ["", "articles", "here"], rows, numbers=())
        say(f"written to {out}")
