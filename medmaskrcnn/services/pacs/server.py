"""Address of an archive, queries to it, and credentials.

Secrets come from the environment, never from a command line, which shells keep in their history and every user of the
machine can see in the process list. Nothing here is logged, and no ``repr`` shows a secret.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from medmaskrcnn.errors import ArchiveError

USER, PASSWORD, TOKEN = "MEDMASKRCNN_PACS_USER", "MEDMASKRCNN_PACS_PASSWORD", "MEDMASKRCNN_PACS_TOKEN"
CLIENT_CERTIFICATE, CLIENT_KEY = "MEDMASKRCNN_PACS_CERT", "MEDMASKRCNN_PACS_KEY"

_DATES = re.compile(r"^(\d{8})?(-(\d{8})?)?$")
_UID = re.compile(r"^[0-9.]{1,64}$")


@dataclass(frozen=True)
class Credentials:
    """Credentials of the client: user and password, or a token; and a client certificate."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None
    key: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Credentials:
        """Read the credentials from environment variables.

        Raises:
            ArchiveError: if only one of user and password is set, or both a user and a token.
        """
        user, password, token = (environment.get(name) or None for name in (USER, PASSWORD, TOKEN))
        if (user is None) != (password is None):
            raise ArchiveError(f"{USER} and {PASSWORD} belong together; only one of them is set")
        if user and token:
            raise ArchiveError(f"set either {USER} and {PASSWORD}, or {TOKEN}; both are set")
        files = [Path(environment[n]) if environment.get(n) else None for n in (CLIENT_CERTIFICATE, CLIENT_KEY)]
        return cls(user, password, token, *files)


@dataclass(frozen=True)
class Server:
    """Address and connection settings of an archive.

    Attributes:
        address: ``https://host/dicom-web`` for DICOMweb, ``dicom://host:port`` or ``dicoms://`` (TLS) for DIMSE.
        called: Its application entity title (DIMSE).
        calling: Our application entity title.
        credentials: Credentials of the client.
        authorities: File of CA certificates to trust; the system's by default.
        timeout_s: Timeout for each answer.
        patience_s: How long to retry while the server does not answer.
    """

    address: str
    called: str = "ANY-SCP"
    calling: str = "MEDMASKRCNN"
    credentials: Credentials = Credentials()
    authorities: Path | None = None
    timeout_s: float = 60.0
    patience_s: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https", "dicom", "dicoms") or not parts.hostname:
            raise ValueError(
                f"the address must be https://host/dicom-web or dicom://host:port, got {_without_secret(self.address)}"
            )
        if parts.username or parts.password:
            raise ValueError(f"no password in an address, please: set {USER} and {PASSWORD} in the environment")
        if self.is_dimse and not parts.port:
            raise ValueError(f"a DICOM address needs a port, dicom://host:104, got {self.address}")
        for title in (self.called, self.calling):
            if not 1 <= len(title.strip()) <= 16:
                raise ValueError(f"an application entity title has 1 to 16 characters, got {title!r}")
        if self.timeout_s <= 0 or self.patience_s < 0:
            raise ValueError(f"timeout must be positive, patience not negative: {self.timeout_s}, {self.patience_s}")

    @property
    def is_dimse(self) -> bool:
        """Whether the protocol is DIMSE rather than DICOMweb."""
        return urlsplit(self.address).scheme.startswith("dicom")

    @property
    def is_open_text(self) -> bool:
        """Whether secrets and scans would cross a network unencrypted."""
        parts = urlsplit(self.address)
        return parts.scheme in ("http", "dicom") and parts.hostname not in ("localhost", "127.0.0.1", "::1")

    @property
    def host(self) -> str:
        """Host name."""
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        """Port; 0 for the scheme's default."""
        return urlsplit(self.address).port or 0

    @property
    def name(self) -> str:
        """Name of the server in messages."""
        return f"{self.host}:{self.port}" if self.port else self.host

    def tls(self) -> ssl.SSLContext:
        """TLS context for DIMSE.

        Raises:
            ArchiveError: if a certificate cannot be read.
        """
        who = self.credentials
        try:
            context = ssl.create_default_context(cafile=str(self.authorities) if self.authorities else None)
            if who.certificate:
                context.load_cert_chain(who.certificate, who.key)
        except (OSError, ssl.SSLError) as error:
            raise ArchiveError(f"cannot use the certificates for {self.name}: {error}") from error
        return context


def _without_secret(address: str) -> str:
    return re.sub(r"//[^/@]*@", "//...@", address)


@dataclass(frozen=True)
class Query:
    """Query for series in an archive; attributes that are not given match anything.

    Attributes:
        patient: Patient ID.
        study: Study Instance UID.
        series: Series Instance UID.
        modality: Modality of the series.
        date: Study date, ``20240131``, or a range, ``20240101-20240131``; one end may be open.
    """

    patient: str | None = None
    study: str | None = None
    series: str | None = None
    modality: str | None = None
    date: str | None = None

    def __post_init__(self) -> None:
        if self.date is not None and (not _DATES.match(self.date) or self.date in ("", "-")):
            raise ValueError(f"a date is YYYYMMDD or a range YYYYMMDD-YYYYMMDD, got {self.date!r}")
        for uid in (self.study, self.series):
            if uid is not None and not _UID.match(uid):
                raise ValueError(f"a UID has digits and dots only, got {uid!r}")

    @property
    def is_open(self) -> bool:
        """Whether it matches every series."""
        return not any((self.patient, self.study, self.series, self.modality, self.date))


@dataclass(frozen=True, order=True)
class RemoteSeries:
    """A series that an archive holds."""

    study: str
    series: str
    modality: str = ""
