"""``medmaskrcnn pacs pull | push | watch``: scans out of an archive, results into it, and both by themselves."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from medmaskrcnn.batch_runs.plan import BatchPlan
from medmaskrcnn.batch_runs.run import BatchRun
from medmaskrcnn.batch_runs.settings import Work
from medmaskrcnn.cli.console import echo, print_status
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
from medmaskrcnn.errors import Remedy, with_remedy
from medmaskrcnn.hub.model_file import model_sha256
from medmaskrcnn.services.pacs.archive import patiently
from medmaskrcnn.services.pacs.connect import open_archive
from medmaskrcnn.services.pacs.listener import ListenLimits, server_tls
from medmaskrcnn.services.pacs.pull import Pulled, pull
from medmaskrcnn.services.pacs.push import Pushed, push, results_below
from medmaskrcnn.services.pacs.receive import Inbox
from medmaskrcnn.services.pacs.server import PASSWORD, TOKEN, USER, Credentials, Query, Server
from medmaskrcnn.services.pacs.watch import Arrivals, Asked, Received, watch
from medmaskrcnn.settings import OutputOptions, SegmentOptions
from medmaskrcnn.system.files import make_folder

EXAMPLES = (
    "medmaskrcnn pacs pull https://pacs.example/dicom-web --patient 4711 -o scans",
    "medmaskrcnn pacs push https://pacs.example/dicom-web results/ --confirm",
    "medmaskrcnn pacs watch --listen 11112 -o night --model abdomen-mr",
)

IN_WATCH: Mapping[Remedy, str] = {
    Remedy.ALLOW_OUT_OF_DOMAIN: "Watch with another model, or with --allow-out-of-domain and another folder",
    Remedy.RESAMPLE_IRREGULAR: "A watch with --resample-irregular, and another folder, interpolates even slices",
    Remedy.MERGE_SERIES: "A watch with --merge-series, and another folder, reads them as one series",
    Remedy.DROP_DUPLICATES: "A watch with --drop-duplicates, and another folder, reads each image once",
    Remedy.GIVE_ONE_VOLUME: "Such series are left to other models",
    Remedy.REPORT: "Please report it with what --log FILE writes",
    Remedy.USE_FP32: "Watch with --precision fp32 and another folder, and if that does not help, with another model",
    Remedy.USE_TORCH: "Without them watch with --engine torch",
}
"""How a watch says what may be done about a series."""

_THIS_MACHINE = ("127.0.0.1", "::1", "localhost")

app = typer.Typer(
    help=f"Scans out of an archive, results into it. Credentials come from {USER}, {PASSWORD} or {TOKEN}.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_Address = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="https://host/dicom-web, dicom://host:port or dicoms://host:port.")
]
_Called = Annotated[str, typer.Option(metavar="TITLE", help="Application entity title of the archive (DIMSE).")]
_Calling = Annotated[str, typer.Option(metavar="TITLE", help="Our application entity title (DIMSE).")]
_Ca = Annotated[Path | None, typer.Option(metavar="FILE", help="Certificates to trust, in place of the system's.")]
_Timeout = Annotated[float, typer.Option(metavar="S", help="Seconds to wait for each answer.")]
_Patience = Annotated[float, typer.Option(metavar="S", help="Seconds to go on trying an archive that is away.")]
_Patient = Annotated[str | None, typer.Option(metavar="ID", help="Patient ID.")]
_Study = Annotated[str | None, typer.Option(metavar="UID", help="Study Instance UID.")]
_Series = Annotated[str | None, typer.Option(metavar="UID", help="Series Instance UID.")]
_Modality = Annotated[str | None, typer.Option(metavar="CT", help="Modality of the series.")]
_Date = Annotated[str | None, typer.Option(metavar="YYYYMMDD[-YYYYMMDD]", help="Study date, or a range.")]


@app.command("pull", epilog="Exit codes: 0 all came, 1 something did not, 2 wrong use.")
def pull_command(
    address: _Address,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="Folder for the scans.")],
    patient: _Patient = None,
    study: _Study = None,
    series: _Series = None,
    modality: _Modality = None,
    date: _Date = None,
    everything: Annotated[bool, typer.Option("--all", help="All that the archive holds.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the series and fetch nothing.")] = False,
    called: _Called = "ANY-SCP",
    calling: _Calling = "MEDMASKRCNN",
    ca: _Ca = None,
    timeout: _Timeout = 60.0,
    patience: _Patience = 120.0,
    log: LogOption = None,
) -> None:
    """Fetch the series that fit into OUT/STUDY/SERIES; run again, it fetches what is missing.

    OUT is for its owner alone: the files are the patient's, as the archive has them.
    """
    with logging_to(log):
        query = _query(patient, study, series, modality, date)
        if query.is_open and not everything:
            raise typer.BadParameter("say which series (--patient, --study, --modality, --date ...), or --all")
        server = _server(address, called, calling, ca, timeout, patience)
        with failing_as_one(server.name):
            archive = open_archive(server)
            wanted = patiently(lambda: archive.find(query), server)
            if dry_run:
                for one in wanted:
                    echo(f"{one.study} {one.series} {one.modality}")
                echo(f"{len(wanted)} series")
                return
            pulled = pull(archive, wanted, out, _tell_pulled)
            archive.close()
        failed = sum(one.error is not None for one in pulled)
        new, old = sum(one.fetched for one in pulled), sum(one.were_there for one in pulled)
        echo(f"{len(pulled) - failed} of {len(pulled)} series complete: {new} files fetched, {old} were there")
        raise typer.Exit(EXIT_FAILED if failed or not pulled else 0)


@app.command("push", epilog="Exit codes: 0 all stored, 1 something is not, 2 wrong use.")
def push_command(
    address: _Address,
    places: Annotated[list[Path], typer.Argument(metavar="RESULT...", help="Result folders, or DICOM files.")],
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Really store them; without it they are only listed.")
    ] = False,
    called: _Called = "ANY-SCP",
    calling: _Calling = "MEDMASKRCNN",
    ca: _Ca = None,
    timeout: _Timeout = 60.0,
    patience: _Patience = 120.0,
    log: LogOption = None,
) -> None:
    """Store SEG, SR and RTSTRUCT results in the study of their scan; what is there already is left alone.

    No person has checked these results: an archive shows them to whoever looks at the study.
    """
    with logging_to(log, hidden=places):
        server = _server(address, called, calling, ca, timeout, patience)
        with failing_as_one(server.name):
            files = results_below(places)
            if not confirm:
                for file in files:
                    echo(f"would store {file}")
                echo(f"{len(files)} files for {server.name}; nothing was stored. Add --confirm to store them")
                return
            pushed = push(open_archive(server), files, _tell_pushed)
        failed, there = sum(one.error is not None for one in pushed), sum(one.was_there for one in pushed)
        echo(f"{len(pushed) - failed - there} of {len(pushed)} stored, {there} were there, {failed} failed")
        raise typer.Exit(EXIT_FAILED if failed else 0)


@app.command("watch", epilog="Ends with Ctrl-C. Exit codes: 0 ended as asked, 1 some case went wrong, 2 wrong use.")
@with_output_options("label_map_seg", formats="seg,sr,json,csv,png", paths_in_run=False)
@with_segment_options(*RUNNING, *REPORTING, *READING)
def watch_command(
    *,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="OUT/incoming and OUT/results.")],
    model: ModelOption,
    listen: Annotated[int | None, typer.Option(metavar="PORT", help="Let scans be sent here (C-STORE).")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; this machine alone by default.")] = "127.0.0.1",
    allow: Annotated[
        str | None,
        typer.Option(
            metavar="TITLE,...",
            help="Titles that may send, CT1,MR2; '*' for any. Needed with a --host that others reach.",
            show_default="any on this machine",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Listen with TLS and this certificate, cert.pem.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Key of --tls-cert, key.pem.")] = None,
    tls_clients: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Let only senders in whose certificate one of these signed, ca.pem."),
    ] = None,
    idle: Annotated[float, typer.Option(metavar="S", help="End a connection that is silent for so long.")] = 30.0,
    per_peer: Annotated[int, typer.Option(metavar="N", help="Connections at a time from one address.")] = 8,
    object_gb: Annotated[float, typer.Option(metavar="GB", help="Refuse a larger object.")] = 4.0,
    incoming_gb: Annotated[
        float, typer.Option(metavar="GB", help="Refuse objects when OUT/incoming holds so much.")
    ] = 200.0,
    ask: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Ask this archive for new series instead.")] = None,
    every: Annotated[float, typer.Option(metavar="S", help="How often to ask.")] = 60.0,
    patient: _Patient = None,
    modality: _Modality = None,
    date: _Date = None,
    quiet_for: Annotated[
        float, typer.Option(metavar="S", help="A series is complete when nothing has come for so long.")
    ] = 20.0,
    push_to: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Store SEG and SR there.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Really store them.")] = False,
    discard: Annotated[bool, typer.Option("--discard", help="Remove a scan once its result is written.")] = False,
    options: SegmentOptions,
    output: OutputOptions,
    called: _Called = "ANY-SCP",
    calling: _Calling = "MEDMASKRCNN",
    ca: _Ca = None,
    timeout: _Timeout = 60.0,
    patience: _Patience = 120.0,
    log: LogOption = None,
) -> None:
    """Segment whatever arrives: sent to a port of ours, or found by asking an archive."""
    if (listen is None) == (ask is None):
        raise typer.BadParameter("give either --listen or --ask")
    if push_to is not None and not confirm:
        raise typer.BadParameter(
            "--push-to stores results that nobody has checked: add --confirm", param_hint="--push-to"
        )
    titles = _callers(host, allow)
    if tls_cert is None and (tls_key or tls_clients):
        raise typer.BadParameter("--tls-key and --tls-clients need --tls-cert", param_hint="--tls-cert")
    with logging_to(log), failing_as_one(str(out)):
        if listen is not None and tls_cert is None and host not in _THIS_MACHINE:
            print_status(
                "warning",
                f"{host} is reached by others, and scans cross the network unencrypted: give --tls-cert and --tls-key",
            )
        file = model_file(model)
        plan = BatchPlan(Work(str(file.resolve()), model_sha256(file), options, output))
        back_to = None if push_to is None else open_archive(_server(push_to, called, calling, ca, timeout, patience))
        incoming = make_folder(out, private=True) / "incoming"
        with BatchRun(out / "results", plan) as run:
            arrivals: Arrivals
            if listen is not None:
                limits = _limits(idle, per_peer, object_gb, incoming_gb)
                tls = None if tls_cert is None else server_tls(tls_cert, tls_key, tls_clients)
                inbox = Inbox(
                    incoming, port=listen, title=calling, host=host, callers=titles, tls=tls, limits=limits
                )  # fmt: skip
                arrivals = Received(inbox, quiet_for)
                print_status("note", f"listening on {host}:{inbox.port} as {calling}")
            else:
                archive = open_archive(_server(ask or "", called, calling, ca, timeout, patience))
                query = _query(patient, None, None, modality, date)
                arrivals = Asked(archive, query, incoming, every)
            with _until_told(run) as stopped:
                run.scan_sources([], quiet=True)
                for seen in watch(arrivals, run, back_to=back_to, discard=discard, is_over=lambda: bool(stopped)):
                    if (case := seen.case) is not None:
                        words = f"{sum(case.counts.values())} instances"
                        if case.reason is not None:
                            words = with_remedy(case.reason, case.remedy, IN_WATCH)
                        kind = "done" if case.status == "done" else "error"
                        print_status(kind, f"{case.folder.name}: {case.status}: {words}")
                    for pushed in seen.pushed:
                        _tell_pushed(pushed)
                arrivals.close()
            progress = run.progress()
        echo(f"{progress.done} done, {progress.failed} failed, {progress.refused} refused, {progress.left} left")
        raise typer.Exit(EXIT_FAILED if progress.failed else 0)


@contextmanager
def _until_told(run: BatchRun) -> Iterator[list[int]]:
    """Ctrl-C or SIGTERM ends the watch after the case in hand."""
    signals: list[int] = []

    def heard(number: int, _: object) -> None:
        signals.append(number)
        run.stop()

    earlier = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield signals
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _callers(host: str, allow: str | None) -> list[str]:
    """Titles that may send; none means any, which must be said where others reach us."""
    titles = [title.strip() for title in (allow or "").split(",") if title.strip()]
    if host not in _THIS_MACHINE and not titles:
        raise typer.BadParameter(
            f"{host} is reached by others: name the titles that may send, --allow CT1,MR2, or --allow '*' for any",
            param_hint="--allow",
        )
    return [] if titles == ["*"] else titles


def _limits(idle: float, per_peer: int, object_gb: float, incoming_gb: float) -> ListenLimits:
    try:
        return ListenLimits(
            per_peer=per_peer, idle_s=idle, object_bytes=int(object_gb * 2**30), folder_bytes=int(incoming_gb * 2**30)
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _server(address: str, called: str, calling: str, ca: Path | None, timeout: float, patience: float) -> Server:
    with failing_as_one("credentials"):
        who = Credentials.from_environment()
    try:
        server = Server(address, called, calling, who, ca, timeout, patience)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if server.is_open_text:
        print_status(
            "warning",
            f"{server.name}: scans and credentials cross the network unencrypted; https:// or dicoms:// do not",
        )
    return server


def _query(patient: str | None, study: str | None, series: str | None, modality: str | None, date: str | None) -> Query:
    try:
        return Query(patient, study, series, modality, date)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _tell_pulled(one: Pulled) -> None:
    if one.error:
        print_status("error", f"{one.series.series}: {with_remedy(one.error, one.remedy, ON_COMMAND_LINE)}")
    else:
        print_status("done", f"{one.series.series}: {one.fetched} files fetched, {one.were_there} were there")


def _tell_pushed(one: Pushed) -> None:
    if one.error:
        print_status("error", with_remedy(one.error, one.remedy, ON_COMMAND_LINE))
    else:
        print_status("done", f"{one.modality} {'was there' if one.was_there else 'stored'}: {one.file}")
