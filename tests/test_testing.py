"""The world in memory, as those use it who embed the chat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.task import Clock

from chatproto import Settings
from chatproto.errors import SettingError
from chatproto.stores import Store
from chatproto.stores.memory import memory_store
from chatproto.testing import START, World


def test_the_example() -> None:
    """A world takes settings as `Settings` does; its clients send and receive bytes."""
    world = World(nicknames="required")
    alice, bob = world.client(), world.client()
    alice.send(b"alice\n")
    bob.send(b"bob\n")
    alice.received()
    bob.send(b"hi\n")
    assert alice.received() == b"<bob> HI\n"
    assert world.factory.settings == Settings(nicknames="required")


def test_wrong_settings() -> None:
    """A setting that is wrong is refused as everywhere."""
    with pytest.raises(SettingError, match="--nicknames"):
        World(nicknames="maybe")


def test_received_forgets() -> None:
    """What was received is returned once."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"a\n")
    assert two.received() == b"A\n"
    assert two.received() == b""


def test_feed_leaves_the_turn_to_the_test() -> None:
    """What is fed is delivered when the server has its turn, which takes no time."""
    world = World()
    one, two = world.client(), world.client()
    one.feed(b"a\n")
    assert two.received() == b""
    world.turn()
    assert two.received() == b"A\n"
    assert world.clock.seconds() == START


def test_waiting() -> None:
    """Time passes when the test says so."""
    world = World(burst=1, rate=1)
    one, two = world.client(), world.client()
    one.send(b"a\nb\n")
    assert two.received() == b"A\n"
    world.wait(0.5)
    assert two.received() == b""
    world.wait(0.5)
    assert two.received() == b"B\n"
    assert world.clock.seconds() == START + 1


def test_what_is_sent_waits_while_the_server_does_not_read() -> None:
    """While the server does not read from a client, what that sends waits as in a kernel."""
    world = World(burst=1, rate=1)
    one, two = world.client(), world.client()
    one.send(b"a\nb\n")
    read = one.protocol.bytes_in
    one.send(b"c\n")
    assert one.protocol.bytes_in == read
    for _ in range(3):
        world.wait(1)
    assert two.received() == b"A\nB\nC\n"
    assert one.protocol.bytes_in == read + 2


def test_not_reading() -> None:
    """A client that stops reading receives nothing until it reads on."""
    world = World()
    one, two = world.client(), world.client()
    two.stop_reading()
    one.send(b"a\n")
    assert two.received() == b""
    two.read_on()
    assert two.received() == b"A\n"


def test_closing() -> None:
    """Who closes or breaks its connection, or is closed, is connected no more."""
    world = World()
    one, two, three, four = (world.client() for _ in range(4))
    assert one.is_connected
    one.close()
    two.reset()
    three.send(b"/quit\n")
    assert not any(client.is_connected for client in (one, two, three))
    assert four.is_connected
    assert len(world.factory.protocols) == 1


def test_what_was_sent_before_the_close_can_be_read() -> None:
    """The last words of the server are received although the connection is gone."""
    client = World().client()
    client.send(b"/quit\n")
    assert client.received() == b"-> bye\n"


def test_aborting() -> None:
    """A connection that the server aborts is gone with what its client has not read."""
    world = World(nicknames="required")
    client = world.client()
    world.wait(60)
    assert not client.is_connected
    assert client.transport.aborted


def test_named() -> None:
    """Somebody with a nick is made in one step, and nobody has anything left to read."""
    world = World()
    other = world.client()
    alice = world.named("alice")
    assert (alice.received(), other.received()) == (b"", b"")
    other.send(b"/list\n")
    assert other.received() == b"-> in lobby: alice, 1 without a nick\n"


def test_addresses() -> None:
    """Clients come from where the test says, by default from loopback."""
    world = World(max_per_address=1)
    world.client()
    assert world.client().is_connected
    assert world.client("192.0.2.1").is_connected
    assert not world.client("192.0.2.1").is_connected
    assert world.client("192.0.2.2").is_connected


def test_a_store_of_ones_own() -> None:
    """A world keeps things in the store that it is given a maker of; that gets the world's time."""
    made: list[Store] = []

    def make_store(clock: Clock, now: Callable[[], float]) -> Store:
        assert clock.seconds() == now() == START
        made.append(memory_store(clock, now))
        return made[-1]

    world = World(make_store=make_store)
    assert [world.store] == made
    one, two = world.client(), world.client()
    one.send(b"a\n")
    assert two.received() == b"A\n"


def test_no_file_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever store the settings name, a world keeps everything in memory."""
    monkeypatch.chdir(tmp_path)
    world = World(store="rooms.db")
    world.named("alice").send(b"/register secret-words\n/history\n")
    assert list(tmp_path.iterdir()) == []


class Everyone:
    """A checker that lets everyone in."""

    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> bytes:
        """Let the user in."""
        name: bytes = credentials.username
        return name


def test_checkers_of_ones_own() -> None:
    """A world checks passwords with the checkers that it is given."""
    client = World(checkers=[Everyone()]).client()
    client.send(b"/login alice anything\n")
    assert client.received() == b"-> you are logged in as alice\n"
