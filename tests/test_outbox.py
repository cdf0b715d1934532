"""The send queue, in front of a transport in memory and of real sockets."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any, Final, ParamSpec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from chatproto.outbox import DirectOutbox, Outbox, WrappedOutbox

reactor: Any = the_reactor

DEADLINE: Final = 20.0
"""Seconds after which what was waited for will not come."""

HIGH_WATER: Final = 1000

BUFFER: Final = 64 * 1024
"""Bytes that the kernel is asked to hold for each end; it takes a few times as many."""

MUCH: Final = 32 * BUFFER
"""Bytes that the kernel does not take for a peer that does not read."""

P = ParamSpec("P")


def in_reactor(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Deferred[None]]:
    """Let a coroutine be a test of pytest-twisted's, with a deadline."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> Deferred[None]:
        return Deferred.fromCoroutine(test(*args, **kwargs)).addTimeout(DEADLINE, reactor)

    return run


class Time:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        """Begin at a time that is nobody's default."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class Wrapped:
    """A `WrappedOutbox` in front of a transport in memory."""

    def __init__(self) -> None:
        """Connect."""
        self.transport = StringTransport()
        self.time = Time()
        self.drained = 0
        self.outbox = WrappedOutbox(self.transport, HIGH_WATER, self.time, self._drain)

    def _drain(self) -> None:
        self.drained += 1

    @property
    def sent(self) -> bytes:
        """All that the transport was given."""
        sent: bytes = self.transport.value()
        return sent


class TestWrapped:
    """In front of any transport."""

    @pytest.fixture
    def wrapped(self) -> Wrapped:
        """Return an outbox in front of a transport in memory."""
        return Wrapped()

    def test_it_is_a_push_producer(self, wrapped: Wrapped) -> None:
        """The transport tells when it is full and when it has room again."""
        assert wrapped.transport.producer is wrapped.outbox
        assert wrapped.transport.streaming

    def test_what_is_sent_goes_out_at_once(self, wrapped: Wrapped) -> None:
        """While the transport has room nothing waits."""
        assert wrapped.outbox.send(b"one\n", 1)
        wrapped.outbox.push(b"two\nthree\n", 2)
        assert wrapped.outbox.send(memoryview(b"four\n"), 1)
        assert wrapped.sent == b"one\ntwo\nthree\nfour\n"
        assert not wrapped.outbox.busy
        assert wrapped.drained == 0

    def test_while_it_is_full_everything_waits(self, wrapped: Wrapped) -> None:
        """Nothing is written to a full transport; all of it goes out in order afterwards."""
        wrapped.outbox.pauseProducing()
        wrapped.outbox.send(b"one\n", 1)
        wrapped.outbox.push(b"two\n", 1)
        assert (wrapped.sent, wrapped.outbox.queued) == (b"", 8)
        wrapped.outbox.resumeProducing()
        wrapped.outbox.send(b"three\n", 1)
        assert wrapped.sent == b"one\ntwo\nthree\n"
        assert (wrapped.drained, wrapped.outbox.queued, wrapped.outbox.busy) == (1, 0, False)

    def test_above_the_high_water_mark_nothing_is_taken(self, wrapped: Wrapped) -> None:
        """Whoever sends is told that it was not taken; answers are, whose number is bounded."""
        wrapped.outbox.pauseProducing()
        assert wrapped.outbox.send(b"x" * (HIGH_WATER - 1), 1)
        assert wrapped.outbox.send(b"x" * HIGH_WATER, 1)
        queued = wrapped.outbox.queued
        assert not wrapped.outbox.send(b"refused", 1)
        assert wrapped.outbox.queued == queued
        wrapped.outbox.push(b"answer", 1)
        wrapped.outbox.resumeProducing()
        assert wrapped.sent == b"x" * queued + b"answer"
        assert wrapped.outbox.send(b"taken again", 1)

    def test_it_may_be_full_again_at_once(self, wrapped: Wrapped) -> None:
        """When what waited fills the transport again, it has not drained yet."""
        write = wrapped.transport.write

        def write_and_fill(data: bytes) -> None:
            write(data)
            wrapped.outbox.pauseProducing()

        wrapped.outbox.pauseProducing()
        wrapped.outbox.send(b"one\n", 1)
        wrapped.transport.write = write_and_fill  # type: ignore[method-assign]  # a full transport
        wrapped.outbox.resumeProducing()
        assert (wrapped.outbox.busy, wrapped.drained) == (True, 0)
        wrapped.outbox.resumeProducing()
        assert (wrapped.outbox.busy, wrapped.drained) == (False, 1)
        assert wrapped.sent == b"one\n"

    def test_progress_is_when_the_transport_last_had_room(self, wrapped: Wrapped) -> None:
        """A reader's stall counts from when it last took something, however often it is told."""
        wrapped.outbox.pauseProducing()
        wrapped.time.now += 5
        wrapped.outbox.pauseProducing()
        assert wrapped.outbox.progress == 100.0
        wrapped.outbox.resumeProducing()
        wrapped.time.now += 5
        wrapped.outbox.pauseProducing()
        assert wrapped.outbox.progress == 110.0

    @pytest.mark.parametrize("linger", [False, True])
    def test_the_end_waits_for_what_is_queued(self, wrapped: Wrapped, linger: bool) -> None:
        """A busy transport is closed when all is out, and the producer has let go before that."""
        wrapped.outbox.pauseProducing()
        wrapped.outbox.push(b"last words\n", 1)
        wrapped.outbox.end(linger=linger)
        assert not wrapped.transport.disconnecting
        wrapped.outbox.resumeProducing()
        assert wrapped.transport.disconnecting
        assert wrapped.transport.producer is None
        assert wrapped.sent == b"last words\n"

    @pytest.mark.parametrize("linger", [False, True])
    def test_an_idle_outbox_ends_at_once(self, wrapped: Wrapped, linger: bool) -> None:
        """With nothing queued there is nothing to wait for."""
        wrapped.outbox.end(linger=linger)
        assert wrapped.transport.disconnecting
        assert wrapped.transport.producer is None

    @pytest.mark.parametrize("lose", [Outbox.drop, Outbox.stopProducing])
    def test_after_the_peer_is_gone_all_goes_nowhere(
        self, wrapped: Wrapped, lose: Callable[[Outbox], None]
    ) -> None:
        """What waited is forgotten; what comes is taken, written nowhere, and not kept."""
        wrapped.outbox.pauseProducing()
        wrapped.outbox.push(b"x" * 5000, 1)
        lose(wrapped.outbox)
        assert wrapped.outbox.dead
        out = wrapped.outbox.bytes_out
        for _ in range(3):
            assert wrapped.outbox.send(b"x" * HIGH_WATER, 1)
            wrapped.outbox.push(b"x" * HIGH_WATER, 1)
        assert (wrapped.sent, wrapped.outbox.queued, wrapped.outbox.busy) == (b"", 0, False)
        assert wrapped.outbox.bytes_out == out

    @settings(deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.sampled_from(["full", "room"]),
                st.tuples(st.sampled_from(["send", "push"]), st.integers(1, 400)),
            )
        )
    )
    def test_every_byte_taken_arrives_once_and_in_order(self, steps: list[Any]) -> None:
        """Whatever happens in which order, what was taken is what arrives; the queue is bounded."""
        wrapped = Wrapped()
        outbox = wrapped.outbox
        taken, lines, pushed = b"", 0, 0
        for number, step in enumerate(steps):
            if step == "full":
                outbox.pauseProducing()
            elif step == "room":
                outbox.resumeProducing()
                assert outbox.queued == 0
                pushed = 0
            else:
                data = b"%d;" % number * step[1]
                if step[0] == "push":
                    outbox.push(data, 2)
                    pushed += len(data)
                elif not outbox.send(data, 2):
                    assert outbox.queued >= HIGH_WATER
                    continue
                taken += data
                lines += 2
            assert outbox.queued < HIGH_WATER + 400 * 4 + pushed
            assert outbox.bytes_out == len(wrapped.sent)
            assert outbox.queued == len(taken) - len(wrapped.sent)
        outbox.resumeProducing()
        assert wrapped.sent == taken
        assert outbox.lines_out == lines


@implementer(IHalfCloseableProtocol)
class End(Protocol):
    """One end of a connection: collects what comes, and tells when something happens."""

    transport: Any

    def __init__(self) -> None:
        """Begin with nothing."""
        self.received = bytearray()
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[BaseException] = Deferred()
        self.finished: Deferred[None] = Deferred()
        self._awaited: list[tuple[int, Deferred[None]]] = []

    def connectionMade(self) -> None:
        """The connection is there."""
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """Collect."""
        self.received += data
        due = [one for one in self._awaited if one[0] <= len(self.received)]
        self._awaited = [one for one in self._awaited if one not in due]
        for _, waiting in due:
            waiting.callback(None)

    def readConnectionLost(self) -> None:
        """The other end has sent its last byte."""
        self.finished.callback(None)

    def writeConnectionLost(self) -> None:
        """We have."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        assert reason.value is not None
        self.lost.callback(reason.value)

    def has(self, size: int) -> Deferred[None]:
        """Return what fires when so many bytes have come."""
        waiting: Deferred[None] = Deferred()
        self._awaited.append((size, waiting))
        self.dataReceived(b"")
        return waiting


class Joined:
    """A `DirectOutbox` on one end of a real connection, and its peer on the other."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        """Give both sockets to the reactor; the peer does not read yet."""
        self.time = Time()
        self.drained = 0
        self.end, self.peer = self._adopt(ours), self._adopt(theirs)
        self.peer.transport.pauseProducing()
        assert isinstance(self.end.transport, Connection)
        self._on_drained: list[Deferred[None]] = []
        self.outbox = DirectOutbox(self.end.transport, HIGH_WATER, self.time, self._drain)

    def has_drained(self) -> Deferred[None]:
        """Return what fires when the outbox next says that all is handed on."""
        waiting: Deferred[None] = Deferred()
        self._on_drained.append(waiting)
        return waiting

    def read(self) -> None:
        """Let the peer read from now on."""
        self.peer.transport.resumeProducing()

    def fill(self) -> bytes:
        """Send more than the kernel takes, and return it."""
        data = b"".join(b"%08d" % number for number in range(MUCH // 8))
        assert self.outbox.send(data, 1)
        assert self.outbox.busy
        return data

    @staticmethod
    def _adopt(end: socket.socket) -> End:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER)
        protocol = End()
        reactor.adoptStreamConnection(
            end.fileno(), end.family, Factory.forProtocol(lambda: protocol)
        )
        end.close()  # the reactor has its own
        return protocol

    def _drain(self) -> None:
        self.drained += 1
        waiting, self._on_drained = self._on_drained, []
        for one in waiting:
            one.callback(None)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return server, client


PAIRS: Final[dict[str, Callable[[], tuple[socket.socket, socket.socket]]]] = {
    "tcp": tcp_pair,
    "unix": socket.socketpair,
}


class TestDirect:
    """In front of a plain socket, with the kernel taking part."""

    @pytest.fixture(params=PAIRS)
    def joined(self, request: pytest.FixtureRequest) -> Iterator[Joined]:
        """Return a connection of each kind."""
        joined = Joined(*PAIRS[request.param]())
        yield joined
        for end in (joined.end, joined.peer):
            end.transport.abortConnection()

    def test_it_is_a_pull_producer(self, joined: Joined) -> None:
        """The transport asks for more exactly when it has sent what it was given."""
        assert joined.end.transport.producer is joined.outbox
        assert not joined.end.transport.streamingProducer

    @in_reactor
    async def test_what_the_kernel_takes_is_gone_at_once(self, joined: Joined) -> None:
        """A small send does not wait for the reactor: it is out before it returns."""
        assert joined.outbox.send(b"one\n", 1)
        joined.outbox.push(b"two\n", 1)
        assert joined.outbox.send(memoryview(b"three\n"), 1)
        assert (joined.outbox.busy, joined.outbox.queued) == (False, 0)
        assert (joined.outbox.bytes_out, joined.outbox.lines_out) == (14, 3)
        joined.read()
        await joined.peer.has(14)
        assert joined.peer.received == b"one\ntwo\nthree\n"
        assert joined.drained == 0

    @in_reactor
    async def test_what_it_does_not_take_follows_in_order(self, joined: Joined) -> None:
        """A peer that reads late gets every byte once, in the order of sending."""
        data = joined.fill()
        assert 0 < joined.outbox.bytes_out < len(data)
        assert joined.outbox.queued + joined.outbox.bytes_out == len(data)
        joined.outbox.push(b"answer one\n", 1)
        joined.outbox.push(b"answer two\n", 1)
        drained = joined.has_drained()
        joined.read()
        await drained
        assert (joined.outbox.busy, joined.outbox.queued) == (False, 0)
        joined.outbox.send(b"and then\n", 1)
        data += b"answer one\nanswer two\nand then\n"
        await joined.peer.has(len(data))
        assert joined.peer.received == data
        assert joined.outbox.bytes_out == len(data)
        assert joined.outbox.lines_out == 4
        assert joined.drained == 1

    @in_reactor
    async def test_the_kernel_may_take_nothing(self, joined: Joined) -> None:
        """When the kernel is full already, everything waits, and goes out when the peer reads."""
        filled = 0
        with suppress(BlockingIOError):
            while True:
                filled += joined.end.transport.getHandle().send(b"f" * BUFFER)
        assert joined.outbox.send(b"one\n", 1)
        assert joined.outbox.busy
        joined.outbox.push(b"two\n", 1)
        joined.read()
        await joined.peer.has(filled + 8)
        assert joined.peer.received == b"f" * filled + b"one\ntwo\n"

    @in_reactor
    async def test_it_drains_again_and_again(self, joined: Joined) -> None:
        """Each time the peer has caught up the outbox says so once, and goes straight again."""
        expected = b""
        for times in (1, 2):
            expected += joined.fill()
            drained = joined.has_drained()
            joined.read()
            await drained
            await joined.peer.has(len(expected))
            assert joined.peer.received == expected
            assert joined.drained == times
            joined.peer.transport.pauseProducing()

    @in_reactor
    async def test_above_the_high_water_mark_nothing_is_taken(self, joined: Joined) -> None:
        """While more waits than the mark, sends are refused and leave no trace."""
        data = joined.fill()
        queued, lines = joined.outbox.queued, joined.outbox.lines_out
        assert queued >= HIGH_WATER
        assert not joined.outbox.send(b"refused", 1)
        assert (joined.outbox.queued, joined.outbox.lines_out) == (queued, lines)
        joined.outbox.push(b"answer", 1)
        drained = joined.has_drained()
        joined.read()
        await drained
        assert joined.outbox.send(b"taken", 1)
        await joined.peer.has(len(data) + 11)
        assert joined.peer.received == data + b"answertaken"

    @in_reactor
    async def test_below_the_mark_sends_are_queued(self, joined: Joined) -> None:
        """A busy outbox takes sends up to its mark, behind what waits already."""
        data = joined.fill()
        joined.outbox.high_water = joined.outbox.queued + 20
        taken = b""
        while joined.outbox.send(b"0123456789", 1):
            taken += b"0123456789"
        assert taken == b"0123456789" * 2
        joined.read()
        await joined.peer.has(len(data + taken))
        assert joined.peer.received == data + taken

    @in_reactor
    async def test_progress_is_when_the_kernel_last_took_something(self, joined: Joined) -> None:
        """The time of progress is when it became busy, and then when the peer made room."""
        data = joined.fill()
        assert joined.outbox.progress == 100.0
        joined.time.now = 150.0
        joined.outbox.push(b"more", 1)
        assert joined.outbox.progress == 100.0
        drained = joined.has_drained()
        joined.read()
        await drained
        assert joined.outbox.progress == 150.0
        await joined.peer.has(len(data) + 4)

    @in_reactor
    async def test_a_slow_reader_makes_progress(self, joined: Joined) -> None:
        """Whoever takes something, though never all, is not taken for a stalled reader."""
        data = joined.fill()
        joined.time.now = 150.0
        joined.read()
        await joined.peer.has(len(data) // 2)
        joined.peer.transport.pauseProducing()
        assert joined.outbox.busy
        assert joined.outbox.progress == 150.0

    @pytest.mark.parametrize("linger", [False, True])
    @pytest.mark.parametrize("busy", [False, True])
    @in_reactor
    async def test_the_end_comes_after_the_last_byte(
        self, busy: bool, linger: bool, joined: Joined
    ) -> None:
        """The peer reads all that was sent, and then the end."""
        data = joined.fill() if busy else b""
        joined.outbox.push(b"last words\n", 1)
        joined.outbox.end(linger=linger)
        joined.read()
        await joined.peer.finished
        assert joined.peer.received == data + b"last words\n"

    @in_reactor
    async def test_without_lingering_both_directions_close(self, joined: Joined) -> None:
        """The connection is gone as soon as all is sent, in order."""
        joined.outbox.end(linger=False)
        assert isinstance(await joined.end.lost, ConnectionDone)

    @in_reactor
    async def test_lingering_reads_on(self, joined: Joined) -> None:
        """With linger what the peer still sends is read: it is not answered with a reset."""
        joined.outbox.push(b"go away\n", 1)
        joined.outbox.end(linger=True)
        joined.peer.transport.write(b"I was not done\n")
        await joined.end.has(15)
        joined.read()
        await joined.peer.finished
        assert joined.peer.received == b"go away\n"
        joined.peer.transport.loseConnection()
        await joined.end.finished
        assert not joined.end.lost.called

    @in_reactor
    async def test_a_peer_that_is_gone_takes_everything(self, joined: Joined) -> None:
        """A send to a peer that has broken the connection is no error, and nothing is kept."""
        joined.outbox.send(b"one\n", 1)
        sock = joined.peer.transport.getHandle()
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        joined.peer.transport.abortConnection()
        await joined.peer.lost
        assert joined.outbox.send(b"two\n", 1)
        assert joined.outbox.dead
        out = joined.outbox.bytes_out
        for _ in range(3):
            assert joined.outbox.send(b"x" * HIGH_WATER, 1)
            joined.outbox.push(b"x" * HIGH_WATER, 1)
        assert (joined.outbox.busy, joined.outbox.queued) == (False, 0)
        assert joined.outbox.bytes_out == out == 4

    @in_reactor
    async def test_a_peer_that_goes_while_it_is_busy(self, joined: Joined) -> None:
        """When the connection breaks, what waited is forgotten at once, and it says nothing."""
        joined.fill()
        joined.outbox.push(b"x" * 5000, 1)
        joined.peer.transport.abortConnection()
        await joined.end.lost
        assert joined.outbox.dead
        assert (joined.outbox.busy, joined.outbox.queued) == (False, 0)
        assert joined.outbox.send(b"nowhere", 1)
        assert joined.drained == 0
