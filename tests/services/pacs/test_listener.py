"""The listener under peers that say nothing, say too much, or are nobody it knows."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian
from typer.testing import CliRunner

from medmaskrcnn.cli.main import app
from medmaskrcnn.errors import ArchiveError
from medmaskrcnn.services.pacs.connect import open_archive
from medmaskrcnn.services.pacs.listener import ListenLimits, server_tls
from medmaskrcnn.services.pacs.receive import Inbox
from medmaskrcnn.services.pacs.server import Credentials, Server
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

pytest.importorskip("pynetdicom", reason="needs pynetdicom (pip install 'medmaskrcnn[pacs]')")

SMALL = ListenLimits(associations=6, per_peer=4, greeting_s=20.0, idle_s=20.0, reserve_bytes=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scan") / "ct"
    settings = PhantomSettings(seed=3, shape=(4, 24, 24), spacing_mm=(60.0, 15.0, 15.0), tumours=0)
    write_dicom_series(make_phantom(settings), folder)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """``certificates("name")``: a certificate that nobody has signed, for 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (system package openssl)")
    folder = tmp_path_factory.mktemp("tls")

    def make(name: str) -> tuple[Path, Path]:
        cert, key = folder / f"{name}.pem", folder / f"{name}.key"
        if not cert.exists():
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                 "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
                check=True, capture_output=True,
            )  # fmt: skip
        return cert, key

    return make


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Callable[..., Inbox]]:
    made: list[Inbox] = []

    def listen(**options: object) -> Inbox:
        made.append(Inbox(tmp_path / "incoming", port=0, title="NIGHT", **{"limits": SMALL, **options}))
        return made[-1]

    yield listen
    for one in made:
        one.close()


def send(inbox: Inbox, files: list[Path], scheme: str = "dicom", **server: object) -> None:
    where = f"{scheme}://127.0.0.1:{inbox.port}"
    archive = open_archive(Server(where, called="NIGHT", timeout_s=5.0, patience_s=0, **server))
    try:
        for file in files:
            archive.store(dcmread(file))
    finally:
        archive.close()


def connect(inbox: Inbox, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", inbox.port), timeout=5) for _ in range(count)]


def test_silent_connections_lock_nobody_out(listening, files: list[Path]):
    inbox = listening()
    silent = connect(inbox, 10)
    began = time.monotonic()
    while True:  # a sender tries again, as every archive does
        try:
            send(inbox, files)
            break
        except ArchiveError:
            assert time.monotonic() - began < SMALL.idle_s - 0.5, "locked out"
    assert len(list(inbox.folder.rglob("*.dcm"))) == 4
    for one in silent:
        one.close()


def test_one_address_has_its_share(listening):
    inbox = listening()
    opened = connect(inbox, 12)
    began = time.monotonic()
    while sum(map(ended, opened)) < 12 - SMALL.per_peer:
        assert time.monotonic() - began < SMALL.greeting_s / 2
        time.sleep(0.1)
    for one in opened:
        one.close()


def ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_an_object_that_is_too_large_ends_its_association(listening, files: list[Path], tmp_path: Path):
    inbox = listening(limits=replace(SMALL, object_bytes=20_000))
    send(inbox, files[:1])
    large = dcmread(files[1])
    large.private_block(0x0099, "TEST", create=True).add_new(1, "OB", bytes(100_000))
    large.save_as(tmp_path / "large.dcm")
    with pytest.raises(ArchiveError):
        send(inbox, [tmp_path / "large.dcm"])
    send(inbox, files[2:])  # many small ones may follow one another
    assert len(list(inbox.folder.rglob("*.dcm"))) == 3


def test_a_full_folder_or_disk_is_told_to_the_sender(listening, files: list[Path]):
    inbox = listening(limits=replace(SMALL, folder_bytes=files[0].stat().st_size + 100))
    send(inbox, files[:1])
    with pytest.raises(ArchiveError, match="0xa700"):
        send(inbox, files[1:2])
    next(inbox.folder.rglob("*.dcm")).unlink()  # segmented and discarded
    send(inbox, files[1:2])
    full = listening(limits=replace(SMALL, reserve_bytes=1 << 60))
    with pytest.raises(ArchiveError, match="0xa700"):
        send(full, files[2:3])


def test_deflated_objects_are_not_taken(listening, files: list[Path], tmp_path: Path):
    from pynetdicom import AE

    inbox = listening()
    ours = AE()
    ours.add_requested_context("1.2.840.10008.5.1.4.1.1.2", DeflatedExplicitVRLittleEndian)
    link = ours.associate("127.0.0.1", inbox.port, ae_title="NIGHT")
    assert not link.is_established or not link.accepted_contexts
    link.abort()
    send(inbox, files)


def test_with_tls_only_those_who_speak_it(listening, files: list[Path], certificates):
    inbox = listening(tls=server_tls(*certificates("ours"), None))
    send(inbox, files[:1], "dicoms", authorities=certificates("ours")[0])
    with pytest.raises(ArchiveError):
        send(inbox, files[1:2])  # in the clear
    with pytest.raises(ArchiveError):
        send(inbox, files[1:2], "dicoms", authorities=certificates("other")[0])  # it is not whom they trust
    assert len(list(inbox.folder.rglob("*.dcm"))) == 1


def test_only_senders_with_a_certificate_that_we_trust(listening, files: list[Path], certificates):
    inbox = listening(tls=server_tls(*certificates("ours"), certificates("modality")[0]))
    ours = certificates("ours")[0]
    send(inbox, files[:1], "dicoms", authorities=ours, credentials=known("modality", certificates))
    for who in (Credentials(), known("other", certificates)):
        with pytest.raises(ArchiveError):
            send(inbox, files[1:2], "dicoms", authorities=ours, credentials=who)
    assert len(list(inbox.folder.rglob("*.dcm"))) == 1


def known(name: str, certificates) -> Credentials:
    cert, key = certificates(name)
    return Credentials(certificate=cert, key=key)


def test_a_peer_that_does_not_shake_hands_blocks_nobody(listening, files: list[Path], certificates):
    inbox = listening(tls=server_tls(*certificates("ours"), None))
    silent = connect(inbox, 2)
    began = time.monotonic()
    send(inbox, files[:1], "dicoms", authorities=certificates("ours")[0])
    assert time.monotonic() - began < SMALL.greeting_s / 2
    for one in silent:
        one.close()


def test_old_tls_is_refused(listening, certificates):
    inbox = listening(tls=server_tls(*certificates("ours"), None))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = context.minimum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", inbox.port)) as plain, context.wrap_socket(plain) as link:
        assert link.version() == "TLSv1.2"
    assert server_tls(*certificates("ours"), None).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_that_is_none_is_told(tmp_path: Path):
    with pytest.raises(ArchiveError, match="cannot use the certificate"):
        server_tls(tmp_path / "absent.pem", None, None)
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ArchiveError, match="cannot use the certificate"):
        server_tls(tmp_path / "text.pem", None, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "pacs.example"])
def test_where_others_reach_us_titles_must_be_named(tmp_path: Path, host: str):
    command = ["pacs", "watch", "--listen", "0", "--host", host, "-o", str(tmp_path / "o"), "--model", "phantom-ct"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 2 and "--allow" in ran.output
    assert not (tmp_path / "o").exists()


def test_a_key_without_a_certificate_is_wrong_use(tmp_path: Path):
    command = ["pacs", "watch", "--listen", "0", "-o", str(tmp_path / "o"), "--model", "x", "--tls-key", "k.pem"]
    ran = CliRunner().invoke(app, command)
    assert ran.exit_code == 2 and "--tls-cert" in ran.output


@pytest.mark.parametrize("wrong", [{"per_peer": 0}, {"idle_s": 0}, {"object_bytes": 0}, {"reserve_bytes": -1}])
def test_limits_are_positive(wrong: dict):
    with pytest.raises(ValueError, match="must be positive"):
        ListenLimits(**wrong)
