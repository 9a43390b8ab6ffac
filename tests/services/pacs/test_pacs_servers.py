"""Archives that behave badly, secrets that stay secret, and a watch that remembers: servers of our own on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from pydicom import dcmread
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.errors import ArchiveError, ReadError
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.services.pacs.archive import TransientError, patiently
from medmaskrcnn.services.pacs.connect import open_archive
from medmaskrcnn.services.pacs.pull import held, pull_series, write_object
from medmaskrcnn.services.pacs.push import push, results_below
from medmaskrcnn.services.pacs.receive import Inbox
from medmaskrcnn.services.pacs.server import Credentials, Query, RemoteSeries, Server
from medmaskrcnn.services.pacs.watch import Asked, Received
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

pytest.importorskip("dicomweb_client", reason="needs dicomweb-client (pip install 'medmaskrcnn[pacs]')")
pytest.importorskip("pynetdicom", reason="needs pynetdicom (pip install 'medmaskrcnn[pacs]')")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scan") / "ct"
    settings = PhantomSettings(seed=3, shape=(6, 24, 24), spacing_mm=(40.0, 15.0, 15.0), tumours=0)
    write_dicom_series(make_phantom(settings), folder)
    return folder


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


def answering(status: int, body: bytes = b"[]", seen: list | None = None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if seen is not None:
                seen.append(self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that nobody has signed, for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (system package openssl)")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


def test_a_certificate_that_nobody_signed_is_refused(certificate: tuple[Path, Path]):
    with serving(answering(200), certificate) as address:
        with pytest.raises(ArchiveError, match=r"cannot be trusted: certificate verify failed.*authorities="):
            open_archive(Server(address)).find(Query())
        assert open_archive(Server(address, authorities=certificate[0])).find(Query()) == []
        with pytest.raises(ArchiveError, match="no file of certificates"):
            open_archive(Server(address, authorities=Path("none.pem")))


def test_credentials_go_where_they_belong():
    seen: list[str | None] = []
    with serving(answering(200, seen=seen)) as address:
        for who in (Credentials(), Credentials("u", "p"), Credentials(token="t0ken")):
            open_archive(Server(address, credentials=who)).find(Query())
    assert seen == [None, "Basic dTpw", "Bearer t0ken"]


@pytest.mark.parametrize(
    ("status", "told"), [(401, "credentials are wrong"), (403, "may not do that"), (404, "DICOMweb")]
)
def test_refusals_are_told_once(status: int, told: str):
    with serving(answering(status)) as address, pytest.raises(ArchiveError, match=told) as caught:
        open_archive(Server(address)).find(Query(patient="Miller"))
    assert "Miller" not in str(caught.value)
    assert not isinstance(caught.value, TransientError)


def test_what_is_no_dicomweb_is_told():
    with serving(answering(200, b"<html>")) as address, pytest.raises(ArchiveError, match="no DICOMweb"):
        open_archive(Server(address)).find(Query())


def test_a_busy_server_is_tried_again():
    with serving(answering(503)) as address:
        server = Server(address, patience_s=1.0)
        archive = open_archive(server)
        began = time.monotonic()
        with pytest.raises(ArchiveError, match=r"HTTP status 503.*Run the same command again"):
            patiently(lambda: archive.find(Query()), server)
        assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("scheme", ["http", "dicom"])
def test_a_server_that_hangs_is_told(scheme: str):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        server = Server(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.5, patience_s=0)
        archive = open_archive(server)
        with pytest.raises(ArchiveError, match=r"does not answer|cannot be reached"):
            patiently(lambda: archive.find(Query()), server)


def test_the_environment_names_who_asks(tmp_path: Path):
    who = Credentials.from_environment({"MEDMASKRCNN_PACS_USER": "u", "MEDMASKRCNN_PACS_PASSWORD": "s3cret"})
    assert (who.user, who.password) == ("u", "s3cret")
    assert "s3cret" not in repr(who) + repr(Server("http://a", credentials=who))
    with pytest.raises(ArchiveError, match="belong together"):
        Credentials.from_environment({"MEDMASKRCNN_PACS_USER": "u"})
    with pytest.raises(ArchiveError, match="both are set"):
        Credentials.from_environment(
            {"MEDMASKRCNN_PACS_USER": "u", "MEDMASKRCNN_PACS_PASSWORD": "p", "MEDMASKRCNN_PACS_TOKEN": "t"}
        )


@pytest.mark.parametrize(
    ("address", "told"),
    [("ftp://a", "must be https"), ("https://u:s3cret@host/x", "no password in an address"), ("dicom://host", "port")],
)
def test_addresses_are_checked(address: str, told: str):
    with pytest.raises(ValueError, match=told) as caught:
        Server(address)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"date": "yesterday"}, {"date": "-"}, {"study": "1.2/.."}])
def test_queries_are_checked(wrong: dict):
    with pytest.raises(ValueError, match=r"YYYYMMDD|digits and dots"):
        Query(**wrong)


def test_neither_log_nor_screen_knows_a_secret(tmp_path: Path):
    with serving(answering(401)) as address:
        environment = {"MEDMASKRCNN_PACS_USER": "tester", "MEDMASKRCNN_PACS_PASSWORD": "s3cret-word"}
        ran = CliRunner(env=environment).invoke(
            app,
            [
                "pacs",
                "pull",
                address,
                "--patient",
                "Miller^Anna",
                "-o",
                str(tmp_path / "o"),
                "--log",
                str(tmp_path / "l"),
            ],
        )
    assert ran.exit_code == 1
    log = (tmp_path / "l").read_text()
    assert "credentials are wrong" in ran.output and "credentials are wrong" in log
    assert "s3cret-word" not in ran.output + log
    assert "dGVzdGVyOnMzY3JldC13b3Jk" not in log  # the same in base64


def test_an_object_cannot_choose_its_place(scan: Path, tmp_path: Path):
    dataset = dcmread(next(scan.iterdir()))
    with suppress_pydicom_warnings():
        dataset.SOPInstanceUID = "../../evil"
    with pytest.raises(ArchiveError, match="is no UID"):
        write_object(dataset, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    made = Inbox(tmp_path / "incoming", port=0, title="NIGHT", callers=["MEDMASKRCNN"])
    yield made
    made.close()


def send(inbox: Inbox, files: list[Path], calling: str = "MEDMASKRCNN") -> None:
    archive = open_archive(Server(f"dicom://127.0.0.1:{inbox.port}", called="NIGHT", calling=calling, patience_s=0))
    for file in files:
        archive.store(dcmread(file))
    archive.close()


def test_what_is_sent_arrives_whole(inbox: Inbox, scan: Path):
    files = sorted(scan.iterdir())
    send(inbox, files[:4])
    assert inbox.quiet(30) == []
    send(inbox, files)  # the first four again
    (folder,) = inbox.quiet(0)
    assert held(folder) == {str(dcmread(file).SOPInstanceUID) for file in files}
    assert {p.stem: dcmread(p) for p in folder.iterdir()} == {str((d := dcmread(f)).SOPInstanceUID): d for f in files}
    assert inbox.quiet(0) == []  # told once, until more comes
    assert (folder.stat().st_mode & 0o077) == 0


def test_strangers_are_sent_away(inbox: Inbox, scan: Path):
    with pytest.raises(ArchiveError, match="refuses 'STRANGER'"):
        send(inbox, [next(scan.iterdir())], calling="STRANGER")


def test_a_port_in_use_is_told(inbox: Inbox, tmp_path: Path):
    with pytest.raises(ArchiveError, match="cannot listen"):
        Inbox(tmp_path / "other", port=inbox.port)


def test_an_archive_is_asked_until_a_series_stops_growing(tmp_path: Path):
    class Growing:
        """An archive to which a series is being sent."""

        server = Server("http://127.0.0.1:9")
        counts = iter([2, 3, 3, 3])

        def find(self, query: Query) -> list[RemoteSeries]:
            return [RemoteSeries("1", "1.1")]

        def instances(self, series: RemoteSeries) -> list[str]:
            return [f"1.1.{n}" for n in range(next(self.counts))]

        def fetch(self, series: RemoteSeries, instances: list[str] | None) -> Iterator:
            for uid in instances or [f"1.1.{n}" for n in range(3)]:
                dataset = dcmread(files[0])
                dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
                yield dataset

    settings = PhantomSettings(seed=1, shape=(4, 24, 24), spacing_mm=(60.0, 15.0, 15.0), tumours=0)
    write_dicom_series(make_phantom(settings), tmp_path / "ct")
    files = sorted((tmp_path / "ct").iterdir())
    asked = Asked(Growing(), Query(), tmp_path / "in", every_s=0)  # type: ignore[arg-type]
    assert asked.next(set()) == []  # seen for the first time
    assert asked.next(set()) == []  # has grown
    (folder,) = asked.next(set())
    assert len(held(folder)) == 3
    assert asked.next({"1.1"}) == []  # known


def test_a_pull_that_gets_too_little_is_told(tmp_path: Path):
    class Stingy:
        server = Server("http://127.0.0.1:9", patience_s=0)

        def instances(self, series: RemoteSeries) -> list[str]:
            return ["1.1.1", "1.1.2"]

        def fetch(self, *_: object) -> Iterator:
            return iter(())

    pulled = pull_series(Stingy(), RemoteSeries("1", "1.1"), tmp_path)  # type: ignore[arg-type]
    assert "has sent 0 of 2 objects" in pulled.error


def test_only_results_go_back(scan: Path, tmp_path: Path):
    with pytest.raises(ReadError, match="no DICOM result"):
        results_below([tmp_path])
    with pytest.raises(ReadError, match="there is no"):
        results_below([tmp_path / "nowhere"])
    shutil.copy(next(scan.iterdir()), tmp_path / "segmentation.dcm")

    class Nobody:
        server = Server("http://127.0.0.1:9", patience_s=0)

        def close(self) -> None:
            pass

    (one,) = push(Nobody(), results_below([tmp_path]))  # type: ignore[arg-type]
    assert "only SEG, SR, RTSTRUCT go back" in one.error


def test_a_push_must_be_confirmed(scan: Path, tmp_path: Path):
    shutil.copy(next(scan.iterdir()), tmp_path / "segmentation.dcm")
    ran = CliRunner().invoke(app, ["pacs", "push", "http://127.0.0.1:9/", str(tmp_path)])
    assert ran.exit_code == 0
    assert "nothing was stored" in ran.output
    ran = CliRunner().invoke(
        app, ["pacs", "watch", "--listen", "0", "-o", str(tmp_path), "--model", "x", "--push-to", "http://a"]
    )
    assert ran.exit_code == 2


@pytest.mark.slow
def test_a_watch_segments_what_arrives_and_remembers(scan: Path, tmp_path: Path):
    """With a model that ships; the phantom is what it knows."""
    from medmaskrcnn.batch_runs.plan import BatchPlan
    from medmaskrcnn.batch_runs.run import BatchRun
    from medmaskrcnn.batch_runs.settings import Work
    from medmaskrcnn.hub.model_file import model_sha256, resolve_model
    from medmaskrcnn.services.pacs.watch import watch
    from medmaskrcnn.settings import OutputOptions, SegmentOptions

    class Back:
        """An archive that is away at first."""

        server = Server("http://127.0.0.1:9", patience_s=0)
        away = True
        stored: list = []  # noqa: RUF012

        def holds(self, *_: str) -> bool:
            return False

        def store(self, dataset) -> None:
            if self.away:
                raise TransientError("away")
            self.stored.append(dataset.Modality)

        def close(self) -> None:
            pass

    file = resolve_model("phantom-ct")
    output = OutputOptions(formats=("seg", "sr"), paths_in_run=False)
    plan = BatchPlan(Work(str(file), model_sha256(file), SegmentOptions(), output))
    inbox = Inbox(tmp_path / "incoming", port=0, title="NIGHT")
    send(inbox, sorted(scan.iterdir()))
    back = Back()
    for turn in range(2):
        seen = []
        with BatchRun(tmp_path / "results", plan) as run:
            run.scan_sources([], quiet=True)
            idle = iter([False] * (2 - turn) + [True] * 9)
            arrivals = Received(inbox, 0.0)
            seen = list(watch(arrivals, run, back_to=back, is_over=lambda i=idle: next(i), pause_s=0.01))
        cases = [one.case.status for one in seen if one.case]
        assert cases == (["done"] if turn == 0 else [])  # never twice
        pushed = [p.error for one in seen for p in one.pushed]
        assert all(pushed) if turn == 0 else pushed == [None, None]
        back.away = False
    assert sorted(back.stored) == ["SEG", "SR"]
    with BatchRun(tmp_path / "results", plan) as run:
        assert list(watch(Received(inbox, 0.0), run, back_to=back, is_over=lambda: True)) == []
    inbox.close()
    assert json.loads((tmp_path / "results" / "summary.json").read_text())["statuses"]["done"] == 1
    assert (tmp_path / "results" / "ledger.sqlite").stat().st_mode & 0o077 == 0
