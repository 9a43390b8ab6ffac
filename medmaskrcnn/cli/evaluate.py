"""``medmaskrcnn evaluate``: what a model is worth on labelled cases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medmaskrcnn.cli.console import echo, print_json, print_status
from medmaskrcnn.cli.evaluation_tables import print_evaluation
from medmaskrcnn.cli.failures import EXIT_FAILED, ON_COMMAND_LINE, failing_as_one, logging_to
from medmaskrcnn.cli.options import RUNNING, LogOption, naming_the_flag, with_segment_options
from medmaskrcnn.cli.train_display import count_bar
from medmaskrcnn.errors import ModelFileError, with_remedy
from medmaskrcnn.export.check import check_output_folder
from medmaskrcnn.settings import SegmentOptions

if TYPE_CHECKING:
    from medmaskrcnn.data.manifest import Manifest
    from medmaskrcnn.evaluation.evaluate import Evaluation

EXAMPLES = (
    "medmaskrcnn evaluate abdomen-mr data/manifest.json -o evaluation",
    "medmaskrcnn evaluate run/best.safetensors data/manifest.json --split val --operating-score 0.7",
    "medmaskrcnn evaluate phantom-ct phantoms/manifest.json --ids phantom-0003,phantom-0007 --min-diameter 10",
    "medmaskrcnn evaluate my.safetensors data/manifest.json --engine openvino --precision int8",
)

_SELDOM = "Less often needed"


@with_segment_options(*RUNNING)
def evaluate_command(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model that ships (medmaskrcnn models), or a .safetensors file.")
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST", help="A manifest.json, or labelled data: MSD, nnU-Net, COCO, folders, DICOM."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="Folder for tables, plot and pictures.", show_default="none"),
    ] = None,
    split: Annotated[str, typer.Option(metavar="train|val|test|all", help="Cases of this split.")] = "test",
    ids: Annotated[
        str | None, typer.Option(metavar="A,B", help="These cases, whatever their split.", show_default="none")
    ] = None,
    operating_score: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Score from which on an instance is part of the result.",
            show_default="the model's own",
        ),
    ] = None,
    iou: Annotated[float, typer.Option(min=0.01, max=1.0, help="An object is found from this IoU of masks on.")] = 0.5,
    tolerance: Annotated[
        float, typer.Option(min=0.0, help="Of the normalised surface distance: mm, or pixels without spacing.")
    ] = 2.0,
    min_diameter: Annotated[
        float, typer.Option(min=0.0, help="Smaller objects need not be found: mm, or pixels without spacing.")
    ] = 0.0,
    pictures: Annotated[int, typer.Option(min=0, help="How many of the worst cases to draw.")] = 12,
    options: SegmentOptions,
    replicates: Annotated[
        int, typer.Option(min=0, help="Draws for the confidence intervals.", rich_help_panel=_SELDOM)
    ] = 1000,
    surfaces: Annotated[bool, typer.Option(help="Compute surface distances.", rich_help_panel=_SELDOM)] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the network, on the CPU.", rich_help_panel=_SELDOM)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no tables.")] = False,
    log: LogOption = None,
) -> None:
    """Segment the labelled cases of a manifest and compare: AP, FROC, Dice, surface distances and more.

    Prints a table of the classes and one of the cases, the worst first. OUT receives evaluation.json (every figure with
    its confidence interval over patients), cases.csv, froc.png and evaluation.html with pictures of the worst cases.
    """
    shown = not (quiet or as_json)
    with logging_to(log, hidden=[data]), failing_as_one(str(data)):
        if out is not None:
            check_output_folder(out)
        manifest = _manifest(data, out, shown=shown)
        evaluation = _evaluate(
            model,
            manifest,
            split=split,
            cases=None if ids is None else [name.strip() for name in ids.split(",") if name.strip()],
            options=options.model_copy(update={"score": operating_score}),
            pictures=pictures if out is not None else 0,
            settings=(iou, tolerance, min_diameter, replicates, surfaces),
            threads=threads,
            shown=shown,
        )
        _report(evaluation, out, as_json=as_json, shown=shown)
        raise typer.Exit(EXIT_FAILED if evaluation.failed else 0)


def _manifest(data: Path, out: Path | None, *, shown: bool) -> Manifest:
    """The manifest at ``data``, or one of the labelled data there; what has to be converted goes beside ``out``."""
    from medmaskrcnn.data.manifest import read_manifest
    from medmaskrcnn_datasets.convert import to_manifest

    place = out or Path("evaluation")
    with count_bar("convert", shown=shown) as progress:
        converted = place.with_name(f"{place.name}-data")
        return read_manifest(to_manifest(data, converted, on_event=partial(print_status, "note"), progress=progress))


def _evaluate(
    model: str,
    manifest: Manifest,
    *,
    split: str,
    cases: list[str] | None,
    options: SegmentOptions,
    pictures: int,
    settings: tuple[float, float, float, int, bool],
    threads: int | None,
    shown: bool,
) -> Evaluation:
    """Run the evaluation behind a progress bar.

    Raises:
        typer.BadParameter: if there is no such model, split or case.
    """
    import torch

    from medmaskrcnn.evaluation.evaluate import choose_cases, evaluate
    from medmaskrcnn.evaluation.metrics.summary import MetricSettings
    from medmaskrcnn.hub.model_file import resolve_model

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        resolve_model(model)
        choose_cases(manifest, split, cases)
    except (ModelFileError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    iou, tolerance, min_diameter, replicates, surfaces = settings
    with count_bar("evaluate", shown=shown) as progress, naming_the_flag():
        return evaluate(
            model,
            manifest,
            split=split,
            cases=cases,
            options=options,
            settings=MetricSettings(
                match_iou=iou,
                tolerance=tolerance,
                min_diameter=min_diameter,
                replicates=replicates,
                surfaces=surfaces,
            ),
            pictures=pictures,
            progress=progress,
        )


def _report(evaluation: Evaluation, out: Path | None, *, as_json: bool, shown: bool) -> None:
    from medmaskrcnn.evaluation.files import evaluation_document, write_evaluation

    for failed in evaluation.failed:
        what = failed.error if failed.id in failed.error else f"{failed.id}: {failed.error}"
        print_status("error", with_remedy(what, failed.remedy, ON_COMMAND_LINE))
    if as_json:
        print_json(evaluation_document(evaluation))
    if shown:
        print_evaluation(evaluation)
    if out is not None:
        files = write_evaluation(evaluation, out)
        if shown:
            echo(f"written to {out}: {', '.join(files)}")
