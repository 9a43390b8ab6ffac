"""A program of its own: store DICOM files in an Orthanc server and fetch them back. Run by test_orthanc.py.

    python orthanc_round_trip.py FOLDER_OF_FILES FOLDER_FOR_WHAT_COMES_BACK PLUGIN

The server listens on a free port, asks for a password made up for this run, refuses whoever is not this machine, and
ends with the program. It prints what the archive lists as JSON.
"""

from __future__ import annotations

import base64
import email
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pydicom

PATIENCE_S = 20
BOUNDARY = "-- an object of its own --".replace(" ", "")


class Archive:
    """What is needed of DICOMweb (PS3.18), over plain HTTP."""

    def __init__(self, port: int, password: str) -> None:
        self.root = f"http://127.0.0.1:{port}"
        self.authorization = "Basic " + base64.b64encode(f"tester:{password}".encode()).decode()

    def ask(self, path: str, *, data: bytes | None = None, **headers: str) -> tuple[str, bytes]:
        """Content type and content of the answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.root + path, data, {"Authorization": self.authorization, **named})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.headers["Content-Type"], answer.read()

    def store(self, objects: list[bytes]) -> dict:
        """STOW-RS."""
        parts = [b"--%b\r\nContent-Type: application/dicom\r\n\r\n%b\r\n" % (BOUNDARY.encode(), o) for o in objects]
        body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return json.loads(
            self.ask("/dicom-web/studies", data=body, Content_Type=kind, Accept="application/dicom+json")[1]
        )

    def fetch(self, study: str, series: str, instance: str) -> bytes:
        """WADO-RS, in the transfer syntax that it was stored in."""
        path = f"/dicom-web/studies/{study}/series/{series}/instances/{instance}"
        kind, body = self.ask(path, Accept='multipart/related; type="application/dicom"; transfer-syntax=*')
        message = email.message_from_bytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
        (part,) = message.get_payload()
        return part.get_payload(decode=True)


def serve(folder: Path, plugin: Path) -> tuple[subprocess.Popen[bytes], Archive]:
    """Start a server and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    password = secrets.token_hex(16)
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(plugin)],
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {"tester": password},
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    server = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stderr=subprocess.DEVNULL)
    archive = Archive(port, password)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            archive.ask("/system")
            return server, archive
        except (urllib.error.URLError, ConnectionError):
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                raise
            time.sleep(0.05)


def main(sent: Path, received: Path, plugin: Path) -> None:
    """Send every file of one folder, write what comes back into another under the same names."""
    with tempfile.TemporaryDirectory() as folder:
        server, archive = serve(Path(folder), plugin)
        try:
            files = sorted(sent.iterdir())
            archive.store([file.read_bytes() for file in files])
            twice = archive.store([file.read_bytes() for file in files])
            for file in files:
                header = pydicom.dcmread(file, stop_before_pixels=True)
                uids = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
                (received / file.name).write_bytes(archive.fetch(*uids))
            listed = json.loads(
                archive.ask("/dicom-web/studies?includefield=00080061", Accept="application/dicom+json")[1]
            )
            counts = json.loads(archive.ask("/statistics")[1])
        finally:
            server.terminate()
            server.wait(PATIENCE_S)
    print(json.dumps({"studies": listed, "counts": counts, "second store": twice}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
