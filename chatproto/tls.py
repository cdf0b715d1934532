"""TLS with the outbox's direct way to the kernel on both sides of it.

    TLSOutbox ─► TLSMemoryBIOProtocol (Twisted's) ─► DirectTransport ─► the socket

Twisted's TLS gathers small writes for a turn, and then queues what it has encrypted for the turn
after: two delayed calls, two changes to epoll and two turns for every client and batch. The outbox
gathers already, and so neither is needed. docs/decisions/0002-outbox.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol

from chatproto.outbox import Data, DirectOutbox, Outbox, Transport, WrappedOutbox


class DirectTransport:
    """A plain connection whose `write` goes straight to the kernel while it takes everything.

    Takes the place of the connection below a TLS protocol; all but writing is the connection's.
    """

    def __init__(
        self, connection: Connection, high_water: int, seconds: Callable[[], float]
    ) -> None:
        """Write to `connection`; the arguments are those of `chatproto.outbox.Outbox`."""
        self._connection = connection
        self._outbox = DirectOutbox(connection, high_water, seconds, self._drained)
        self._producer: Any = None
        self._paused = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def write(self, data: bytes) -> None:
        """Send `data`, and pause the producer when it could not all be sent."""
        self._outbox.push(data, 0)
        if self._outbox.busy and self._producer is not None and not self._paused:
            self._paused = True
            self._producer.pauseProducing()

    def writeSequence(self, parts: Iterable[bytes]) -> None:
        """Send all `parts`."""
        self.write(b"".join(parts))

    def loseConnection(self) -> None:
        """Close once all is sent."""
        self._outbox.end(linger=False)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume `producer`, which is a push producer: TLS registers no other."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Let the producer go."""
        self._producer = None

    def _drained(self) -> None:
        if self._paused:
            self._paused = False
            if self._producer is not None:
                self._producer.resumeProducing()


class TLSOutbox(WrappedOutbox):
    """In front of a TLS transport: encrypted and sent at once, while the kernel takes it."""

    __slots__ = ("_tls",)

    def __init__(
        self,
        transport: TLSMemoryBIOProtocol,
        high_water: int,
        seconds: Callable[[], float],
        drained: Callable[[], None],
    ) -> None:
        """Register with `transport`; the arguments are those of `chatproto.outbox.Outbox`."""
        if isinstance(transport.transport, Connection):
            transport.transport = DirectTransport(transport.transport, high_water, seconds)
        self._tls = transport
        super().__init__(transport, high_water, seconds, drained)

    def _write(self, data: Data) -> None:
        # Not `write` of the transport itself, which may be the gathering kind.
        TLSMemoryBIOProtocol.write(self._tls, bytes(data))


def outbox_for(
    transport: Transport,
    high_water: int,
    seconds: Callable[[], float],
    drained: Callable[[], None],
) -> Outbox:
    """Return the fastest outbox for `transport`; the arguments are those of `Outbox`."""
    if isinstance(transport, Connection) and not transport.TLS:
        return DirectOutbox(transport, high_water, seconds, drained)
    if isinstance(transport, TLSMemoryBIOProtocol):
        return TLSOutbox(transport, high_water, seconds, drained)
    return WrappedOutbox(transport, high_water, seconds, drained)
