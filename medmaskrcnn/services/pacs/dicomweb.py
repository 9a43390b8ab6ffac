"""An archive over DICOMweb (PS3.18): QIDO-RS to find, WADO-RS to fetch, STOW-RS to store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urljoin, urlsplit

from pydicom.dataset import Dataset

from medmaskrcnn.errors import ArchiveError, MissingExtraError, Remedy
from medmaskrcnn.services.pacs.archive import TransientError
from medmaskrcnn.services.pacs.server import PASSWORD, TOKEN, Query, RemoteSeries, Server

_PAGE = 500
_AS_STORED = (("application/dicom", "*"),)
_REFUSED = {401: "the credentials are wrong or missing", 403: "these credentials may not do that"}
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_TAGS = {"StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "SOPInstanceUID": "00080018",
         "Modality": "00080060"}  # fmt: skip


class DicomWebArchive:
    """See :class:`medmaskrcnn.services.pacs.archive.Archive`.

    Args:
        server: Address and settings of the archive.

    Raises:
        MissingExtraError: if dicomweb-client is not installed.
    """

    def __init__(self, server: Server) -> None:
        try:
            api = import_module("dicomweb_client.api")
            self._requests = import_module("requests")
        except ImportError as error:
            raise MissingExtraError("DICOMweb needs dicomweb-client: pip install 'medmaskrcnn[pacs]'") from error
        self.server = server
        self._session = self._open_session()
        wait = (min(10.0, server.timeout_s), server.timeout_s)
        self._client = api.DICOMwebClient(server.address.rstrip("/"), session=self._session, timeout=wait)
        self._client.set_http_retry_params(retry=False)  # retries are handled by patiently(), for all protocols

    def _open_session(self) -> Any:
        who, session = self.server.credentials, self._requests.Session()
        session.hooks["response"].append(self._refuse_to_be_sent_away)
        if self.server.authorities:
            if not self.server.authorities.is_file():
                raise ArchiveError(f"there is no file of certificates {self.server.authorities}")
            _trust_alone(session, str(self.server.authorities))
        if who.certificate:
            session.cert = (str(who.certificate), str(who.key)) if who.key else str(who.certificate)
        if who.token:
            session.auth = _Bearer(who.token)
        elif who.user and who.password is not None:
            session.auth = (who.user, who.password)
        return session

    def _refuse_to_be_sent_away(self, answer: Any, **_: Any) -> None:
        """Follow a redirection only within the archive: elsewhere nobody was trusted with queries and credentials."""
        if not answer.is_redirect:
            return
        here, there = urlsplit(answer.url), urlsplit(urljoin(answer.url, answer.headers.get("Location", "")))
        if (here.scheme, here.hostname, here.port) != (there.scheme, there.hostname, there.port):
            name = there.hostname or "nowhere"
            raise ArchiveError(
                f"{self.server.name} sends us on to {there.scheme}://{name}; give that address if it is the archive"
            )

    def find(self, query: Query) -> list[RemoteSeries]:
        """Query studies first, then their series, which every archive supports."""
        wanted = {"PatientID": query.patient, "StudyInstanceUID": query.study, "StudyDate": query.date,
                  "ModalitiesInStudy": query.modality}  # fmt: skip
        within = {"SeriesInstanceUID": query.series, "Modality": query.modality}
        found = []
        with self._asking():
            search = partial(self._client.search_for_studies, search_filters=_given(wanted))
            for study in _all(search, "StudyInstanceUID"):
                search = partial(self._client.search_for_series, study, search_filters=_given(within))
                members = _all(search, "SeriesInstanceUID")
                found += [RemoteSeries(study, uid, _value(one, "Modality")) for uid, one in members.items()]
        # Archives that do not support a filter ignore it.
        return sorted(
            s for s in set(found)
            if query.series in (None, s.series) and (query.modality is None or s.modality in ("", query.modality))
        )  # fmt: skip

    def instances(self, series: RemoteSeries) -> list[str]:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        with self._asking():
            search = partial(self._client.search_for_instances, series.study, series.series)
            return sorted(_all(search, "SOPInstanceUID"))

    def fetch(self, series: RemoteSeries, instances: Iterable[str] | None) -> Iterator[Dataset]:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        with self._asking():
            if instances is None:
                yield from self._client.iter_series(series.study, series.series, media_types=_AS_STORED)
                return
            for instance in instances:
                yield self._client.retrieve_instance(series.study, series.series, instance, media_types=_AS_STORED)

    def store(self, dataset: Dataset) -> None:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        with self._asking():
            answer = self._client.store_instances([dataset], dataset.StudyInstanceUID)
        failed = answer.get("FailedSOPSequence")
        if failed:
            raise ArchiveError(
                f"{self.server.name} refused object {dataset.SOPInstanceUID} (reason {failed[0].get('FailureReason')})"
            )

    def holds(self, study: str, series: str, instance: str) -> bool:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        with self._asking():
            filters = {"SOPInstanceUID": instance}
            found = self._client.search_for_instances(study, series, search_filters=filters)
        return any(_value(one, "SOPInstanceUID") == instance for one in found)

    def close(self) -> None:
        """See :class:`~medmaskrcnn.services.pacs.archive.Archive`."""
        self._session.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Convert the library's errors, which contain addresses with patient IDs, into ours, which do not."""
        errors, name = self._requests.exceptions, self.server.name
        try:
            yield
        except errors.SSLError as error:
            raise ArchiveError(
                f"{name} cannot be trusted: {_certificate_words(error)}", Remedy.TRUST_CERTIFICATE
            ) from None
        except errors.Timeout:
            raise TransientError(f"{name} does not answer within {self.server.timeout_s:g} s") from None
        except (errors.ConnectionError, errors.ChunkedEncodingError):
            raise TransientError(f"{name} cannot be reached, or hung up") from None
        except errors.HTTPError as error:
            code = error.response.status_code if error.response is not None else 0
            if code in _REFUSED:
                raise ArchiveError(f"{name}: {_REFUSED[code]}; set {PASSWORD} or {TOKEN}") from None
            kind = TransientError if code in _BUSY else ArchiveError
            path = urlsplit(self.server.address).path
            hint = f"; is {path or '/'} where its DICOMweb is?" if code == 404 else ""
            raise kind(f"{name} answers with HTTP status {code}{hint}") from None
        except (ArchiveError, MemoryError):
            raise
        except Exception as error:  # whatever the client or pydicom raises at an answer that is none
            raise ArchiveError(f"{name} answers what is no DICOMweb ({type(error).__name__})") from None


def _trust_alone(session: Any, authorities: str) -> None:
    """Trust only these certificates: requests prefers REQUESTS_CA_BUNDLE to ``session.verify``."""
    usual = session.merge_environment_settings

    def merged(*arguments: Any) -> dict[str, Any]:
        return {**usual(*arguments), "verify": authorities}

    session.merge_environment_settings = merged


class _Bearer:
    """Sends a token as ``session.auth``, so that requests does not replace it by a password from ~/.netrc."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        """The request with the token."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _all(search: Callable[..., list[dict[str, Any]]], keyword: str) -> dict[str, dict[str, Any]]:
    """Answers of all pages by UID, until a page has nothing new, also for archives that ignore the offset."""
    found: dict[str, dict[str, Any]] = {}
    while True:
        page = {_value(one, keyword): one for one in search(limit=_PAGE, offset=len(found))}
        new = {uid: one for uid, one in page.items() if uid and uid not in found}
        if not new:
            return found
        found |= new


def _given(filters: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in filters.items() if value is not None}


def _value(answer: dict[str, Any], keyword: str) -> str:
    values = answer.get(_TAGS[keyword], {}).get("Value") or [""]
    return str(values[0])


def _certificate_words(error: Exception) -> str:
    text = str(error)
    start = text.find("certificate verify failed")
    return text[start:].split("(_ssl")[0].strip(" ')") if start >= 0 else "TLS could not be agreed on"
