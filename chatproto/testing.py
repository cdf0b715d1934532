r"""A whole chat in memory, for tests: bytes in, bytes out, and a clock that you wind.

    world = World(nicknames="required")
    alice, bob = world.client(), world.client()
    alice.send(b"alice\n")
    ...
    assert bob.received() == b"* alice joined (2 here)\n"

Nothing here opens a socket or waits. It is part of the package so that whoever embeds the chat can
test with it as we do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from chatproto.factory import ChatFactory
from chatproto.passwords import Hasher
from chatproto.settings import Settings
from chatproto.stores import Store
from chatproto.stores.memory import memory_store
from chatproto.threads import NoThreads

START = 1_700_000_000.0
"""The Unix time, in seconds, at which a world begins."""

READ = 64 * 1024
"""Bytes that are read at a time, as from a socket."""


class MemoryTransport(StringTransport):
    """A transport whose peer is a `Client`; it closes when it is told to."""

    def __init__(self, address: IAddress) -> None:
        """Be the connection of a peer at `address`."""
        super().__init__(peerAddress=address)
        self.disconnected = False
        self.aborted = False

    def loseConnection(self) -> None:
        """Close in the next turn, as real transports do, unless a producer has more to write."""
        self.disconnecting = True

    def abortConnection(self) -> None:
        """Close in the next turn, whatever is unsent."""
        self.aborted = True
        self.disconnecting = True

    def unregisterProducer(self) -> None:
        """Let the producer go; it may never have come."""
        if self.producer is not None:
            super().unregisterProducer()


class Client:
    """The far end of one connection in memory."""

    def __init__(self, world: World, protocol: Any, address: IAddress) -> None:
        """Connect `protocol` to this client."""
        self._world = world
        self._backlog = b""
        self.protocol = protocol
        self.transport = MemoryTransport(address)
        protocol.makeConnection(self.transport)

    @property
    def is_connected(self) -> bool:
        """Whether the server still has the connection."""
        return not self.transport.disconnected

    def send(self, data: bytes) -> None:
        """Send `data` to the server, and let the server have its turn.

        While the server does not read, `data` waits, as it would in the kernel.
        """
        self.feed(data)
        self._world.turn()

    def feed(self, data: bytes) -> None:
        """Send `data` without letting the server have its turn; nowhere, when it has hung up."""
        self._backlog += data
        self.pump()

    def pump(self) -> None:
        """Hand over what waits, if the server reads."""
        while self._backlog and self.is_connected and self.transport.producerState == "producing":
            data, self._backlog = self._backlog[:READ], self._backlog[READ:]
            self.protocol.dataReceived(data)

    def received(self) -> bytes:
        """Return what the server has sent since this was last asked."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def stop_reading(self) -> None:
        """Take no more bytes: the server is told that the transport is full."""
        self._producer.pauseProducing()

    def read_on(self) -> None:
        """Take bytes again."""
        self._producer.resumeProducing()
        self._world.turn()

    def close(self) -> None:
        """Close the connection in order."""
        self._lose(ConnectionDone())
        self._world.turn()

    def reset(self) -> None:
        """Break the connection."""
        self._lose(ConnectionAborted())
        self._world.turn()

    def finish_closing(self) -> None:
        """Do what a real transport does after the server has closed its side."""
        if self.transport.disconnecting and self.is_connected:
            self._lose(ConnectionAborted() if self.transport.aborted else ConnectionDone())

    @property
    def _producer(self) -> Any:
        return self.transport.producer

    def _lose(self, reason: Exception) -> None:
        if not self.is_connected:
            return
        self.transport.disconnected = True
        if self.transport.producer is not None:
            self.transport.producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))


class World:
    """A server in memory, with its clients."""

    def __init__(
        self,
        *,
        make_store: Callable[[Clock, Callable[[], float]], Store] = memory_store,
        checkers: Sequence[Any] = (),
        **settings: Any,
    ) -> None:
        """Start a server; the other keyword arguments are those of `Settings`.

        `make_store` is given the clock, and what tells the Unix time; the store is in memory by
        default, whatever the settings say.
        """
        self.clock = Clock()
        self.clock.rightNow = START
        self.store = make_store(self.clock, self.clock.seconds)
        self.factory = ChatFactory(
            Settings(**settings),
            clock=self.clock,
            now=self.clock.seconds,
            store=self.store,
            threads=NoThreads(),
            hasher=Hasher(time_cost=1, memory_cost=8),
            checkers=checkers,
        )
        self.factory.open()
        self.clients: list[Client] = []

    def client(self, host: str = "127.0.0.1") -> Client:
        """Connect a client from `host`, and let the server have its turn."""
        address = IPv4Address("TCP", host, 40_000 + len(self.clients))
        client = Client(self, self.factory.buildProtocol(address), address)
        self.clients.append(client)
        self.turn()
        return client

    def named(self, nick: str) -> Client:
        """Connect a client that has chosen `nick`, and forget what was sent to anyone so far."""
        client = self.client()
        client.send(f"/nick {nick}\n".encode())
        for other in self.clients:
            other.received()
        return client

    def turn(self, turns: int = 5) -> None:
        """Let the server do what it has put off to its next turns; no time passes."""
        for _ in range(turns):
            self.clock.advance(0)
            for client in self.clients:
                client.pump()
                client.finish_closing()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)
        self.turn()


__all__ = ["READ", "START", "Client", "MemoryTransport", "World"]
