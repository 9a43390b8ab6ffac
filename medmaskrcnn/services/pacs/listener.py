"""The TCP side of our storage service: TLS, limits for each peer and all together, and no slot for whoever is idle.

pynetdicom shakes hands for TLS in the thread that accepts connections, and counts every open connection against one
limit: a peer that connects and says nothing stops all others. Here each connection shakes hands in a thread of its own,
each address has its share, and if all slots are taken the connection that has been idle longest makes room.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from medmaskrcnn.errors import ArchiveError
from medmaskrcnn.services.pacs.dimse import pynetdicom

logger = logging.getLogger(__name__)

_GRACE_S = 2.0
"""A connection that has been silent for so long may have to make room for another."""


@dataclass(frozen=True)
class ListenLimits:
    """What senders may take of this machine.

    Attributes:
        associations: Connections at a time.
        per_peer: Connections at a time from one address.
        greeting_s: Seconds until a peer has shaken hands and asked for an association.
        idle_s: Seconds after which a silent association is ended.
        object_bytes: Size of one object.
        folder_bytes: Size of all objects that lie in the folder.
        reserve_bytes: Space on the disk that stays free.
    """

    associations: int = 32
    per_peer: int = 8
    greeting_s: float = 10.0
    idle_s: float = 30.0
    object_bytes: int = 4 << 30
    folder_bytes: int = 200 << 30
    reserve_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < (0 if name == "reserve_bytes" else 1e-3):
                raise ValueError(f"the limit {name} must be positive, got {value}")


def server_tls(certificate: Path, key: Path | None, clients: Path | None) -> ssl.SSLContext:
    """TLS context of a listener.

    Args:
        certificate: Our certificate, PEM, with those that signed it.
        key: Its key; by default in the same file.
        clients: Certificates of authorities; only peers with a certificate signed by one of them may connect.

    Raises:
        ArchiveError: if a file cannot be used.
    """
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(certificate, key)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ArchiveError(f"cannot use the certificate {certificate} for the listener: {error}") from error
    return context


def start_listener(
    application: Any, address: tuple[str, int], handlers: list[Any], tls: ssl.SSLContext | None, limits: ListenLimits
) -> Any:
    """Listen with an application entity of pynetdicom in a thread of its own.

    Returns:
        The server; its ``server_address`` has the port.

    Raises:
        OSError: if the address cannot be used.
    """
    net = pynetdicom()
    application.maximum_associations = 4 * limits.associations  # those that are ending count too; ours is exact
    application.acse_timeout = limits.greeting_s
    application.dimse_timeout = application.network_timeout = limits.idle_s
    slots = _Slots(limits)
    own = [(net.evt.EVT_CONN_OPEN, slots.heard), (net.evt.EVT_DATA_RECV, slots.received)]
    server = application.make_server(
        address, evt_handlers=[*handlers, *own], server_class=_server_class(tls, limits, slots)
    )
    Thread(target=server.serve_forever, daemon=True).start()
    application._servers.append(server)  # as start_server() does: shutdown() takes it out again
    return server


class _Slots:
    """When each association was last heard of, and how much it has sent since its last object was stored."""

    def __init__(self, limits: ListenLimits) -> None:
        self._limits, self._lock = limits, Lock()
        self._last: dict[Any, float] = {}
        self._bytes: dict[Any, int] = {}

    def heard(self, event: Any) -> None:
        with self._lock:
            self._last[event.assoc] = time.monotonic()

    def received(self, event: Any) -> None:
        """Note that data came; an object that is too large ends its association before it fills the memory."""
        with self._lock:
            self._last[event.assoc] = time.monotonic()
            total = self._bytes[event.assoc] = self._bytes.get(event.assoc, 0) + len(event.data)
        if total > self._limits.object_bytes:
            logger.error("an object larger than %d bytes was refused", self._limits.object_bytes)
            hang_up(event.assoc)

    def stored(self, association: Any) -> None:
        """Begin to count anew after an object."""
        with self._lock:
            self._bytes[association] = 0

    def make_room(self, live: list[Any]) -> bool:
        """End the association that has been silent longest; False if none has been for long enough."""
        now = time.monotonic()
        with self._lock:
            for gone in set(self._last) - set(live):
                self._last.pop(gone, None)
                self._bytes.pop(gone, None)
            silent = {one: now - self._last.get(one, now) for one in live}
        longest = max(silent, key=silent.__getitem__, default=None)
        if longest is None or silent[longest] < _GRACE_S:
            return False
        with self._lock:
            self._last[longest] = now  # it takes a moment to end; the next call is to choose another one
        hang_up(longest)
        return True


def hang_up(association: Any) -> None:
    """Close the connection of an association; its threads then end by themselves."""
    with suppress(OSError, AttributeError):
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)


def _server_class(tls: ssl.SSLContext | None, limits: ListenLimits, slots: _Slots) -> Any:
    """A server of pynetdicom with our limits; made here because pynetdicom is optional."""
    base = pynetdicom().transport.ThreadedAssociationServer

    class Listener(base):  # type: ignore[misc, valid-type]
        daemon_threads = True
        request_queue_size = 64

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.slots = slots
            self._greeting: Counter[str] = Counter()
            self._turn = Lock()

        def verify_request(self, request: Any, client_address: Any) -> bool:
            """Whether there is a slot for one more connection."""
            peer = str(client_address[0])
            with self._turn:
                live = self.active_associations
                own = [one for one in live if one.requestor.address == peer]
                for open_now, greeting, most in (
                    (own, self._greeting[peer], limits.per_peer),
                    (live, self._greeting.total(), limits.associations),
                ):
                    if len(open_now) + greeting >= most and not slots.make_room(open_now):
                        logger.error("a connection was refused: there are %d already", most)
                        return False
                self._greeting[peer] += 1
            return True

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            """Shake hands, and let pynetdicom take over."""
            try:
                request.settimeout(limits.greeting_s)
                if tls is not None:
                    request = tls.wrap_socket(request, server_side=True)
                super().process_request_thread(request, client_address)
            except (OSError, ssl.SSLError) as error:
                logger.info("a connection was not encrypted as it must be: %s", type(error).__name__)
                self.shutdown_request(request)
            finally:
                with self._turn:
                    self._greeting[str(client_address[0])] -= 1

    return Listener
