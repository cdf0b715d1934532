"""The factory: who may come in, who is cut, and how everyone is let go."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from chatproto import ChatFactory
from chatproto.errors import SettingError, StoreError
from chatproto.model import Draft
from chatproto.stores import Deliver, Refused, Store, Topic
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.testing import Client, World

from .conftest import LoggedErrors


def connect(world: World, address: IAddress) -> Client:
    """Connect a client from any address."""
    client = Client(world, world.factory.buildProtocol(address), address)
    world.clients.append(client)
    world.turn()
    return client


def ipv6(host: str) -> IPv6Address:
    """Return an address."""
    return IPv6Address("TCP", host, 4711)


# Who may come in.


def test_limit_of_clients() -> None:
    """A client above the limit is told why and closed; when one has left there is room again."""
    world = World(max_clients=3)
    clients = [world.client() for _ in range(3)]
    late = world.client()
    assert late.received() == b"! the server is full (3 clients): try again later\n"
    assert not late.is_connected
    assert len(world.factory.protocols) == 3
    clients[0].close()
    assert world.client().is_connected
    assert not world.client().is_connected


@pytest.mark.parametrize(("files", "capacity"), [(564, 500), (1000, 936), (64, 1), (10, 1)])
def test_capacity(files: int, capacity: int) -> None:
    """By default 10,000 clients may come in, but never more than open files less 64."""
    world = World()
    assert world.factory.settings.max_clients == 10_000
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    try:
        assert world.factory.capacity == capacity
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


def test_limit_of_open_files() -> None:
    """Who comes when the files are used up is refused, whatever the setting says."""
    world = World(max_clients=1_000_000)
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (66, most))
    try:
        assert [world.client().is_connected for _ in range(4)] == [True, True, False, False]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))


@pytest.mark.parametrize(
    ("same", "another"),
    [
        pytest.param(
            [IPv4Address("TCP", "192.0.2.1", 1), IPv4Address("TCP", "192.0.2.1", 2)],
            IPv4Address("TCP", "192.0.2.2", 1),
            id="IPv4",
        ),
        pytest.param(
            [ipv6("2001:db8::1"), ipv6("2001:db8::ffff:1:2:3")],
            ipv6("2001:db8:0:1::1"),
            id="an IPv6 /64",
        ),
        pytest.param(
            [ipv6("::ffff:192.0.2.1"), IPv4Address("TCP", "192.0.2.1", 2)],
            ipv6("::ffff:192.0.2.2"),
            id="IPv4 in IPv6",
        ),
    ],
)
def test_limit_per_address(same: Sequence[IAddress], another: IAddress) -> None:
    """The 101st client from one address is told why and closed; others are not concerned."""
    world = World()
    clients = [connect(world, same[number % 2]) for number in range(100)]
    assert all(client.is_connected for client in clients)
    for address in same:
        late = connect(world, address)
        words = b"! your address has 100 connections already: close one first\n"
        assert late.received() == words
        assert not late.is_connected
    assert connect(world, another).is_connected
    clients[0].close()
    assert connect(world, same[1]).is_connected
    assert not connect(world, same[0]).is_connected


@pytest.mark.parametrize(
    "address",
    [
        IPv4Address("TCP", "127.0.0.1", 1),
        IPv4Address("TCP", "127.8.9.1", 1),
        ipv6("::1"),
        ipv6("::ffff:127.0.0.1"),
        UNIXAddress(""),
        None,
    ],
    ids=str,
)
def test_who_is_exempt(address: Any) -> None:
    """Clients from this machine are not limited by address."""
    world = World(max_per_address=1)
    assert all(connect(world, address).is_connected for _ in range(5))


def test_a_refused_client_that_does_not_close() -> None:
    """A refused client that neither reads nor closes is gone within 5 s."""
    world = World(max_clients=1)
    world.client()
    protocol = world.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
    late = Client(world, protocol, IPv4Address("TCP", "192.0.2.1", 1))
    assert late.received().startswith(b"! ")
    late.feed(b"hello\n")
    world.clock.advance(5)
    assert late.transport.aborted
    late.reset()
    assert len(world.factory.protocols) == 1


def test_clients_are_counted() -> None:
    """The factory holds the active protocols."""
    world = World()
    clients = [world.client() for _ in range(3)]
    assert world.factory.protocols == {client.protocol for client in clients}
    clients[1].reset()
    assert world.factory.protocols == {clients[0].protocol, clients[2].protocol}


@pytest.mark.parametrize("end", [Client.close, Client.reset])
def test_no_leak(end: Any) -> None:
    """Clients that come and go leave nothing behind."""
    world = World(max_per_address=1, max_clients=1)
    for _ in range(300):
        client = connect(world, IPv4Address("TCP", "192.0.2.1", 1))
        client.send(b"/nick alice\nhi")
        assert client.received() == b"-> you are now alice\n"
        end(client)
    world.wait(100)
    assert world.factory.protocols == set()
    assert world.factory.hub.sessions == {}
    assert world.factory.hub.rooms == {}
    assert world.clock.getDelayedCalls() == []


# What is logged.


def test_the_log_of_a_client() -> None:
    """A client's coming and going are logged in words, with its id, address, counts and reason."""
    world = World()
    with capturedLogs() as events:
        one = world.client("192.0.2.7")
        world.client()
        one.send(b"hello\n/list\n")
        world.wait(90)
        one.send("/quit grüß\n".encode())
    said = one.received()
    first, second, last = [formatEvent(event) for event in events]
    client = one.protocol.session.id
    port = one.transport.getPeer().port
    assert first == f"client {client} accepted from 192.0.2.7:{port}: 1 connected"
    assert second.endswith(": 2 connected")
    assert last == (
        f"client {client} closed after 90.0 s: quit; in 3 lines, {6 + 6 + 13} bytes; "
        f"out 2 lines, {len(said)} bytes"
    )


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (Client.close, "closed by the client"),
        (Client.reset, "lost: "),
        (lambda client: client.send(b"SSH-2.0-x\n"), "SSH is not spoken here"),
        (lambda client: client.send(b"x" * 70_000), "65536 bytes without a line end"),
        (lambda client: client.protocol.readConnectionLost(), "the client has finished"),
    ],
)
def test_why_a_client_was_closed(end: Any, why: str) -> None:
    """The log says why a connection ended."""
    world = World()
    client = world.client()
    with capturedLogs() as events:
        end(client)
        world.turn()
    assert f" s: {why}" in formatEvent(events[-1])


def test_a_refusal_is_logged() -> None:
    """Who is refused is in the log, with address and reason."""
    world = World(max_per_address=1)
    world.client("192.0.2.7")
    with capturedLogs() as events:
        world.client("192.0.2.7")
    (line,) = [formatEvent(event) for event in events]
    assert line.startswith("refused 192.0.2.7:")
    assert line.endswith(": your address has 1 connections already: close one first")


# Readers that stall.


@pytest.fixture
def stall_world() -> World:
    """A world whose readers may stall for 60 s, with the ports open."""
    world = World(rate=0, high_water=1, stall=60)
    world.factory.doStart()
    return world


def test_a_stalled_reader_is_closed(stall_world: World) -> None:
    """A reader that has taken nothing for the stall time is closed, and the log says why."""
    world = stall_world
    speaker, stalled = world.client(), world.client()
    stalled.stop_reading()
    with capturedLogs() as events:
        for _ in range(59):
            speaker.send(b"x" * 500 + b"\n")
            world.wait(1)
        assert stalled.is_connected
        world.wait(16)
    assert not stalled.is_connected
    assert speaker.is_connected
    assert "accepted nothing for 60 s" in formatEvent(events[-1])
    world.factory.doStop()


def test_a_slow_reader_is_not_closed(stall_world: World) -> None:
    """A reader that takes something now and then stays, however far behind it is."""
    world = stall_world
    speaker, slow = world.client(), world.client()
    for _ in range(20):
        slow.stop_reading()
        for _ in range(20):
            speaker.send(b"x" * 500 + b"\n")
        world.wait(50)
        assert slow.transport.producer is not None
        slow.transport.producer.resumeProducing()
    assert slow.is_connected
    world.factory.doStop()


def test_an_idle_client_is_not_closed(stall_world: World) -> None:
    """Who has nothing to read may be idle for ever."""
    idle = stall_world.client()
    for _ in range(100):
        stall_world.wait(60)
    assert idle.is_connected
    stall_world.factory.doStop()
    assert stall_world.clock.getDelayedCalls() == []


# The message of the day.


def test_reload_keeps_the_old_message(tmp_path: Path) -> None:
    """When the message of the day cannot be read again the old one stays."""
    file = tmp_path / "motd"
    file.write_text("hello\n")
    world = World(motd=f"@{file}")
    file.unlink()
    with pytest.raises(SettingError, match="motd"):
        world.factory.reload()
    assert world.client().received() == b"* hello\n"


def test_a_message_that_cannot_be_read(tmp_path: Path) -> None:
    """A factory is not made when its message of the day cannot be read."""
    with pytest.raises(SettingError, match="--motd"):
        World(motd=f"@{tmp_path / 'none'}")


# The end.

STOPPING = b"* the server is stopping\n"


def drain(world: World) -> list[None]:
    """Let everyone go; the list has an element once that is done."""
    done: list[None] = []
    world.factory.drain().addCallback(done.append)
    return done


def test_drain_with_nobody_there() -> None:
    """With no client there is nothing to wait for."""
    world = World()
    assert drain(world)
    world.wait(100)
    assert world.clock.getDelayedCalls() == []


def test_drain() -> None:
    """What was said is delivered, everyone is told and closed, nobody else gets in."""
    world = World()
    one, two = world.named("one"), world.client()
    one.feed(b"last words\n")
    drained = drain(world)
    late = world.client()
    world.turn()
    assert two.received() == b"<one> LAST WORDS\n" + STOPPING
    assert one.received() == STOPPING
    assert not one.is_connected
    assert not two.is_connected
    assert drained
    assert late.received() == b"! the server is stopping\n"
    assert not late.is_connected
    world.wait(100)
    assert world.clock.getDelayedCalls() == []


def test_drain_takes_no_more_lines() -> None:
    """What comes while the server stops is not said."""
    world = World()
    slow, one, two = world.client(), world.client(), world.client()
    slow.stop_reading()
    world.factory.drain()
    one.feed(b"too late\n")
    world.turn()
    assert two.received() == STOPPING


def test_drain_reports_pasted_lines() -> None:
    """Who has pasted more than has been passed on is told how many lines were not sent."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"x\n" * 150)
    one.received()
    drained = drain(world)
    world.turn()
    assert one.received() == b"! 50 of your lines were not sent\n" + STOPPING
    assert two.received() == b"X\n" * 100 + STOPPING
    assert drained


def test_drain_after_a_paster_has_left() -> None:
    """Lines of somebody who has left do not hold up the end."""
    world = World()
    one, two = world.client(), world.client()
    one.feed(b"x\n" * 150)
    one.close()
    drained = drain(world)
    world.turn()
    assert two.received().endswith(STOPPING)
    assert drained
    world.wait(100)
    assert world.clock.getDelayedCalls() == []


def slow_world(**settings: Any) -> tuple[World, Client, Client]:
    """Return a world in which the second client is behind by 200 lines."""
    world = World(rate=0, high_water=1, **settings)
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    for number in range(200):
        speaker.send(b"line %d\n" % number)
    return world, speaker, slow


def test_drain_waits_for_a_slow_reader() -> None:
    """A slow reader that reads on in time gets all that was said, then the notice."""
    world, speaker, slow = slow_world()
    drained = drain(world)
    world.turn()
    assert speaker.received() == STOPPING
    assert not speaker.is_connected
    world.wait(9)
    assert slow.is_connected
    assert not drained
    slow.read_on()
    world.turn(20)
    assert slow.received() == b"".join(b"LINE %d\n" % number for number in range(200)) + STOPPING
    assert not slow.is_connected
    assert drained
    world.wait(100)
    assert world.clock.getDelayedCalls() == []


@pytest.mark.parametrize("seconds", [10, 3, 60])
def test_drain_has_a_deadline(seconds: int) -> None:
    """A slow reader that does not read on in time is cut, and that is the end."""
    world, _, slow = slow_world(drain=seconds)
    drained = drain(world)
    world.wait(seconds - 0.1)
    assert slow.is_connected
    assert not drained
    with capturedLogs() as events:
        world.wait(0.1)
    assert not slow.is_connected
    assert drained
    assert any("cutting off 1 clients" in formatEvent(event) for event in events)
    world.wait(100)
    assert world.clock.getDelayedCalls() == []


def test_drain_in_no_time() -> None:
    """With a drain time of 0 whoever reads is told, and nobody is waited for."""
    world, _, slow = slow_world(drain=0)
    drained = drain(world)
    world.wait(0)
    assert not slow.is_connected
    assert drained


def test_end_now() -> None:
    """Everybody can be cut at once, which ends a drain."""
    world, _, slow = slow_world()
    drained = drain(world)
    world.turn()
    assert not drained
    world.factory.end_now()
    world.turn()
    assert not slow.is_connected
    assert drained


# Errors in the server.


class BrokenDirectory(MemoryDirectory):
    """A directory whose topics cannot be read, as on a broken disk."""

    def topic(self, room: str) -> Deferred[Topic]:
        """Fail."""
        return fail(OSError("the directory is broken"))


class BrokenLog(MemoryLog):
    """A log that raises for one text."""

    def append(self, drafts: Sequence[Draft]) -> None:
        """Raise for what is broken."""
        if any(draft.text == "BROKEN" for draft in drafts):
            raise OSError("the log is broken")
        super().append(drafts)


@pytest.fixture
def broken() -> World:
    """A world whose store fails now and then."""
    return World(
        make_store=lambda clock, now: Store(BrokenLog(clock, now), BrokenDirectory(), LocalNames())
    )


def test_an_error_in_a_command(broken: World, logged_errors: LoggedErrors) -> None:
    """An error in carrying out a command ends that client only, and is logged with traceback."""
    alice, bob, bad = broken.named("alice"), broken.named("bob"), broken.named("bad")
    bad.send(b"before\n/topic\nafter\n")
    assert not bad.is_connected
    assert alice.received() == bob.received() == b"<bad> BEFORE\n* bad left (2 here)\n"
    event = logged_errors.take("the directory is broken")
    assert formatEvent(event) == f"client {bad.protocol.session.id} failed"
    bob.send(b"still here\n")
    assert alice.received() == b"<bob> STILL HERE\n"


def test_an_error_in_a_later_turn(broken: World, logged_errors: LoggedErrors) -> None:
    """An error in a line that had to wait ends that client only, and is logged."""
    alice, bob, bad = broken.named("alice"), broken.named("bob"), broken.named("bad")
    bad.send(b"x\n" * 90 + b"broken\nafter\n")
    assert not bad.is_connected
    assert alice.received() == b"<bad> X\n" * 90 + b"* bad left (2 here)\n"
    assert logged_errors.take("the log is broken")
    bob.received()
    alice.send(b"still here\n")
    assert bob.received() == b"<alice> STILL HERE\n"
    assert len(broken.factory.protocols) == 2


@pytest.mark.parametrize("before", [0, 90])
def test_drain_after_an_error(broken: World, logged_errors: LoggedErrors, before: int) -> None:
    """After an error in one client the server still serves, lets go of clients, and stops."""
    one, two, bad = broken.client(), broken.client(), broken.client()
    try:
        bad.send(b"x\n" * before + b"broken\n")
    except OSError as error:  # as the reactor would do with it
        bad.protocol.connectionLost(Failure(error))
    else:
        assert logged_errors.take("the log is broken")
    one.feed(b"last words")
    one.protocol.readConnectionLost()
    broken.turn()
    assert not one.is_connected
    assert two.received() == b"X\n" * before + b"LAST WORDS\n"
    drained = drain(broken)
    broken.wait(10)
    assert two.received() == STOPPING
    assert drained


def test_it_needs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory can be made without any argument, with the defaults and the running reactor; it
    makes no file before it is opened.
    """
    from twisted.internet import reactor

    monkeypatch.chdir(tmp_path)
    factory = ChatFactory()
    assert factory.clock is reactor
    assert factory.settings.nicknames == "optional"
    assert list(tmp_path.iterdir()) == []


def test_the_store_opens_in_a_later_turn() -> None:
    """Who listens may become another process first, so listening itself opens no store."""
    clock = Clock()
    opened: list[str] = []

    class NotedLog(MemoryLog):
        def start(self, deliver: Deliver, refused: Refused) -> int:
            opened.append("opened")
            return super().start(deliver, refused)

    log = NotedLog(clock, clock.seconds)
    factory = ChatFactory(clock=clock, store=Store(log, MemoryDirectory(), LocalNames()))
    factory.doStart()
    assert opened == []
    clock.advance(0)
    factory.open()
    assert opened == ["opened"]
    factory.doStop()


def test_a_line_that_cannot_be_stored_at_the_end() -> None:
    """A store that refuses the last lines does not hold up the end; their senders are told."""

    class FullDisk(MemoryLog):
        def start(self, deliver: Deliver, refused: Refused) -> int:
            self._refused = refused
            return super().start(deliver, refused)

        def append(self, drafts: Sequence[Draft]) -> None:
            self._clock.callLater(0, self._refused, drafts, StoreError("the disk is full"))

    world = World(
        make_store=lambda clock, now: Store(FullDisk(clock, now), MemoryDirectory(), LocalNames())
    )
    one, two = world.client(), world.client()
    one.feed(b"last words\n")
    drained = drain(world)
    world.turn()
    assert one.received() == b"! your line was not sent: the disk is full\n" + STOPPING
    assert two.received() == STOPPING
    assert drained
