"""``medmaskrcnn batch``: every series below some folders, on one machine or many, however often it is interrupted."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bars

from medmaskrcnn.batch_runs.names import read_key
from medmaskrcnn.batch_runs.plan import BatchCase, BatchPlan, BatchProgress
from medmaskrcnn.batch_runs.rules import Rules, read_rules
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.batch_runs.scan_sources import Entered
from medmaskrcnn.batch_runs.settings import ClusterTls, Limits, Work
from medmaskrcnn.cli.console import ERR, echo, plain, print_status
from medmaskrcnn.cli.failures import EXIT_FAILED, ON_COMMAND_LINE, failing_as_one, logging_to
from medmaskrcnn.cli.options import (
    READING,
    REPORTING,
    RUNNING,
    LogOption,
    ModelOption,
    model_file,
    with_output_options,
    with_segment_options,
)
from medmaskrcnn.errors import ReadError, with_remedy
from medmaskrcnn.hub.model_file import model_sha256
from medmaskrcnn.settings import OutputOptions, SegmentOptions

EXIT_STOPPED = 130
"""What a shell gives a program that Ctrl-C ended."""

logger = logging.getLogger(__name__)

EXAMPLES = (
    "medmaskrcnn batch archive/ -o results --model abdomen-mr",
    "medmaskrcnn batch archive/ -o results --model abdomen-mr --rules rules.yaml --workers 2 --max-minutes 20",
    "medmaskrcnn batch archive/ -o results --model two.safetensors --channels T1='*t1*' --channels FLAIR='*flair*'",
    "medmaskrcnn batch --list inputs.txt -o results --model my.safetensors --scheduler tcp://head:8786",
)


@with_output_options("label_map_seg", "deidentify", paths_in_run=False)
@with_segment_options(*RUNNING, "flips", *REPORTING, "channels", *READING)
def batch_command(
    *,
    sources: Annotated[
        list[Path] | None, typer.Argument(metavar="[SOURCE]...", help="Files, folders, DICOMDIRs, zip archives.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for results, ledger and summary.")],
    model: ModelOption,
    input_list: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="More sources, one a line; lines with # are left out.")
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(metavar="YAML", help="Which series to take; see docs/batch.md.", show_default="all")
    ] = None,
    options: SegmentOptions,
    output: OutputOptions,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine; with GPUs one for each.")] = 1,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler whose workers do the work, tls://head:8786.")
    ] = None,
    scheduler_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates that the cluster's parts are signed by, ca.pem.")
    ] = None,
    scheduler_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Our certificate for the cluster, client.pem.")
    ] = None,
    scheduler_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, client.key.")] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key of the folders' pseudonyms, to have the same ones again elsewhere."),
    ] = None,
    plain_names: Annotated[
        bool, typer.Option("--plain-names", help="Folders named by patient's ID, date and description.")
    ] = False,
    max_minutes: Annotated[float | None, typer.Option(help="Time that one series may take.")] = None,
    max_memory: Annotated[float | None, typer.Option(metavar="MB", help="Memory that a worker may take.")] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End with the first series that goes wrong.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again what failed earlier.")] = False,
    redo: Annotated[bool, typer.Option("--redo", help="Do all over, with another model or settings too.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors, and the last line.")] = False,
    log: LogOption = None,
) -> None:
    """Segment every series below SOURCE, and go on where an earlier run ended.

    OUT gets a folder for each patient, study and series (pseudonyms), summary.html, .csv and .json, and
    ledger.sqlite, which alone holds names, IDs, dates and paths. Ctrl-C finishes what is in hand, a second one drops
    it; the same command goes on with what is left. What failed or was refused does not stop the rest.
    Exit code 130: stopped with Ctrl-C before the end.
    """
    many = [*(sources or ()), *(_listed(input_list) if input_list else ())]
    if not many:
        raise typer.BadParameter("give at least one source, or --list", param_hint="SOURCE")
    tls = _cluster_tls(scheduler, scheduler_ca, scheduler_cert, scheduler_key)
    with logging_to(log, hidden=many), failing_as_one(str(out)):
        file = model_file(model)
        plan = BatchPlan(
            work=Work(str(file.resolve()), model_sha256(file), options, output),
            rules=Rules() if rules is None else read_rules(rules),
            limits=Limits(None if max_minutes is None else 60 * max_minutes, max_memory),
            workers=workers,
            scheduler=scheduler,
            cluster_tls=tls,
            key=None if key_file is None else read_key(key_file),
            plain_names=plain_names,
            fail_fast=fail_fast,
        )
        with BatchRun(out, plan) as run:
            entered = run.scan_sources(many, redo=redo, retry_failed=retry_failed)
            if not quiet:
                _tell_entered(entered, run.progress())
            was_stopped = follow(run, quiet=quiet)
            progress, incomplete = run.progress(), run.incomplete()
    if incomplete:
        print_status(
            "warning", f"{incomplete} of those done lack a file that could not be written; the summary says why"
        )
    echo(f"{_counted(progress)}; see {out / 'summary.html'}")
    if was_stopped and progress.left:
        raise typer.Exit(EXIT_STOPPED)
    raise typer.Exit(EXIT_FAILED if progress.failed or progress.refused or progress.left or incomplete else 0)


def follow(run: BatchRun, *, quiet: bool) -> bool:
    """Let a run work and show how far it is; whether the user stopped it."""
    with _stopping_politely(run) as stopped, _shown(quiet=quiet) as show:
        for case in run.work():
            logger.info("%s: %s %s", case.folder.name, case.status, case.reason or "")
            show(case)
    return bool(stopped)


def _cluster_tls(scheduler: str | None, ca: Path | None, cert: Path | None, key: Path | None) -> ClusterTls | None:
    """The certificates for a cluster: all three or none."""
    given = [file for file in (ca, cert, key) if file is not None]
    if len(given) not in (0, 3) or (given and scheduler is None):
        raise typer.BadParameter(
            "--scheduler-ca, --scheduler-cert and --scheduler-key belong together, and to --scheduler tls://...",
            param_hint="--scheduler-ca",
        )
    if scheduler is not None and not scheduler.startswith(("tls://", "tcp://127.0.0.1", "tcp://localhost")):
        print_status(
            "warning",
            "the Dask cluster is not encrypted: whoever reaches its scheduler can run programs on its workers; see "
            "docs/security.md",
        )
    return ClusterTls(*map(str, given)) if given else None


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot read {file}: {error}", param_hint="--list") from error
    return [Path(line.strip()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _tell_entered(entered: Entered, progress: BatchProgress) -> None:
    print_status("note", f"{entered.takes} series to segment, {entered.new} of them new; {_counted(progress)}")
    if entered.changed:
        print_status("note", f"{entered.changed} series have other files than last time and are done again")
    for reason, count in entered.reasons:
        print_status("note", f"not taken: {count} x {reason}")


@contextmanager
def _stopping_politely(run: BatchRun) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM: begin nothing more; once more: drop what is in hand."""
    signals: list[int] = []

    def heard(number: int, _: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            raise ReadError("stopped at once; what was in hand is done again when this command is run again")
        run.stop()
        print_status("note", "stopping: what is in hand is finished (again to drop it)")

    earlier = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def _shown(*, quiet: bool) -> Iterator[_Show]:
    if quiet:
        yield _Show(None, speaks=False)
    elif not ERR.is_terminal:
        yield _Show(None, speaks=True)
    else:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        with Bars(*columns, console=ERR, transient=True) as bars:
            yield _Show(bars, speaks=True)


class _Show:
    """A bar with rate and time left on a terminal, a line a series elsewhere; what went wrong is always told."""

    def __init__(self, bars: Bars | None, *, speaks: bool) -> None:
        self._bars, self._speaks = bars, speaks
        self._task = None if bars is None else bars.add_task("starting", total=None)

    def __call__(self, case: BatchCase) -> None:
        """A series has come to its end."""
        progress, name = case.progress, f"{case.folder.parent.parent.name}/{case.folder.name}"
        if case.status != "done":
            print_status(
                "error" if case.status == "failed" else "warning",
                f"{name}: {case.status}: {with_remedy(case.reason or '', case.remedy, ON_COMMAND_LINE)}",
            )
        elif self._speaks and self._bars is None:
            print_status("done", f"{name}: {sum(case.counts.values())} instances; {_ahead(progress)}")
        if self._bars is not None and self._task is not None:
            ended = progress.done + progress.failed + progress.refused
            words = plain(f"{_counted(progress)}; {_ahead(progress)}")
            self._bars.update(self._task, completed=ended, total=ended + progress.left, description=words)


def _counted(progress: BatchProgress) -> str:
    words = [f"{progress.done} done"]
    for name in ("failed", "refused", "skipped"):
        if count := getattr(progress, name):
            words.append(f"{count} {name}")
    return ", ".join([*words, f"{progress.left} left"])


def _ahead(progress: BatchProgress) -> str:
    left = f"{progress.left} left"
    if progress.seconds_left is None or not progress.left:
        return left
    minutes = progress.seconds_left / 60
    time = (
        f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min" if minutes > 1.5 else f"{60 * minutes:.0f} s"
    )
    return f"{left}, {progress.per_hour:.0f} an hour, {time} to go"
