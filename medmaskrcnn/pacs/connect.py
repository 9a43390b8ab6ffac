"""From an address to the archive there, by the protocol that the address names."""

from __future__ import annotations

from medmaskrcnn.pacs.archive import Archive
from medmaskrcnn.pacs.dicomweb import DicomWebArchive
from medmaskrcnn.pacs.dimse import DimseArchive
from medmaskrcnn.pacs.server import Server


def open_archive(server: Server) -> Archive:
    """The archive at an address.

    Raises:
        MissingExtraError: if the library for its protocol is not installed.
        ArchiveError: if certificates cannot be used.
    """
    return DimseArchive(server) if server.is_dimse else DicomWebArchive(server)
