"""``medmaskrcnn segment``: scans in, counted and measured instances out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.batch_runs.case_names import name_cases
from medmaskrcnn.cli.console import echo, print_json
from medmaskrcnn.cli.failures import EXIT_FAILED, failing_as_one, logging_to
from medmaskrcnn.cli.options import (
    READING,
    REPORTING,
    RUNNING,
    LogOption,
    ModelOption,
    model_file,
    naming_the_flag,
    with_output_options,
    with_segment_options,
)
from medmaskrcnn.cli.profiling import profiled
from medmaskrcnn.cli.run_cases import Case, CaseOutcome, Wishes, run_cases
from medmaskrcnn.cli.tables import print_instances
from medmaskrcnn.export.check import check_output_folder
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.settings import OutputOptions, SegmentOptions

EXAMPLES = (
    "medmaskrcnn segment ct_folder/ -o result --model phantom-ct",
    'medmaskrcnn segment *.nii.gz -o results --model abdomen-mr --classes "liver,left kidney" --score 0.7',
    "medmaskrcnn segment study/ -o result --model my.safetensors --series largest --format nifti,csv",
)


@with_output_options("label_map_seg", "deidentify")
@with_segment_options(*RUNNING, "flips", *REPORTING, "series", *READING)
def segment_command(
    *,
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Scans: NIfTI, NRRD, MHA, PNG, TIFF, JPEG, DICOM, a folder of DICOM."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if missing.")],
    model: ModelOption,
    options: SegmentOptions,
    output: OutputOptions,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell time and memory of each stage, and how near the limit they are.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no table; errors and warnings remain.")
    ] = False,
    log: LogOption = None,
) -> None:
    """Find, count and measure what a model knows in one or more scans.

    One input: the files go into OUT. Several: into OUT/CASE/, each case being named after its input. The files are
    instances.npz (the result without loss), labels.nii.gz, instances.csv, result.json, preview.png and run.json;
    with --format also a DICOM SEG, RTSTRUCT or SR (of DICOM series), COCO JSON, STL meshes, an HTML report.

    With --json one input gives what stands in result.json; several give a list of objects with "case", "input"
    and either "result" or "error".
    """
    if profile and as_json:
        raise typer.BadParameter("prints a table; --json is to print nothing but JSON", param_hint="--profile")
    with logging_to(log, hidden=inputs):
        cases = plan_cases(inputs, out)
        wishes = Wishes(options, output, quiet=quiet or as_json)
        outcomes = segment_cases(cases, out, model, wishes, profile=profile)
        if as_json:
            _print_outcomes_as_json(outcomes)
        elif not quiet:
            print_outcomes(outcomes)
        raise typer.Exit(EXIT_FAILED if any(outcome.error for outcome in outcomes) else 0)


def plan_cases(inputs: Sequence[Path], out: Path) -> list[Case]:
    """The case of each input: one goes into ``out`` itself, several into a folder each."""
    for path in inputs:
        if path.is_dir() and path.resolve() == out.resolve():
            raise typer.BadParameter(f"{out} is an input too: results would mix with scans", param_hint="--out")
    names = name_cases(inputs)
    folders = [out] if len(inputs) == 1 else [out / name for name in names]
    return [Case(*case) for case in zip(names, inputs, folders, strict=True)]


def segment_cases(
    cases: Sequence[Case], out: Path, model: str, wishes: Wishes, *, profile: bool = False
) -> list[CaseOutcome]:
    """Check what can be checked beforehand, load the model and run every case.

    Raises:
        typer.Exit: if the output folder or the model is of no use; the reason was told.
        typer.BadParameter: if there is no such model or device.
    """
    from medmaskrcnn.hub.loaded_model import load_as_asked  # here: help and wrong use need no torch

    with failing_as_one(str(out)):
        check_output_folder(out)
    file = model_file(model)
    with failing_as_one(model):
        read_model_settings(file)
        with naming_the_flag():
            loaded = load_as_asked(file, wishes.options)
        if profile:
            _ = loaded.only_network  # refused before any scan is read
    return profiled(cases, loaded, wishes) if profile else run_cases(cases, loaded, wishes)


def print_outcomes(outcomes: Sequence[CaseOutcome]) -> None:
    """For every case that went well its table and where its files are; in the end how many went well."""
    for outcome in outcomes:
        if outcome.result is not None:
            print_instances(outcome.case.name, outcome.result)
            names = sorted(path.name for path in outcome.files.values())
            echo(f"written to {outcome.case.folder}: {', '.join(names)}")
    failed = sum(outcome.error is not None for outcome in outcomes)
    if len(outcomes) > 1:
        echo(f"{len(outcomes) - failed} of {len(outcomes)} cases segmented")


def _print_outcomes_as_json(outcomes: Sequence[CaseOutcome]) -> None:
    """One case: its result, or nothing if it failed. Several: a list with the result or error of each."""
    if len(outcomes) == 1:
        if outcomes[0].document is not None:
            print_json(outcomes[0].document)
        return
    cases = []
    for outcome in outcomes:
        what = {"error": outcome.error} if outcome.document is None else {"result": outcome.document}
        cases.append({"case": outcome.case.name, "input": str(outcome.case.source), **what})
    print_json(cases)
