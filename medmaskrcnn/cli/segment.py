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
    assignments,
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
from medmaskrcnn.io.nnunet_names import case_and_channel, files_by_name, group_cases
from medmaskrcnn.settings import ModelFileSettings, OutputOptions, SegmentOptions
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS

EXAMPLES = (
    "medmaskrcnn segment ct_folder/ -o result --model phantom-ct",
    'medmaskrcnn segment *.nii.gz -o results --model abdomen-mr --classes "liver,left kidney" --score 0.7',
    "medmaskrcnn segment --channels T1=t1.nii.gz FLAIR=flair.nii.gz -o result --model two-sequences.safetensors",
    "medmaskrcnn segment study/ -o result --model my.safetensors --series largest --format nifti,csv",
)


@with_output_options("label_map_seg", "deidentify")
@with_segment_options(*RUNNING, "flips", *REPORTING, "series", "channels", *READING)
def segment_command(
    *,
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[INPUT]...", help="Scans: NIfTI, NRRD, MHA, PNG, TIFF, JPEG, DICOM, a folder of DICOM."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the results; made if missing.")],
    model: ModelOption,
    options: SegmentOptions,
    output: OutputOptions,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell time and memory of each stage, and how near the limit they are.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what lies in OUT, the result of another scan too.")
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

    A model of several sequences takes the files of a case by nnU-Net's names (CASE_0000, CASE_0001, or a folder of
    them), a file of four axes, or what --channels says.

    With --json one input gives what stands in result.json; several give a list of objects with "case", "input"
    and either "result" or "error".
    """
    if profile and as_json:
        raise typer.BadParameter("prints a table; --json is to print nothing but JSON", param_hint="--profile")
    given = list(inputs or ())
    with logging_to(log, hidden=given):
        settings = _settings_of(model)
        given, options = with_named_sequences(given, options)
        cases = plan_cases(given, out, settings, options)
        options = options.model_copy(update={"channels": ()}) if cases[0].sequences else options
        wishes = Wishes(options, output, quiet=quiet or as_json, overwrite=overwrite)
        outcomes = segment_cases(cases, out, model, wishes, profile=profile)
        if as_json:
            _print_outcomes_as_json(outcomes)
        elif not quiet:
            print_outcomes(outcomes)
        raise typer.Exit(EXIT_FAILED if any(outcome.error for outcome in outcomes) else 0)


def _settings_of(model: str) -> ModelFileSettings:
    file = model_file(model)
    with failing_as_one(model):
        return read_model_settings(file)


def with_named_sequences(inputs: list[Path], options: SegmentOptions) -> tuple[list[Path], SegmentOptions]:
    """Inputs of the form NAME=WHAT are further sequences where --channels is given: ``--channels T1=a FLAIR=b``."""
    if not options.channels:
        return inputs, options
    more = [str(path) for path in inputs if "=" in str(path) and not path.exists()]
    left = [path for path in inputs if str(path) not in more]
    channels = dict(options.channels)
    for name, what in assignments(more, "--channels").items():
        if name in channels:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--channels")
        channels[name] = what
    return left, options.model_copy(update={"channels": tuple(channels.items())})


def plan_cases(
    inputs: Sequence[Path], out: Path, settings: ModelFileSettings, options: SegmentOptions = AS_THE_MODEL_SAYS
) -> list[Case]:
    """The case of each input, or of the files that --channels names: one goes into ``out``, several into a folder each.

    Raises:
        typer.BadParameter: if there is no input, or ``out`` is one.
    """
    for path in inputs:
        if path.is_dir() and path.resolve() == out.resolve():
            raise typer.BadParameter(f"{out} is an input too: results would mix with scans", param_hint="--out")
    if not inputs:
        if not options.channels:
            raise typer.BadParameter("give at least one scan", param_hint="INPUT")
        parts = tuple((name, Path(what)) for name, what in options.channels)
        return [Case(name_cases([parts[0][1]])[0], parts[0][1], out, parts)]
    found = [] if options.channels else _cases_by_name(inputs, settings)
    found = found or [(path, ()) for path in inputs]
    names = name_cases([path for path, _ in found])
    folders = [out] if len(found) == 1 else [out / name for name in names]
    return [Case(name, path, folder, parts) for name, (path, parts), folder in zip(names, found, folders, strict=True)]


def _cases_by_name(
    inputs: Sequence[Path], settings: ModelFileSettings
) -> list[tuple[Path, tuple[tuple[str, Path], ...]]]:
    """Cases by nnU-Net's names among inputs and in the folders among them; other inputs are cases as they are."""
    channels = settings.scan_channels
    if channels < 2:
        return []
    files = [file for path in inputs for file in (files_by_name(path) or [path])]
    with failing_as_one(str(inputs[0])):
        grouped = group_cases(files, channels)
    names = settings.preprocess.channel_names or tuple(f"{number:04d}" for number in range(channels))
    cases = [(case, tuple(zip(names, own, strict=True))) for case, own in grouped.items()]
    return [*cases, *((file, ()) for file in files if case_and_channel(file) is None)]


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
    return profiled(cases, loaded, wishes) if profile else run_cases(cases, loaded, wishes)


def print_outcomes(outcomes: Sequence[CaseOutcome]) -> None:
    """For every case that went well its table and where its files are; in the end how many went well."""
    for outcome in outcomes:
        if outcome.result is not None:
            print_instances(outcome.case.name, outcome.result)
            names = sorted(path.name for path in outcome.files.values())
            echo(f"written to {outcome.case.folder}: {', '.join(names)}")
    failed = sum(outcome.result is None for outcome in outcomes)
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
