"""The life of one connection, whatever it speaks: its session, its deadlines, its end.

    made ─► (TLS handshake) ─► begun ─► ending: the last words are being sent ─► gone
                                  └─► lost: what has been read is still processed ─┘

A protocol mixes this in and adds how its bytes are read.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, IReactorTime
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from chatproto.address import Peer
from chatproto.codec import Codec
from chatproto.hub import Hub
from chatproto.session import Session
from chatproto.settings import Settings
from chatproto.tls import outbox_for

CLOSE: Final = 5.0
"""Seconds that a peer has to take what was sent before its connection is cut."""

HANDSHAKE: Final = 10.0
"""Seconds for a TLS handshake."""


class Door(Protocol):
    """What a connection needs of the factory that made it."""

    hub: Hub
    settings: Settings
    clock: IReactorTime
    motd: str
    """The message of the day, empty when there is none."""
    stopping: bool
    """Whether the server is about to end, and input is no longer read."""

    def opened(self, connection: ClientConnection) -> None:
        """Take note of a new connection."""

    def closed(self, connection: ClientConnection, why: str) -> None:
        """Take note that a connection is gone, and why."""


@implementer(IHandshakeListener)
class ClientConnection:
    """One connected client."""

    transport: Any
    session: Session

    # Defaults live in the class: ten thousand idle clients need not carry them.
    lines_in = 0
    bytes_in = 0
    paused = False
    _lost = False  # the transport is gone
    _why = ""  # why this connection is ending; empty while it is not
    _done = False  # nothing is left of it
    _deadline: IDelayedCall | None = None

    def __init__(self, door: Door, peer: Peer) -> None:
        """Serve a client that connected from `peer`."""
        self.peer = peer
        self._door = door

    def handshakeCompleted(self) -> None:
        """TLS is up."""
        if not self._why:
            self._no_deadline()
            self._begin()

    def hang_up(self, why: str) -> None:
        """End this client: it leaves its room now, and its connection when all is sent."""
        self._end(why)

    def refuse(self, why: str, last_words: bytes) -> None:
        """End this client, which is likely to be sending still, so that it reads `last_words`."""
        if not self._why:
            self.session.outbox.push(last_words, 1)
            self._end(why, linger=True)

    def cut(self, why: str) -> None:
        """End this client at once, with whatever it has not read."""
        self._why = self._why or why
        self._forget_input()
        if self._lost:
            self._gone()
        else:
            self.transport.abortConnection()

    def stop_reading(self) -> None:
        """The server stops: take no more input from this client (see `Door.stopping`)."""
        if not self._why:
            self._stop_turns()
            self._pause()

    def say_goodbye(self) -> None:
        """The server stops: once the client has what it missed, say so and hang up."""
        if self._lost:
            self.cut(self._why)
        elif not self._why:
            self.session.flushed().addCallback(self._say_goodbye)

    # What a protocol adds.

    def _begin(self) -> None:
        """Greet the client, which can be talked to from now on."""
        raise NotImplementedError

    def _drained(self) -> None:
        """All that was sent has gone out."""
        raise NotImplementedError

    def _stop_turns(self) -> None:
        """Process no input until there is more."""
        raise NotImplementedError

    def _forget_input(self) -> None:
        """Throw away the input that was not processed."""
        raise NotImplementedError

    def _unread(self) -> int:
        """Count the lines that came and were not processed."""
        raise NotImplementedError

    # What it uses.

    def _open(self, codec: Codec) -> None:
        """Make the session, and begin, after the handshake when this is TLS."""
        door = self._door
        if hasattr(self.transport, "setTcpNoDelay"):  # a Unix socket has neither
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)  # or a peer that lost its power stays for ever
        high_water = door.settings.high_water * 1024
        outbox = outbox_for(self.transport, high_water, door.clock.seconds, self._drained)
        is_tls = isinstance(self.transport, TLSMemoryBIOProtocol)
        self.session = door.hub.connect(
            codec, outbox, self.hang_up, self.peer, is_secure=is_tls or self.peer.is_local
        )
        door.opened(self)
        if is_tls:
            self._due(HANDSHAKE, f"no TLS handshake within {HANDSHAKE:g} s")
        else:
            self._begin()

    def _set_lost(self, why: str) -> bool:
        """The transport is gone; return whether input may be left that is still to be processed."""
        self._lost = True
        self._no_deadline()
        self.session.outbox.drop()
        self.session.release()
        if self._why:
            self._gone()
            return False
        self._why = why
        return True

    def _pause(self) -> None:
        if not self.paused and not self._lost:
            self.paused = True
            self.transport.pauseProducing()

    def _resume(self) -> None:
        if self.paused and not self._lost:
            self.paused = False
            self.transport.resumeProducing()

    def _due(self, seconds: float, why: str) -> None:
        """Cut this client in `seconds`, an absolute deadline; the newest one counts."""
        self._no_deadline()
        self._deadline = self._door.clock.callLater(seconds, self.cut, why)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None

    def _end(self, why: str, seconds: float = CLOSE, *, linger: bool = False) -> None:
        if self._why:
            return
        self._why = why
        self._stop_turns()
        self._door.hub.disconnect(self.session)
        self._due(seconds, why)
        self._resume()  # to see the peer close
        self.session.outbox.end(lambda: self._due(CLOSE, why), linger=linger)

    def _gone(self) -> None:
        """Nothing is left of this client."""
        if self._done:
            return
        self._done = True
        self._no_deadline()
        self._stop_turns()
        self._door.hub.disconnect(self.session)
        self._door.closed(self, self._why)

    def _say_goodbye(self, _: None) -> None:
        if not self._why:
            unread = self._unread()
            if unread:
                self.session.error(f"{unread} of your lines were not sent")
            self.session.notice("the server is stopping")
            self._end("the server is stopping", self._door.settings.drain)
