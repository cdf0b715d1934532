"""The factory: who may connect, who is connected, and how all of them are let go."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chatproto.address import Peer, peer
from chatproto.hub import Hub
from chatproto.protocols.connection import CLOSE, ClientConnection
from chatproto.protocols.line import ChatProtocol
from chatproto.protocols.linecodec import LF
from chatproto.settings import Settings
from chatproto.stores import Store
from chatproto.stores.memory import memory_store
from chatproto.text import TRANSFORMS

SPARE_FILES: Final = 64
"""Open files left for everything that is not a client: ports, logs, the store, refusals."""

REFUSALS: Final = 32
"""Clients that are being told why they cannot come in; more are closed without a word, so that
they do not use up the open files of the others."""

log = Logger()


class Refusal(Protocol):
    """Tells one client why it cannot come in, and closes."""

    transport: Any

    def __init__(self, sentence: str, clock: IReactorTime, gone: Callable[[], None]) -> None:
        """Say `sentence`; `clock` gives the deadline, `gone` is called when it is closed."""
        self._sentence = sentence
        self._clock = clock
        self._gone = gone

    def connectionMade(self) -> None:
        """Say it and close, at the latest when the peer has not taken it in time."""
        self.transport.write(LF.error(self._sentence))
        self.transport.loseConnection()
        self._deadline = self._clock.callLater(CLOSE, self.transport.abortConnection)

    def connectionLost(self, reason: object = None) -> None:
        """It is gone."""
        self._gone()
        if self._deadline.active():
            self._deadline.cancel()


class ChatFactory(Factory):
    """Makes a protocol for each client; all of them share one hub.

    Listen with it on as many ports as you like. `drain` lets everybody go.
    """

    noisy = False

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        clock: IReactorTime | None = None,
        store: Store | None = None,
    ) -> None:
        """Serve as `settings` say; `clock` is the reactor and `store` in memory by default.

        Raises `SettingError` when the message of the day cannot be read.
        """
        if clock is None:
            from twisted.internet import reactor  # installs one, so not at the top

            clock = cast(IReactorTime, reactor)
        self.settings = settings or Settings()
        self.clock = clock
        self.protocols: set[ClientConnection] = set()
        """The protocols of the clients that are connected."""
        self.motd = self.settings.read_motd()
        self.stopping = False
        self.hub = Hub(
            store or memory_store(clock, time.time), clock, TRANSFORMS[self.settings.transform]
        )
        self._per_address: Counter[str] = Counter()
        self._refusing = 0
        self._closing: Deferred[None] | None = None
        self._empty: Deferred[None] | None = None
        self._sweep = LoopingCall(self.close_stalled)
        self._sweep.clock = clock

    @property
    def capacity(self) -> int:
        """How many clients may be connected at once."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files == resource.RLIM_INFINITY:
            return self.settings.max_clients
        return max(1, min(self.settings.max_clients, files - SPARE_FILES))

    # Twisted's side.

    def startFactory(self) -> None:
        """Begin to look for stalled readers."""
        self._sweep.start(min(self.settings.stall / 4, 10.0), now=False)

    def stopFactory(self) -> None:
        """No port is left."""
        self._sweep.stop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Return the protocol of a new client, or the one that tells it why not.

        None, which closes the connection at once, when too many are being told already.
        """
        client = peer(addr)
        reason = self._reason_against(client)
        if reason:
            if self._refusing >= REFUSALS:
                return None
            log.info(
                "refused {address}: {reason}",
                event="refused",
                address=client.shown,
                reason=reason,
            )
            self._refusing += 1
            return Refusal(reason, self.clock, self._refused)
        protocol = ChatProtocol(self, client)
        protocol.factory = self
        return protocol

    def _refused(self) -> None:
        self._refusing -= 1

    # The protocols' side.

    def opened(self, connection: ClientConnection) -> None:
        """Take note of a new connection."""
        self.protocols.add(connection)
        counted = connection.peer.counted
        if counted is not None:
            self._per_address[counted] += 1
        log.info(
            "client {client} accepted from {address}: {count} connected",
            event="accepted",
            client=connection.session.id,
            address=connection.peer.shown,
            count=len(self.protocols),
        )

    def closed(self, connection: ClientConnection, why: str) -> None:
        """Take note that a connection is gone."""
        self.protocols.discard(connection)
        counted = connection.peer.counted
        if counted is not None:
            self._per_address[counted] -= 1
            if not self._per_address[counted]:
                del self._per_address[counted]
        session = connection.session
        log.info(
            "client {client} closed after {seconds:.1f} s: {why}; "
            "in {lines_in} lines, {bytes_in} bytes; out {lines_out} lines, {bytes_out} bytes",
            event="closed",
            client=session.id,
            address=connection.peer.shown,
            why=why,
            seconds=round(self.clock.seconds() - session.connected_at, 1),
            lines_in=connection.lines_in,
            bytes_in=connection.bytes_in,
            lines_out=session.outbox.lines_out,
            bytes_out=session.outbox.bytes_out,
        )
        if self._empty is not None and not self.protocols:
            self._empty.callback(None)

    # The operator's side.

    def close_stalled(self) -> None:
        """Cut the readers that have accepted nothing for the stall time."""
        now = self.clock.seconds()
        for protocol in list(self.protocols):
            outbox = protocol.session.outbox
            if outbox.busy and now - outbox.progress >= self.settings.stall:
                try:
                    protocol.cut(f"accepted nothing for {self.settings.stall:g} s")
                except Exception:  # or nobody would be looked at again
                    log.failure("client {client} failed", client=protocol.session.id)

    def reload(self) -> None:
        """Read the message of the day again; raises `SettingError` and then keeps the old one."""
        self.motd = self.settings.read_motd()

    def drain(self) -> Deferred[None]:
        """Let everyone go: deliver what was said, tell them, send what is queued, and close.

        Fires when all are gone, at the latest after the drain time. The ports must be closed.
        """
        self.stopping = True
        for protocol in self.protocols:
            protocol.stop_reading()
        closing = self._closing = self.hub.close()
        deadline = self.clock.callLater(self.settings.drain, self.end_now)

        def say_goodbye(_: object) -> Deferred[None]:
            self._empty = Deferred()
            for protocol in list(self.protocols):
                protocol.say_goodbye()
            return self._empty if self.protocols else succeed(None)

        def drained(_: object) -> Deferred[None]:
            if deadline.active():
                deadline.cancel()
            return self.hub.stop()

        closing.addErrback(lambda failure: failure.trap(CancelledError))
        return closing.addCallback(say_goodbye).addCallback(drained)

    def end_now(self) -> None:
        """Wait no longer while draining: end every connection, whatever is still queued."""
        if self._closing is not None and not self._closing.called:  # the log has not answered
            self._closing.cancel()
        left = list(self.protocols)
        if left:
            log.warn("cutting off {count} clients", event="cut", count=len(left))
        for protocol in left:
            protocol.cut("the server has stopped")

    def _reason_against(self, client: Peer) -> str:
        if self.stopping:
            return "the server is stopping"
        capacity = self.capacity
        if len(self.protocols) >= capacity:
            return f"the server is full ({capacity} clients): try again later"
        limit = self.settings.max_per_address
        if client.counted is not None and self._per_address[client.counted] >= limit:
            return f"your address has {limit} connections already: close one first"
        return ""
