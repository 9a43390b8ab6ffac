"""A Storage SCP: allowed callers send scans with C-STORE."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from medmaskrcnn.errors import ArchiveError, OutputError
from medmaskrcnn.export.source_series import suppress_pydicom_warnings
from medmaskrcnn.services.pacs.dimse import pynetdicom
from medmaskrcnn.services.pacs.pull import DuplicateError, held, series_folder, write_object
from medmaskrcnn.system.files import make_folder

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
        callers: Application entity titles that may send; all by default.
        timeout_s: Timeout for a caller that does not respond.

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
        timeout_s: float = 60.0,
    ) -> None:
        net = pynetdicom()
        self.folder = folder
        make_folder(folder, private=True)
        self._lock = Lock()
        self._last = {path: time.monotonic() for path in folder.glob("*/*") if path.is_dir()}
        ours = net.AE(ae_title=title)
        ours.acse_timeout = ours.dimse_timeout = ours.network_timeout = timeout_s
        ours.require_called_aet = True
        ours.require_calling_aet = list(callers)
        ours.add_supported_context(_ECHO)
        for context in net.AllStoragePresentationContexts:
            ours.add_supported_context(context.abstract_syntax, net.ALL_TRANSFER_SYNTAXES)
        try:
            self._server: Any = ours.start_server(
                (host, port), block=False, evt_handlers=[(net.evt.EVT_C_STORE, self._receive)]
            )
        except OSError as error:
            raise ArchiveError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        self.port = int(self._server.server_address[1])

    def _receive(self, event: Any) -> int:
        try:
            with suppress_pydicom_warnings():
                dataset = event.dataset
                dataset.file_meta = event.file_meta
                folder = series_folder(self.folder, str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
                with self._lock:
                    write_object(dataset, folder)
                    self._last[folder] = time.monotonic()
        except DuplicateError as error:
            logger.error("%s; the sender was told that it is not stored", error)
            return _DUPLICATE
        except (OSError, OutputError) as error:
            cause = error.__cause__ or error  # its text has no path, which would contain UIDs
            logger.error("cannot keep an object: %s", getattr(cause, "strerror", cause))
            return _NO_ROOM if getattr(cause, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) else _CANNOT_UNDERSTAND
        except Exception:
            logger.exception("an object cannot be used")
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
