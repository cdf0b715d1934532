"""A session: what it wants to see, how it is told things, and when all of it is sent."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from chatproto.address import LOCAL
from chatproto.cursor import Cursor
from chatproto.model import Event, Kind
from chatproto.outbox import WrappedOutbox
from chatproto.protocols.linecodec import CRLF, LF
from chatproto.session import Session
from chatproto.testing import Client, MemoryTransport, World


class Alone:
    """A session in no room, on a transport."""

    def __init__(self) -> None:
        """Connect it."""
        self.transport = MemoryTransport(IPv4Address("TCP", "127.0.0.1", 40_000))
        outbox = WrappedOutbox(
            self.transport, 1024, Clock().seconds, lambda: self.session.drained()
        )
        self.reasons: list[str] = []
        self.session = Session(7, LF, outbox, self.reasons.append, LOCAL, True, 1.5)

    def read(self) -> bytes:
        """Return what was sent since this was last asked."""
        data: bytes = self.transport.value()
        self.transport.clear()
        return data


@pytest.fixture
def alone() -> Alone:
    """A session in no room."""
    return Alone()


def said(sender: str, origin: int) -> Event:
    """Return something said."""
    return Event(1, 1, 0.0, "lobby", Kind.SAID, sender, "hi", origin, 0, "")


def test_a_new_session(alone: Alone) -> None:
    """A new session has no name, is in no room, ignores nobody and has nothing to catch up with."""
    session = alone.session
    assert (session.nick, session.room, session.away) == ("", "", "")
    assert not session.reply_to
    assert (session.ignored, session.behind) == ({}, frozenset())
    assert (session.connected_at, session.last_heard) == (1.5, 1.5)
    assert repr(session) == "<Session 7 anonymous>"
    session.nick = "alice"
    assert repr(session) == "<Session 7 alice>"


@pytest.mark.parametrize(
    ("event", "ignored", "wanted"),
    [
        (said("", 1), {}, True),
        (said("", 7), {}, False),
        (said("eve", 1), {"eve": None}, False),
        (said("EVE", 1), {"eve": None}, False),
        (said("bob", 1), {"eve": None}, True),
        (said("", 1), {"eve": None}, True),
    ],
)
def test_what_it_wants(
    alone: Alone, event: Event, ignored: dict[str, int | None], wanted: bool
) -> None:
    """A session wants what others say whom it does not ignore, never what it said itself."""
    alone.session.ignored = ignored
    assert alone.session.wants(event) is wanted


def test_what_it_is_told(alone: Alone) -> None:
    """Answers, errors and notices go out in the codec's forms, and their lines are counted."""
    session = alone.session
    session.answer("one\ntwo")
    session.error("wrong")
    session.codec = CRLF
    session.notice("three\nfour")
    assert alone.read() == b"-> one\n-> two\n! wrong\n* three\r\n* four\r\n"
    assert session.outbox.lines_out == 5


def test_flushed_at_once(alone: Alone) -> None:
    """With nothing waiting, all is sent already."""
    alone.session.answer("one")
    assert alone.session.flushed().called


def test_flushed_later(alone: Alone) -> None:
    """While the transport is full nothing counts as sent; when it has room all do who wait."""
    session = alone.session
    session.outbox.pauseProducing()
    session.answer("one")
    waiting = [session.flushed(), session.flushed()]
    assert not any(flushed.called for flushed in waiting)
    assert alone.transport.producer is not None
    alone.transport.producer.resumeProducing()
    assert all(flushed.called for flushed in waiting)
    assert alone.read() == b"-> one\n"


def test_flushed_includes_what_was_missed() -> None:
    """A session that is behind has everything only once it has caught up."""
    world = World(rate=0, high_water=1)
    speaker, slow = world.client(), world.client()
    slow.stop_reading()
    for number in range(1000):
        speaker.feed(b"%d\n" % number)
        world.turn(2)
    seen: list[int] = []
    flushed = slow.protocol.session.flushed()
    flushed.addCallback(lambda _: seen.append(slow.transport.value().count(b"\n")))
    slow.read_on()
    world.turn(50)
    assert seen == [1000]


def test_flushed_when_the_client_is_gone() -> None:
    """Nobody waits for a client that is gone."""
    world = World()
    client = world.client()
    client.stop_reading()
    client.send(b"/list\n")
    flushed = client.protocol.session.flushed()
    assert not flushed.called
    client.reset()
    assert flushed.called


def place(client: Client) -> Cursor:
    """Return the place of `client` in its room."""
    cursor = client.protocol.session.place
    assert isinstance(cursor, Cursor)
    return cursor


def test_what_it_has_surely_been_sent() -> None:
    """What waits in the outbox does not count as sent, until all of it is out."""
    world = World()
    speaker, reader = world.client(), world.client()
    session, cursor = reader.protocol.session, place(reader)
    session.outbox.stuck = session.note_stuck
    speaker.send(b"one\n")
    assert session.sent_up_to(cursor) == cursor.place == 1
    reader.stop_reading()
    speaker.send(b"two\n")
    speaker.send(b"three\n")
    assert (session.sent_up_to(cursor), cursor.place) == (1, 3)
    reader.read_on()
    assert session.sent_up_to(cursor) == cursor.place == 3


def test_what_it_has_surely_been_sent_while_it_is_behind() -> None:
    """Who falls behind has surely been sent what came before it began to wait; after each page is
    out, that page as well.
    """
    world = World(rate=0, high_water=1)
    speaker, slow = world.client(), world.client()
    session, cursor = slow.protocol.session, place(slow)
    session.outbox.stuck = session.note_stuck
    speaker.send(b"one\n")
    slow.stop_reading()
    for number in range(1000):
        speaker.feed(b"%d\n" % number)
        world.turn(2)
    assert session.sent_up_to(cursor) == 1
    assert 1 < cursor.place < 1001
    slow.read_on()
    world.turn(50)
    assert session.sent_up_to(cursor) == 1001
