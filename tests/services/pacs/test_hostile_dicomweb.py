"""DICOMweb servers that send us away, lie about lengths, or answer what is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from medmaskrcnn.errors import ArchiveError
from medmaskrcnn.services.pacs.connect import open_archive
from medmaskrcnn.services.pacs.server import Credentials, Query, RemoteSeries, Server

pytest.importorskip("dicomweb_client", reason="needs dicomweb-client (pip install 'medmaskrcnn[pacs]')")

SERIES = RemoteSeries("1.2", "1.2.3")


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        server.server_close()


def says(
    body: bytes, kind: str = "application/dicom+json", *, length: int | None = None, status: int = 200, **more: str
):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {
            "Connection": "close",  # else the client may ask on a connection that is being closed
            "Content-Type": kind,
            "Content-Length": str(len(body) if length is None else length),
        }.items():
            handler.send_header(name, value)
        for name, value in more.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def archive(address: str, **options: object):
    return open_archive(Server(address, timeout_s=2.0, patience_s=0, **options))


def test_credentials_do_not_follow_a_redirection_elsewhere():
    seen: list[str | None] = []

    def listen(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers.get("Authorization"))
        says(b"[]")(handler)

    with ExitStack() as stack:
        elsewhere = stack.enter_context(serving(listen))
        for who in (Credentials("u", "p"), Credentials(token="t0ken"), Credentials()):
            here = stack.enter_context(serving(says(b"", status=302, Location=elsewhere)))
            with pytest.raises(ArchiveError, match="sends us on to"):
                archive(here, credentials=who).find(Query(patient="Miller"))
    assert seen == []


def test_a_redirection_within_the_archive_is_followed():
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/dicom-web"):
            says(b"", status=307, Location="/elsewhere")(handler)
        else:
            says(b"[]")(handler)

    with serving(answer) as address:
        assert archive(address).find(Query()) == []


def test_redirections_without_end_are_told():
    with serving(says(b"", status=302, Location="/dicom-web/studies")) as address, pytest.raises(ArchiveError):
        archive(address).find(Query())


BODIES = [
    says(b"[]", length=1000), says(b"[" * 100_000), says(b'[{"0020000D": 3}]'), says(b"{}"), says(b"null"),
    says(b'[{"0020000D": {"vr": "UI", "Value": [{}]}}]'), says(b"\xff\xfe\x00"), says(b"3"), says(b'"text"'),
    says(b"[]", kind="text/html"),
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_answers_that_are_none(body):
    with serving(body) as address:
        try:
            found = archive(address).find(Query())
        except ArchiveError:
            return
    assert all(isinstance(one, RemoteSeries) for one in found)


PARTS = [
    says(b"--x\r\n\r\nno dicom\r\n--x--", kind='multipart/related; type="application/dicom"; boundary=x'),
    says(b"--x\r\nContent-Type: application/dicom\r\n\r\n" + b"\0" * 128 + b"DICM\x02\0\r\n--x--",
         kind='multipart/related; type="application/dicom"; boundary=x'),
    says(b"--x\r\n", length=10_000, kind='multipart/related; type="application/dicom"; boundary=x'),
    says(b"", kind='multipart/related; type="application/dicom"'), says(b"x", kind="application/dicom"),
]  # fmt: skip


@pytest.mark.parametrize("body", PARTS)
def test_objects_that_are_none(body):
    with serving(body) as address:
        try:
            found = list(archive(address).fetch(SERIES, None))
        except ArchiveError:
            return
    assert len(found) <= 1
