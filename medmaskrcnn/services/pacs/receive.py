"""A Storage SCP: allowed callers send scans with C-STORE."""

from __future__ import annotations

import errno
import logging
import shutil
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from pydicom.uid import DeflatedExplicitVRLittleEndian

from medmaskrcnn.errors import ArchiveError, OutputError
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.services.pacs.dimse import pynetdicom
from medmaskrcnn.services.pacs.listener import ListenLimits, start_listener
from medmaskrcnn.services.pacs.pull import DuplicateError, held, series_folder, write_object
from medmaskrcnn.system.exceptions import words_of
from medmaskrcnn.system.files import PARTIAL, make_folder

logger = logging.getLogger(__name__)

_SUCCESS, _DUPLICATE, _NO_ROOM, _CANNOT_UNDERSTAND = 0x0000, 0x0111, 0xA700, 0xC210  # PS3.7, annex C
_ECHO = "1.2.840.10008.1.1"


class Inbox:
    """Receives objects into ``folder/study/series/instance.dcm`` and reports series that have stopped arriving.

    Args:
        folder: Where files are stored; created with access for its owner only if missing.
        port: Port to listen on; 0 lets the system choose, see :attr:`port`.
        title: Our application entity title, which callers must use.
        host: Address to listen on; only this machine by default.
        callers: Application entity titles that may send; all by default. A title is a name that anyone may claim: who
            really sends is known from a certificate alone.
        tls: Encrypts, and asks senders for certificates if it was made so
            (:func:`~medmaskrcnn.services.pacs.listener.server_tls`); in the clear by default.
        limits: What senders may take of this machine.

    Raises:
        MissingExtraError: if pynetdicom is not installed.
        ArchiveError: if the port cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        title: str = "MEDMASKRCNN",
        host: str = "127.0.0.1",
        callers: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        limits: ListenLimits | None = None,
    ) -> None:
        net = pynetdicom()
        self.folder, self.limits = folder, limits or ListenLimits()
        make_folder(folder, private=True)
        for stale in folder.glob(f"*/*/.*{PARTIAL}"):  # of a process that was killed
            stale.unlink(missing_ok=True)
        self._lock = Lock()
        self._last = {path: time.monotonic() for path in folder.glob("*/*") if path.is_dir()}
        self._used = self._size()
        ours = net.AE(ae_title=title)
        ours.require_called_aet = True
        ours.require_calling_aet = list(callers)
        ours.add_supported_context(_ECHO)
        # Not deflated: one megabyte of it may unpack to gigabytes. Every sender has another syntax.
        syntaxes = [syntax for syntax in net.ALL_TRANSFER_SYNTAXES if syntax != DeflatedExplicitVRLittleEndian]
        for context in net.AllStoragePresentationContexts:
            ours.add_supported_context(context.abstract_syntax, syntaxes)
        try:
            self._server: Any = start_listener(
                ours, (host, port), [(net.evt.EVT_C_STORE, self._receive)], tls, self.limits
            )
        except OSError as error:
            raise ArchiveError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self.port = int(self._server.server_address[1])

    def _size(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*.dcm"))

    def _has_room(self, n_bytes: int) -> bool:
        """Whether an object fits into the folder's share of the disk."""
        if self._used + n_bytes > self.limits.folder_bytes:
            self._used = self._size()  # some may have been segmented and discarded
        free = shutil.disk_usage(self.folder).free
        return self._used + n_bytes <= self.limits.folder_bytes and free >= n_bytes + self.limits.reserve_bytes

    def _receive(self, event: Any) -> int:
        self._server.slots.stored(event.assoc)
        try:
            n_bytes = len(event.request.DataSet.getbuffer())
            if not self._has_room(n_bytes):
                logger.error("an object was refused: the folder for incoming scans or its disk is full")
                return _NO_ROOM
            with suppress_pydicom_warnings():
                dataset = event.dataset
                dataset.file_meta = event.file_meta
                folder = series_folder(self.folder, str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
                with self._lock:
                    self._used += n_bytes * write_object(dataset, folder)
                    self._last[folder] = time.monotonic()
        except DuplicateError as error:
            logger.error("%s; the sender was told that it is not stored", error)
            return _DUPLICATE
        except (OSError, OutputError) as error:
            cause = error.__cause__ or error  # its text has no path, which would contain UIDs
            logger.error("cannot keep an object: %s", getattr(cause, "strerror", cause))
            return _NO_ROOM if getattr(cause, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) else _CANNOT_UNDERSTAND
        except Exception as error:
            logger.error("an object cannot be used: %s", words_of(error))
            return _CANNOT_UNDERSTAND
        return _SUCCESS

    def quiet(self, seconds: float) -> list[Path]:
        """Folders of series that received nothing for this many seconds; each is listed once, until more arrives."""
        now = time.monotonic()
        with self._lock:
            ripe = sorted(folder for folder, last in self._last.items() if now - last >= seconds and held(folder))
            for folder in ripe:
                del self._last[folder]
        return ripe

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
