"""The send queue in front of one transport, bounded, and as fast as the kernel allows.

    send ─► free?  yes ─► the kernel takes all of it: done
              │             └─ takes a part: the rest waits here
              └─ no, below the high-water mark ─► the queue
              └─ no, above it ─► not taken: the caller pages from the log later

`DirectOutbox` stands in front of a plain socket, `WrappedOutbox` in front of everything else;
`chatproto.tls` has the one for TLS, and chooses between them. Why they write as they do, and what
that was measured to bring, is told in docs/decisions/0002-outbox.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

CHUNK: Final = 16 * 1024
"""Bytes handed to a busy plain transport at a time. Small, so that a reader that takes anything
at all is seen to make progress."""

Data = bytes | memoryview


class Transport(Protocol):
    """What an outbox needs of a transport: both ITransport and IConsumer."""

    def write(self, data: bytes, /) -> None:
        """Queue `data` for sending."""

    def loseConnection(self) -> object:
        """Close once all is sent."""

    def registerProducer(self, producer: Any, streaming: bool, /) -> object:
        """Tell `producer` from now on when there is room."""

    def unregisterProducer(self) -> object:
        """Let the producer go."""


def _nothing() -> None:
    """Do nothing."""


class Outbox:
    """What both kinds share: the queue, its count and the end."""

    __slots__ = (
        "_drained",
        "_ended",
        "_ending",
        "_queue",
        "_seconds",
        "_transport",
        "busy",
        "bytes_out",
        "dead",
        "high_water",
        "lines_out",
        "progress",
        "queued",
        "stuck",
    )

    def __init__(
        self,
        transport: Transport,
        high_water: int,
        seconds: Callable[[], float],
        drained: Callable[[], None],
    ) -> None:
        """Send to `transport`; take `send` up to `high_water` bytes queued.

        `seconds` tells the time for `progress`; `drained` is called each time all that waited has
        been handed on.
        """
        self.high_water = high_water
        self.busy = False
        """Whether something waits, here or in the transport."""
        self.dead = False
        """Whether the peer can no longer be reached; what is sent then goes nowhere."""
        self.queued = 0
        """Bytes that wait here."""
        self.bytes_out = 0
        """Bytes handed to the transport."""
        self.lines_out = 0
        """Lines of what was given to `send` and `push`."""
        self.progress = 0.0
        """When the transport last took anything, while `busy`."""
        self.stuck: Callable[[], object] = _nothing
        """Is called when a free outbox begins to wait: what it was given before has gone out, what
        it is being given now may never do so."""
        self._transport = transport
        self._seconds = seconds
        self._drained = drained
        self._queue: list[Data] = []
        self._ending: Callable[[], object] | None = None
        self._ended: Callable[[], object] = _nothing

    def send(self, data: Data, lines: int) -> bool:
        """Send `data`, which has so many `lines`, unless the queue is above the high-water mark.

        Returns whether it was taken.
        """
        raise NotImplementedError

    def push(self, data: bytes, lines: int) -> None:
        """Send `data` whatever waits before it; for answers, whose number the sender bounds."""
        if self.busy and not self.dead:
            self._enqueue(data, lines)
        else:
            self.send(data, lines)

    def end(self, ended: Callable[[], object] = _nothing, *, linger: bool) -> None:
        """Close the transport once all is sent, then call `ended`.

        With `linger` only our own direction is closed where the transport can do that: a peer that
        is still sending would otherwise be answered with a reset, and its system could throw away
        our last words with it (RFC 9112, section 9.6, tells the same of HTTP).
        """
        self._ending = self._half_close if linger else self._transport.loseConnection
        self._ended = ended
        if not self.busy:
            self._finish()

    def drop(self) -> None:
        """The peer cannot be reached: forget what waits, and take whatever comes for nothing."""
        self.dead = True
        self.busy = False
        self.queued = 0
        self._queue = []

    def _half_close(self) -> None:
        self._transport.loseConnection()

    def pauseProducing(self) -> None:
        """The transport is full (a push producer's); a pull producer is never told."""
        self._wait()

    def resumeProducing(self) -> None:
        """The transport has room again (a pull producer's: has sent all it had)."""
        if self.busy:
            self.progress = self._seconds()
            self.busy = False
            if self._queue:
                self.send(self._take_queue(), 0)
                if self.busy:
                    return
            self._finish()
            self._drained()

    def stopProducing(self) -> None:
        """The connection is lost."""
        self.drop()

    def _wait(self) -> None:
        if not self.busy:
            self.busy = True
            self.progress = self._seconds()
            self.stuck()

    def _enqueue(self, data: Data, lines: int) -> bool:
        self._queue.append(data)
        self.queued += len(data)
        self.lines_out += lines
        return True

    def _take_queue(self) -> Data:
        """Empty the queue and return all of it."""
        queue, self._queue, self.queued = self._queue, [], 0
        return queue[0] if len(queue) == 1 else b"".join(queue)

    def _finish(self) -> None:
        ending, self._ending = self._ending, None
        if ending is not None:
            # A transport with a producer never closes: it waits for the producer's last word.
            self._transport.unregisterProducer()
            ending()
            self._ended()


def _nowhere(data: Data) -> int:
    """Send nothing to a peer that is gone."""
    raise BrokenPipeError


@implementer(IPullProducer)
class DirectOutbox(Outbox):
    """In front of a plain TCP or Unix socket: straight to the kernel while it takes everything.

    Only what the kernel did not take goes through `transport.write`, in chunks. Being registered
    as a pull producer, the outbox is asked for more exactly when the transport has sent its chunk.
    """

    __slots__ = ("_connection", "_to_kernel")

    def __init__(
        self,
        transport: Connection,
        high_water: int,
        seconds: Callable[[], float],
        drained: Callable[[], None],
    ) -> None:
        """Register with `transport`; the arguments are those of `Outbox`."""
        super().__init__(transport, high_water, seconds, drained)
        self._connection = transport
        self._to_kernel: Callable[[Data], int] = transport.getHandle().send
        transport.registerProducer(self, False)

    def send(self, data: Data, lines: int) -> bool:
        """Send `data` unless the queue is above the high-water mark; the hottest line of all."""
        if self.busy:
            return self.queued < self.high_water and self._enqueue(data, lines)
        self.lines_out += lines
        try:
            sent = self._to_kernel(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            # Gone. Reading will tell the transport; until then there is nobody to send to.
            self.drop()
            self._to_kernel = _nowhere
            return True
        self.bytes_out += sent
        if sent != len(data):
            self._hold(memoryview(data)[sent:])
        return True

    def _half_close(self) -> None:
        self._connection.loseWriteConnection()

    def _hold(self, rest: memoryview) -> None:
        """Hand a chunk of what the kernel did not take to the transport, and keep the rest."""
        self._wait()
        if len(rest) > CHUNK:
            self._queue.append(rest[CHUNK:])
            self.queued += len(rest) - CHUNK
            rest = rest[:CHUNK]
        self.bytes_out += len(rest)
        self._transport.write(bytes(rest))


@implementer(IPushProducer)
class WrappedOutbox(Outbox):
    """In front of any other transport: through `write`, and told when that is full."""

    __slots__ = ()

    def __init__(
        self,
        transport: Transport,
        high_water: int,
        seconds: Callable[[], float],
        drained: Callable[[], None],
    ) -> None:
        """Register with `transport`; the arguments are those of `Outbox`."""
        super().__init__(transport, high_water, seconds, drained)
        transport.registerProducer(self, True)

    def send(self, data: Data, lines: int) -> bool:
        """Send `data` unless the queue is above the high-water mark."""
        if self.busy:
            return self.queued < self.high_water and self._enqueue(data, lines)
        if not self.dead:
            self.bytes_out += len(data)
            self._write(data)
        self.lines_out += lines
        return True

    def _write(self, data: Data) -> None:
        self._transport.write(bytes(data))
