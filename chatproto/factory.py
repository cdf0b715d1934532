"""The factory: who may connect, who is connected, and how all of them are let go."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatproto.accounts import Accounts
from chatproto.address import Peer, peer
from chatproto.errors import StoreError
from chatproto.hub import Hub
from chatproto.moderation import Moderation, in_words
from chatproto.passwords import Hasher
from chatproto.past import Past
from chatproto.protocols.connection import CLOSE, ClientConnection
from chatproto.protocols.line import ChatProtocol
from chatproto.protocols.linecodec import LF
from chatproto.settings import Settings
from chatproto.stores import Store
from chatproto.stores.choice import file_for, store_for
from chatproto.text import TRANSFORMS
from chatproto.threads import Pool, Threads

SPARE_FILES: Final = 64
"""Open files left for everything that is not a client: ports, logs, the store, refusals."""

HASHING: Final = 2
"""Threads that hash passwords: each takes about 20 MiB and 30 ms for one."""

STORE: Final = 5.0
"""Seconds that the store has to close: a locked one takes 2 of them."""

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
        now: Callable[[], float] = time.time,
        store: Store | None = None,
        threads: Threads | None = None,
        hasher: Hasher | None = None,
        checkers: Sequence[Any] = (),
        opens_itself: bool = True,
    ) -> None:
        """Serve as `settings` say, with the store that they say.

        `clock` is the reactor by default, and `now` tells the Unix time in seconds. Passwords are
        hashed by `hasher` in `threads`; with `checkers` (ICredentialsChecker, for user name and
        password) they are checked by those instead. The store is opened when somebody listens,
        unless it is to be done with `open`, by who is going to fork first: no store survives that.
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
        store = store or store_for(self.settings, clock, now, file_for(self.settings))
        self._threads = threads or Pool(clock, HASHING, "passwords")
        self.hub = Hub(
            store,
            clock,
            TRANSFORMS[self.settings.transform],
            accounts=Accounts(
                store.directory,
                self._threads,
                clock.seconds,
                now,
                hasher=hasher or Hasher(),
                operators=self.settings.operator,
                checkers=checkers,
                allows_plaintext=self.settings.plaintext_login,
            ),
            moderation=Moderation(store.directory, now),
            past=Past(
                store.log,
                store.directory,
                now,
                replay=self.settings.replay,
                kept=self.settings.history == "on",
            ),
            needs_nicks=self.settings.nicknames == "required",
        )
        self._is_open = False
        self._opens_itself = opens_itself
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
        """Begin to look for stalled readers, and open the store once the reactor runs."""
        self._sweep.start(min(self.settings.stall / 4, 10.0), now=False)
        if self._opens_itself:
            self.clock.callLater(0, self._open_now)

    def _open_now(self) -> None:
        try:
            self.open()
        except StoreError as error:
            log.critical("the store cannot be opened: {reason}", reason=error.sentence)

    def open(self) -> None:
        """Open the store, unless it is open; raises `StoreError`."""
        if not self._is_open and not self.stopping:
            self.hub.start()
            self._is_open = True

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

        Fires when all are gone, at the latest after the drain time, and the store is closed, which
        gets a few seconds more. The ports must be closed.
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

        def close_store(_: object) -> Deferred[None]:
            if deadline.active():
                deadline.cancel()
            self._threads.stop()
            return self.hub.stop().addTimeout(STORE, self.clock)

        closing.addErrback(lambda failure: failure.trap(CancelledError))
        closing.addCallback(say_goodbye).addErrback(_log_failure)
        return closing.addCallback(close_store).addErrback(_log_failure)

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
        ban = self.hub.moderation.ban_of(client)
        if ban is not None:
            return f"you are banned{in_words(ban)}"
        limit = self.settings.max_per_address
        if client.counted is not None and self._per_address[client.counted] >= limit:
            return f"your address has {limit} connections already: close one first"
        return ""


def _log_failure(failure: Failure) -> None:
    if failure.check(defer.TimeoutError) is not None:
        log.error("the store does not close: its last lines may not be in it", event="store")
    else:
        log.failure("an error while stopping", failure)
