"""From an address to the archive there, by the protocol that the address names."""

from __future__ import annotations

from medmaskrcnn.services.pacs.archive import Archive
from medmaskrcnn.services.pacs.dicomweb import DicomWebArchive
from medmaskrcnn.services.pacs.dimse import DimseArchive
from medmaskrcnn.services.pacs.server import Server


def open_archive(server: Server) -> Archive:
    """The archive at an address.

    Raises:
        MissingExtraError: if the library for its protocol is not installed.
        ArchiveError: if certificates cannot be used.
    """
    return DimseArchive(server) if server.is_dimse else DicomWebArchive(server)
