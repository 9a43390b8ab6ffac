"""From inputs to result folders: the work behind ``segment`` and ``demo``.

Each case goes read -> segment -> write by itself; a case that fails is told and does not stop the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medmaskrcnn.cli.console import print_status, stage_bars
from medmaskrcnn.cli.failures import report_failure
from medmaskrcnn.errors import ReadError, UnwrittenFormatsError
from medmaskrcnn.export.check import check_formats, check_output_folder
from medmaskrcnn.export.deidentify import deidentified_result
from medmaskrcnn.report.result_document import result_document
from medmaskrcnn.settings import OutputOptions, SegmentOptions
from medmaskrcnn.structures.case_result import CaseResult

if TYPE_CHECKING:
    from medmaskrcnn.hub.loaded_model import LoadedModel
    from medmaskrcnn.inference.detect import StageProgress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Case:
    """One input and the folder its result goes into.

    Attributes:
        name: Name of the case.
        source: The input that messages name.
        folder: Folder of the result.
        sequences: Name and file or folder of each sequence, if the case is given sequence by sequence.
    """

    name: str
    source: Path
    folder: Path
    sequences: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True)
class Wishes:
    """What the user asked for.

    Attributes:
        options: How to read and segment.
        output: What to write.
        quiet: No progress and no notes.
        overwrite: Replace the result of another scan in the output folder.
    """

    options: SegmentOptions
    output: OutputOptions
    quiet: bool = False
    overwrite: bool = False


@dataclass(frozen=True, eq=False)
class CaseOutcome:
    """What became of a case.

    Attributes:
        case: The case.
        result: What was found; ``None`` if the case failed.
        document: The content of ``result.json``, whether that file was asked for or not; ``None`` if it failed.
        files: The files written, by format.
        error: The sentence that says why it failed, or, with a result, which of its files could not be written.
    """

    case: Case
    result: CaseResult | None = None
    document: dict[str, Any] | None = None
    files: dict[str, Path] = field(default_factory=dict)
    error: str | None = None


def run_cases(
    cases: Sequence[Case], model: LoadedModel, wishes: Wishes, on_event: StageProgress | None = None
) -> list[CaseOutcome]:
    """Segment one case after the other; errors are told on stderr and stand in the outcome.

    ``on_event`` is told of the progress too.
    """
    return [_run_case(case, model, wishes, on_event) for case in cases]


def _run_case(case: Case, model: LoadedModel, wishes: Wishes, on_event: StageProgress | None) -> CaseOutcome:
    logger.info("case: %s", case.source)  # its name is made from the path, which the log leaves out
    try:
        outcome = _segment_and_write(case, model, wishes, on_event)
    except Exception as error:  # whatever it is, the other cases go on
        return CaseOutcome(case, error=report_failure(error, str(case.source)))
    _tell_remarks(case, outcome.result, quiet=wishes.quiet)
    return outcome


def _tell_remarks(case: Case, result: CaseResult | None, *, quiet: bool) -> None:
    """What the user should know of a case that went well: the pipeline's warnings, and what the reader noticed."""
    if result is None:
        return
    notes = () if quiet else result.record.source.get("notes", ())
    for kind, sentences in (("note", notes), ("warning", result.record.warnings)):
        for sentence in sentences:
            print_status(kind, sentence if str(case.source) in sentence else f"{case.source}: {sentence}")


def _segment_and_write(case: Case, model: LoadedModel, wishes: Wishes, on_event: StageProgress | None) -> CaseOutcome:
    # here: help and wrong use need no torch
    from medmaskrcnn.export.occupied import refuse_occupied
    from medmaskrcnn.export.write import file_names, write_result
    from medmaskrcnn.inference.pipeline import segment
    from medmaskrcnn.inference.read_source import read_source

    options, output = wishes.options, wishes.output
    for place in [path for _, path in case.sequences] or [case.source]:
        if not place.exists():
            raise ReadError(f"there is no file or folder {place}")
    check_output_folder(case.folder)
    with stage_bars(case.name, shown=not wishes.quiet) as show:

        def progress(stage: str, done: float) -> None:
            show(stage, done)
            if on_event is not None:
                on_event(stage, done)

        progress("read", 0.0)
        volume = read_source(dict(case.sequences) or case.source, model.settings, options)
        volume = check_formats(volume, output)
        if not wishes.overwrite:  # before the work, not after it
            refuse_occupied(case.folder, file_names(output), volume)
        result = segment(volume, model, options=options, progress=progress)
        progress("write", 0.0)
        error = None
        try:
            files = write_result(
                result, volume, case.folder, options=output, tracks=options.track, overwrite=wishes.overwrite
            )
        except UnwrittenFormatsError as unwritten:
            files, error = unwritten.files, unwritten
    shown = deidentified_result(result) if output.deidentify else result
    failure = None if error is None else report_failure(error, str(case.source))
    return CaseOutcome(case, result, result_document(shown, volume), files, failure)
