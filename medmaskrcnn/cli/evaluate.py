"""``medmaskrcnn evaluate``: what a model, or any tool's predictions, are worth on labelled cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medmaskrcnn.cli.console import echo, print_json, print_status
from medmaskrcnn.cli.evaluation_tables import print_evaluation
from medmaskrcnn.cli.failures import EXIT_FAILED, ON_COMMAND_LINE, failing_as_one, logging_to
from medmaskrcnn.cli.labelled_data import about_labels, labelled_manifest
from medmaskrcnn.cli.options import (
    RUNNING,
    LogOption,
    RenameOption,
    assignments,
    naming_the_flag,
    with_segment_options,
)
from medmaskrcnn.cli.train_display import count_bar
from medmaskrcnn.errors import ModelFileError, with_remedy
from medmaskrcnn.export.check import check_output_folder
from medmaskrcnn.settings import SegmentOptions

if TYPE_CHECKING:
    from medmaskrcnn.data.manifest import Manifest
    from medmaskrcnn.evaluation.evaluate import Evaluation
    from medmaskrcnn.evaluation.metrics.summary import MetricSettings

EXAMPLES = (
    "medmaskrcnn evaluate abdomen-mr data/manifest.json -o evaluation",
    "medmaskrcnn evaluate run/best.safetensors data/manifest.json --split val --operating-score 0.7",
    "medmaskrcnn evaluate phantom-ct phantoms/manifest.json --ids phantom-0003,phantom-0007 --min-diameter 10",
    "medmaskrcnn evaluate hippocampus-mr Task04_Hippocampus/ --rename 'Anterior=anterior hippocampus' -o evaluation",
    "medmaskrcnn evaluate my.safetensors data/manifest.json --engine openvino --precision int8",
    "medmaskrcnn evaluate my.safetensors data/manifest.json --split all --by scanner,sex",
    "medmaskrcnn evaluate nnunet-predictions/ data/manifest.json -o evaluation --rule tumour=components",
    "medmaskrcnn evaluate totalsegmentator/ data/manifest.json --rename esophagus=oesophagus --split all",
)

_SELDOM = "Less often needed"
_PREDICTIONS = "Predictions of any tool"


@with_segment_options(*RUNNING, "flips")
def evaluate_command(
    *,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|PREDICTIONS",
            help="A model that ships (medmaskrcnn models), a .safetensors file, or what any tool predicted: a folder "
            "of label maps, SEG, RTSTRUCT, COCO or results, or one COCO file.",
        ),
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
    rename: RenameOption = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL,LABEL",
            help="Every table also by the values of these labels of the cases: 'scanner,sex' (case_labels).",
            show_default="none",
        ),
    ] = None,
    pictures: Annotated[int, typer.Option(min=0, help="How many of the worst cases to draw.")] = 12,
    options: SegmentOptions,
    rule: Annotated[
        list[str] | None,
        about_labels(
            "[CLASS=]RULE",
            "What one object of a prediction is: components (each connected part), whole (all of a case) or "
            "instances (each as labelled); 'tumour=components', once for each class.",
            "maps of classes: as the manifest's cases show",
            panel=_PREDICTIONS,
        ),
    ] = None,
    within: Annotated[
        list[str] | None,
        about_labels(
            "INNER=OUTER",
            "Objects of one class lie in those of another, whose masks include them: 'tumour=liver'.",
            "as the manifest says",
            panel=_PREDICTIONS,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        about_labels(
            "VALUE=CLASS",
            "Class of a value of label maps, '1=liver'; once for each.",
            "the tool's dataset.json or header",
            panel=_PREDICTIONS,
        ),
    ] = None,
    require_all: Annotated[
        bool,
        typer.Option(
            "--require-all",
            help="A case without a prediction has failed; otherwise nothing was found in it, which is told.",
            rich_help_panel=_PREDICTIONS,
        ),
    ] = False,
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
    """Segment the labelled cases of a manifest, or read what any tool predicted for them, and compare.

    Prints tables of the classes (AP, FROC, panoptic quality, Dice, surface distances and more) and one of the cases,
    the worst first. OUT receives evaluation.json (every figure with its confidence interval over patients), cases.csv,
    froc.png and evaluation.html with pictures of the worst cases.
    """
    shown = not (quiet or as_json)
    with logging_to(log, hidden=[data]), failing_as_one(str(data)):
        if out is not None:
            check_output_folder(out)
        manifest = _manifest(data, out, shown=shown)
        common: dict[str, Any] = {
            "split": split,
            "cases": None if ids is None else [name.strip() for name in ids.split(",") if name.strip()],
            "rename": assignments(rename, "--rename"),
            "by": [name.strip() for name in (by or "").split(",") if name.strip()],
            "pictures": pictures if out is not None else 0,
            "settings": _settings(iou, tolerance, min_diameter, replicates, surfaces=surfaces),
            "shown": shown,
        }
        reading = {"--rule": rule, "--within": within, "--label": label, "--require-all": require_all}
        if _is_predictions(model):
            evaluation = _evaluate_predictions(model, manifest, reading, score=operating_score or 0.0, **common)
        else:
            given = next((flag for flag, value in reading.items() if value), None)
            if given is not None:
                raise typer.BadParameter(f"{model} is no folder of predictions", param_hint=given)
            asked = options.model_copy(update={"score": operating_score})
            evaluation = _evaluate(model, manifest, options=asked, threads=threads, **common)
        _report(evaluation, out, as_json=as_json, shown=shown)
        raise typer.Exit(EXIT_FAILED if evaluation.failed else 0)


def _manifest(data: Path, out: Path | None, *, shown: bool) -> Manifest:
    """The manifest at ``data``, or one of the labelled data there; what has to be converted goes beside ``out``."""
    return labelled_manifest([data], out or Path("evaluation"), shown=shown)


def _is_predictions(given: str) -> bool:
    """Whether the first argument is a folder or file of predictions, not a model."""
    from medmaskrcnn.hub.model_file import shipped_models

    path = Path(given)
    return given not in shipped_models() and (path.is_dir() or (path.is_file() and path.suffix.lower() == ".json"))


def _settings(iou: float, tolerance: float, min_diameter: float, replicates: int, *, surfaces: bool) -> MetricSettings:
    from medmaskrcnn.evaluation.metrics.summary import MetricSettings

    return MetricSettings(
        match_iou=iou, tolerance=tolerance, min_diameter=min_diameter, replicates=replicates, surfaces=surfaces
    )


def _choosable(manifest: Manifest, split: str, cases: list[str] | None) -> None:
    """Refuse a split or case that is not there before anything is read.

    Raises:
        typer.BadParameter: if there is none.
    """
    from medmaskrcnn.evaluation.evaluate import choose_cases

    try:
        choose_cases(manifest, split, cases)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _evaluate(
    model: str, manifest: Manifest, *, options: SegmentOptions, threads: int | None, shown: bool, **common: Any
) -> Evaluation:
    """Run the evaluation of a model behind a progress bar.

    Raises:
        typer.BadParameter: if there is no such model, split or case, or an option does not fit.
    """
    import torch

    from medmaskrcnn.evaluation.evaluate import evaluate
    from medmaskrcnn.hub.model_file import resolve_model

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        resolve_model(model)
    except ModelFileError as error:
        raise typer.BadParameter(str(error)) from error
    _choosable(manifest, common["split"], common["cases"])
    with count_bar("evaluate", shown=shown) as progress, naming_the_flag():
        return evaluate(model, manifest, options=options, progress=progress, **common)


def _evaluate_predictions(
    predictions: str,
    manifest: Manifest,
    reading: dict[str, Any],
    *,
    rename: dict[str, str],
    score: float,
    shown: bool,
    **common: Any,
) -> Evaluation:
    """Run the evaluation of predictions behind a progress bar.

    Raises:
        typer.BadParameter: if there is no such split or case, or an option does not fit.
    """
    from medmaskrcnn.evaluation.prediction_reader import PredictionOptions
    from medmaskrcnn.evaluation.predictions import evaluate_predictions

    _choosable(manifest, common["split"], common["cases"])
    with count_bar("evaluate", shown=shown) as progress, naming_the_flag():
        options = PredictionOptions(
            classes=_values(reading["--label"]),
            rules=_rules(reading["--rule"]),
            within=assignments(reading["--within"], "--within") or None,
            rename=rename,
            missing_is_empty=not reading["--require-all"],
        )
        return evaluate_predictions(predictions, manifest, reading=options, score=score, progress=progress, **common)


def _rules(texts: list[str] | None) -> Any:
    """Rules by class; one without a class is for all others."""
    alone = [text.strip() for text in texts or () if "=" not in text]
    if len(alone) > 1:
        raise typer.BadParameter(f"one rule for all other classes, got {', '.join(alone)}", param_hint="--rule")
    return assignments([text for text in texts or () if "=" in text], "--rule") | ({"": alone[0]} if alone else {})


def _values(texts: list[str] | None) -> dict[int, str]:
    """Class by value of a label map."""
    named = assignments(texts, "--label")
    wrong = [value for value in named if not value.isdigit()]
    if wrong:
        raise typer.BadParameter(f"a value of a label map is a whole number, got {wrong[0]}", param_hint="--label")
    return {int(value): name for value, name in named.items()}


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
