"""An archive over DIMSE (PS3.7): C-FIND to find, C-GET to fetch, C-STORE to store.

C-GET sends objects over the association that requested them, so unlike C-MOVE it needs no open port of ours that the
archive knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from medmaskrcnn.errors import ArchiveError, MissingExtraError, Remedy
from medmaskrcnn.services.pacs.archive import TransientError
from medmaskrcnn.services.pacs.server import Query, RemoteSeries, Server

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
_PLAIN = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
_PACKED = [JPEG2000Lossless, JPEG2000, JPEGLosslessSV1, JPEGLSLossless, RLELossless, JPEGBaseline8Bit]
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_SCANS = [_STORAGE + tail for tail in ("2", "2.1", "4", "4.1", "6.1", "3.1", "128", "130", "7")]
"""CT, enhanced CT, MR, enhanced MR, ultrasound, cine ultrasound, PET, enhanced PET, secondary capture."""

OTHERS = [_STORAGE + tail for tail in (
    "1", "1.1", "1.2", "12.1", "20", "7.1", "7.2", "7.3", "7.4", "66.4", "66.5", "481.3", "88.11", "88.22", "88.33",
    "88.34", "88.59", "66.7")]  # fmt: skip
"""CR, DX, mammography, XA, NM, multi-frame captures, SEG, surface SEG, RTSTRUCT, SR, key objects, label maps."""

_PENDING = (0xFF00, 0xFF01)
_WARNINGS = range(0xB000, 0xC000)
_BUSY = (0xA700, 0xA701, 0xA702, 0xC000)


def pynetdicom() -> Any:
    """Import pynetdicom.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return import_module("pynetdicom")
    except ImportError as error:
        raise MissingExtraError("DIMSE needs pynetdicom: pip install 'medmaskrcnn[pacs]'") from error


class DimseArchive:
    """See :class:`medmaskrcnn.services.pacs.archive.Archive`. Every call except a store opens its own association.

    Args:
        server: Address and settings of the archive.

    Raises:
        MissingExtraError: if pynetdicom is not installed.
        ArchiveError: if a certificate cannot be used.
    """

    def __init__(self, server: Server) -> None:
        self._net = pynetdicom()
        self.server = server
        self._tls = (server.tls(), server.host) if server.address.startswith("dicoms") else None
        self._storing: tuple[tuple[str, str], Any] | None = None

    def find(self, query: Query) -> list[RemoteSeries]:
        """Query studies first, then their series: the hierarchy that every archive supports."""
        asked = {"PatientID": query.patient, "StudyInstanceUID": query.study, "StudyDate": query.date,
                 "ModalitiesInStudy": query.modality}  # fmt: skip
        found = []
        with self._connected([self._net.presentation.build_context(FIND)]) as link:
            for study in self._answers(link, "STUDY", asked):
                within = {"StudyInstanceUID": str(study.StudyInstanceUID), "SeriesInstanceUID": query.series,
                          "Modality": query.modality}  # fmt: skip
                found += [
                    RemoteSeries(str(study.StudyInstanceUID), str(one.SeriesInstanceUID), str(one.get("Modality", "")))
                    for one in self._answers(link, "SERIES", within)
                ]
        return sorted(
            s for s in set(found)
            if query.series in (None, s.series) and (query.modality is None or s.modality in ("", query.modality))
        )  # fmt: skip

    def instances(self, series: RemoteSeries) -> list[str]:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        return self._instances(series, None)

    def _instances(self, series: RemoteSeries, instance: str | None) -> list[str]:
        place = {"StudyInstanceUID": series.study, "SeriesInstanceUID": series.series, "SOPInstanceUID": instance}
        with self._connected([self._net.presentation.build_context(FIND)]) as link:
            return sorted({str(one.SOPInstanceUID) for one in self._answers(link, "IMAGE", place)})

    def holds(self, study: str, series: str, instance: str) -> bool:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        return instance in self._instances(RemoteSeries(study, series), instance)

    def _answers(self, link: Any, level: str, asked: dict[str, str | None]) -> list[Dataset]:
        request = Dataset()
        request.QueryRetrieveLevel = level
        for keyword, value in asked.items():
            setattr(request, keyword, value or "")
        found = []
        for status, answer in link.send_c_find(request, FIND):
            self._check(status, "the search")
            if status.Status in _PENDING and answer is not None:
                found.append(answer)
        return found

    def fetch(self, series: RemoteSeries, instances: Iterable[str] | None) -> Iterator[Dataset]:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`; yields objects as they arrive."""
        arrived: SimpleQueue[Dataset | BaseException | None] = SimpleQueue()
        wanted = [None] if instances is None else list(instances)

        def receive(event: Any) -> int:
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            arrived.put(dataset)
            return 0x0000

        def ask() -> None:
            try:
                roles = [self._net.build_role(uid, scp_role=True) for uid in (*_SCANS, *OTHERS)]
                handlers = [(self._net.evt.EVT_C_STORE, receive)]
                with self._connected(self._contexts(), ext_neg=roles, evt_handlers=handlers) as link:
                    for instance in wanted:
                        self._get(link, series, instance)
                arrived.put(None)
            except BaseException as error:
                arrived.put(error)

        Thread(target=ask, daemon=True).start()
        while (one := self._next(arrived)) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one

    def _next(self, arrived: SimpleQueue[Dataset | BaseException | None]) -> Dataset | BaseException | None:
        try:
            return arrived.get(timeout=2 * self.server.timeout_s)
        except Empty:
            raise TransientError(f"{self.server.name} does not go on sending") from None

    def _get(self, link: Any, series: RemoteSeries, instance: str | None) -> None:
        request = Dataset()
        request.QueryRetrieveLevel = "SERIES" if instance is None else "IMAGE"
        request.StudyInstanceUID, request.SeriesInstanceUID = series.study, series.series
        if instance is not None:
            request.SOPInstanceUID = instance
        for status, _ in link.send_c_get(request, GET):
            self._check(status, "fetching")

    def _contexts(self) -> list[Any]:
        """Contexts for scans in all usual encodings (one each, or the archive may choose another)."""
        build = self._net.presentation.build_context
        packed = [build(uid, syntax) for uid in _SCANS for syntax in _PACKED]
        return [build(GET), *(build(uid, _PLAIN) for uid in (*_SCANS, *OTHERS)), *packed]

    def store(self, dataset: Dataset) -> None:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`; objects of a kind in a row share an association."""
        kind = (str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID))
        if self._storing is None or self._storing[0] != kind or not self._storing[1].is_established:
            self.close()
            syntaxes = _PLAIN if kind[1] in (*_PLAIN, DeflatedExplicitVRLittleEndian) else [kind[1]]
            self._storing = (kind, self._connect([self._net.presentation.build_context(kind[0], syntaxes)]))
        try:
            status = self._storing[1].send_c_store(dataset)
        except (RuntimeError, ValueError) as error:
            self.close()
            if "not established" in str(error) or isinstance(error, RuntimeError):
                raise TransientError(f"{self.server.name} hung up") from error
            raise ArchiveError(
                f"{self.server.name} does not take objects of class {kind[0]} in transfer syntax {kind[1]}"
            ) from error
        self._check(status, "storing")

    def close(self) -> None:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        if self._storing is not None:
            link = self._storing[1]
            self._storing = None
            if link.is_established:
                link.release()

    @contextmanager
    def _connected(self, contexts: list[Any], **more: Any) -> Iterator[Any]:
        link = self._connect(contexts, **more)
        try:
            yield link
        finally:
            if link.is_established:
                link.release()

    def _connect(self, contexts: list[Any], **more: Any) -> Any:
        server = self.server
        ours = self._net.AE(ae_title=server.calling)
        ours.acse_timeout = ours.dimse_timeout = ours.network_timeout = server.timeout_s
        ours.connection_timeout = min(10.0, server.timeout_s)
        if self._tls:
            more["tls_args"] = self._tls
        if (identity := self._identity()) is not None:
            more["ext_neg"] = [*more.get("ext_neg", ()), identity]
        link = ours.associate(server.host, server.port, contexts=contexts, ae_title=server.called, **more)
        if link.is_established:
            return link
        if link.is_rejected:
            raise ArchiveError(
                f"{server.name} refuses {server.calling!r} as a caller of {server.called!r}", Remedy.SET_TITLES
            )
        if link.is_aborted and link.acceptor.primitive is not None:
            raise ArchiveError(f"{server.name} takes none of what is asked of it")
        raise TransientError(f"{server.name} cannot be reached, or is no DICOM archive that we can trust")

    def _identity(self) -> Any:
        """User identity, for archives that require it (PS3.7, D.3.3.7)."""
        who = self.server.credentials
        if who.user is None or who.password is None:
            return None
        identity = import_module("pynetdicom.pdu_primitives").UserIdentityNegotiation()
        identity.user_identity_type = 2
        identity.primary_field, identity.secondary_field = who.user.encode(), who.password.encode()
        return identity

    def _check(self, status: Dataset, what: str) -> None:
        """Raise the error, if any, of a response status."""
        code = status.get("Status")
        if code is None:
            raise TransientError(f"{self.server.name} hung up, or does not answer within {self.server.timeout_s:g} s")
        if code == 0x0000 or code in _PENDING or code in _WARNINGS:
            return
        kind = TransientError if code in _BUSY else ArchiveError
        raise kind(f"{self.server.name} says that {what} failed (status {code:#06x})")
