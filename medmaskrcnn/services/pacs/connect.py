"""Open an archive by the protocol in its address."""

from __future__ import annotations

from medmaskrcnn.services.pacs.archive import Archive
from medmaskrcnn.services.pacs.dicomweb import DicomWebArchive
from medmaskrcnn.services.pacs.dimse import DimseArchive
from medmaskrcnn.services.pacs.server import Server


def open_archive(server: Server) -> Archive:
    """Open the archive at an address.

    Raises:
        MissingExtraError: if the library for its protocol is not installed.
        ArchiveError: if a certificate cannot be used.
    """
    return DimseArchive(server) if server.is_dimse else DicomWebArchive(server)
