"""The hub: who is here, what they may do, and how what they publish comes back from the log."""

from __future__ import annotations

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatproto.errors import BadName, NameReserved, NameTaken, NoSuchNick
from chatproto.hub import Hub
from chatproto.outbox import WrappedOutbox
from chatproto.protocols.linecodec import CRLF, LF
from chatproto.session import Session
from chatproto.stores import Names, Store
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.testing import MemoryTransport
from chatproto.text import TRANSFORMS

ADDRESS = IPv4Address("TCP", "127.0.0.1", 40_000)


class Hall:
    """A hub with sessions, without any protocol."""

    def __init__(self, names: Names | None = None) -> None:
        """Open an empty hub."""
        self.clock = Clock()
        log = MemoryLog(self.clock, self.clock.seconds)
        self.hub = Hub(
            Store(log, MemoryDirectory(), names or LocalNames()), self.clock, TRANSFORMS["upper"]
        )
        self.transports: dict[int, MemoryTransport] = {}
        self.reasons: list[str] = []

    def session(self, room: str = "lobby") -> Session:
        """Connect a session and let it enter a room."""
        transport = MemoryTransport(ADDRESS)
        outbox = WrappedOutbox(transport, 65536, self.clock.seconds, lambda: session.drained())
        session = self.hub.connect(LF, outbox, self.reasons.append)
        self.transports[session.id] = transport
        self.hub.enter(session, room)
        return session

    def named(self, nick: str, room: str = "lobby") -> Session:
        """Connect a session with a nick, and forget what was sent to anyone so far."""
        session = self.session(room)
        self.name(session, nick)
        self.settle()
        return session

    def name(self, session: Session, nick: str) -> Deferred[None]:
        """Ask for a nick."""
        return Deferred.fromCoroutine(self.hub.name(session, nick))

    def settle(self) -> None:
        """Deliver everything, and forget what was sent."""
        self.turn()
        for transport in self.transports.values():
            transport.clear()

    def turn(self) -> None:
        """Let a few turns of the reactor pass."""
        for _ in range(5):
            self.clock.advance(0)

    def read(self, session: Session) -> str:
        """Return what `session` has been sent since this was last asked."""
        self.turn()
        transport = self.transports[session.id]
        text: str = transport.value().decode()
        transport.clear()
        return text


@pytest.fixture
def hall() -> Hall:
    """An empty hub."""
    return Hall()


class SlowNames(LocalNames):
    """Names that somebody far away keeps: the answer comes when the test lets it."""

    def __init__(self) -> None:
        """Begin with no question open."""
        super().__init__()
        self.questions: list[tuple[Deferred[bool], str, int]] = []

    def claim(self, folded_nick: str, session: int) -> Deferred[bool]:
        """Keep the question."""
        answer: Deferred[bool] = Deferred()
        self.questions.append((answer, folded_nick, session))
        return answer

    def answer(self) -> None:
        """Answer the questions in their order."""
        questions, self.questions = self.questions, []
        for answer, folded_nick, session in questions:
            super().claim(folded_nick, session).addCallback(answer.callback)


def test_nothing_is_delivered_on_the_way_in(hall: Hall) -> None:
    """What is said comes to the others out of the log, never while it is being said."""
    one, two = hall.session(), hall.session()
    hall.hub.say(one, "hello")
    assert hall.transports[two.id].value() == b""
    assert hall.read(two) == "HELLO\n"
    assert hall.read(one) == ""


def test_session_ids_grow(hall: Hall) -> None:
    """Every client of a server has an id of its own, also after others have left."""
    first = hall.session()
    hall.hub.disconnect(first)
    assert hall.session().id > first.id


def test_rooms_are_apart(hall: Hall) -> None:
    """What is said in a room stays in it, and a room without members is gone."""
    one, two, three = hall.session(), hall.session("den"), hall.session("den")
    hall.hub.say(two, "hi")
    assert (hall.read(one), hall.read(three)) == ("", "HI\n")
    hall.hub.disconnect(one)
    assert [room.name for room in hall.hub.public_rooms()] == ["den"]


def test_a_message_said_before_leaving(hall: Hall) -> None:
    """What was said before its sender left the room is still said there."""
    one, two = hall.named("one"), hall.session()
    hall.hub.say(one, "last words")
    hall.hub.enter(one, "den")
    hall.hub.say(one, "elsewhere")
    assert hall.read(two) == "<one> LAST WORDS\n* one left (1 here)\n"


def test_disconnect_twice(hall: Hall) -> None:
    """A session that has left can be let go again: nobody is told twice."""
    one, two = hall.named("one"), hall.session()
    hall.hub.disconnect(one, "bye")
    hall.hub.disconnect(one, "bye")
    assert hall.read(two) == "* one left (1 here): bye\n"
    assert list(hall.hub.sessions) == [two.id]


@pytest.mark.parametrize(
    ("nick", "error"),
    [("a b", BadName), ("", BadName), ("root", NameReserved), ("BOB", NameTaken)],
)
def test_names_refused(hall: Hall, nick: str, error: type[Exception]) -> None:
    """A name that may not be had is refused, and the session keeps the one it has."""
    hall.named("bob")
    alice = hall.named("alice")
    failure = hall.name(alice, nick)
    failure.addErrback(lambda reason: reason.trap(error))
    assert failure.called
    assert alice.nick == "alice"
    assert hall.hub.find("Alice") is alice


def test_find(hall: Hall) -> None:
    """Somebody is found by its nick in any case, until it has another or has left."""
    alice = hall.named("alice")
    assert hall.hub.find("ALICE") is alice
    hall.name(alice, "anne")
    assert hall.hub.find("anne") is alice
    with pytest.raises(NoSuchNick):
        hall.hub.find("alice")
    hall.hub.disconnect(alice)
    with pytest.raises(NoSuchNick):
        hall.hub.find("anne")


def test_a_name_that_is_answered_late() -> None:
    """A name counts when it is granted, not before; of two who want it the first gets it."""
    names = SlowNames()
    hall = Hall(names)
    one, two = hall.session(), hall.session()
    first, second = hall.name(one, "x"), hall.name(two, "X")
    assert (one.nick, two.nick) == ("", "")
    second.addErrback(lambda reason: reason.trap(NameTaken))
    names.answer()
    assert first.called
    assert second.called
    assert (one.nick, two.nick) == ("x", "")


def test_a_name_that_is_answered_too_late() -> None:
    """A name that is granted to a session that has left meanwhile is free again."""
    names = SlowNames()
    hall = Hall(names)
    gone, other = hall.session(), hall.session()
    hall.name(gone, "x")
    hall.hub.disconnect(gone)
    names.answer()
    hall.name(other, "x")
    names.answer()
    assert hall.hub.find("x") is other
    assert hall.read(other) == ""


def test_private_messages_have_one_order(hall: Hall) -> None:
    """Private messages reach their reader in the order in which they were written."""
    alice, bob, carol = hall.named("alice"), hall.named("bob"), hall.named("carol")
    hall.settle()
    hall.hub.tell(alice, bob, "1")
    hall.hub.tell(carol, bob, "2")
    hall.hub.tell(alice, bob, "3")
    assert hall.read(bob) == "[alice] 1\n[carol] 2\n[alice] 3\n"
    assert hall.read(alice) == "[to bob] 1\n[to bob] 3\n"
    assert hall.read(carol) == "[to bob] 2\n"
    assert bob.reply_to


def test_private_messages_follow_their_reader(hall: Hall) -> None:
    """A private message reaches who had the nick when it was written, under any new name."""
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.hub.tell(alice, bob, "hi")
    hall.name(bob, "bert")
    hall.hub.enter(bob, "den")
    assert hall.read(bob) == "[alice] hi\n"


def test_a_private_message_to_one_who_leaves(hall: Hall) -> None:
    """A private message to somebody who leaves before it is delivered harms nobody."""
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.hub.tell(alice, bob, "hi")
    hall.hub.disconnect(bob)
    assert hall.read(bob) == ""
    assert "[to bob] hi\n" in hall.read(alice)


@pytest.mark.parametrize("room", ["lobby", "den"])
def test_ignoring_survives_a_new_name(hall: Hall, room: str) -> None:
    """Who is ignored stays so under a new name, wherever the two are."""
    alice, bob = hall.named("alice", room), hall.named("bob")
    hall.settle()
    hall.hub.ignore(bob, "alice")
    hall.name(alice, "anne")
    hall.hub.tell(alice, bob, "hi")
    hall.hub.enter(alice)
    hall.hub.say(alice, "hi")
    assert hall.read(bob) == ""


def test_ignoring_hits_nobody_else(hall: Hall) -> None:
    """The nicks that an ignored person has had in between are not ignored when others have them."""
    alice, victim = hall.named("alice"), hall.named("victim")
    hall.hub.ignore(victim, "alice")
    for nick in ("bob", "carol", "alice"):
        hall.name(alice, nick)
    bob = hall.named("bob")
    hall.settle()
    hall.hub.say(bob, "hi")
    hall.hub.tell(bob, victim, "hello")
    assert hall.read(victim) == "<bob> HI\n[bob] hello\n"
    assert len(victim.ignored) == 1


@pytest.mark.parametrize("nick", ["alice", "anne"])
def test_ignoring_ends_under_either_name(hall: Hall, nick: str) -> None:
    """Who was ignored and renamed is heard again by the old nick or the new one."""
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.hub.ignore(bob, "alice")
    hall.name(alice, "anne")
    hall.settle()
    assert hall.hub.unignore(bob, nick)
    assert not hall.hub.unignore(bob, nick)
    hall.hub.say(alice, "hi")
    assert hall.read(bob) == "<anne> HI\n"


def test_recode(hall: Hall) -> None:
    """A session that is sent another wire form goes on where it was, in its room and its inbox."""
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.hub.say(alice, "1")
    hall.hub.recode(bob, CRLF)
    hall.hub.say(alice, "2")
    hall.hub.tell(alice, bob, "3")
    assert hall.read(bob) == "<alice> 1\r\n<alice> 2\r\n[alice] 3\r\n"


def test_settled(hall: Hall) -> None:
    """It can be awaited that all that was said is delivered."""
    one = hall.session()
    assert hall.hub.settled().called
    hall.hub.say(one, "a")
    settled = hall.hub.settled()
    assert not settled.called
    hall.turn()
    assert settled.called


def test_history_is_bounded(hall: Hall) -> None:
    """One request gets at most 1000 lines of history, the last ones."""
    one = hall.session()
    for number in range(1500):
        hall.hub.say(one, str(number))
    hall.turn()
    events = hall.hub.history(one, 5000)
    found: list[str] = []
    Deferred.fromCoroutine(events).addCallback(
        lambda page: found.extend(event.text for event in page)
    )
    assert found == [str(number) for number in range(500, 1500)]


def test_topic_is_of_the_room(hall: Hall) -> None:
    """A topic belongs to its room and stays when everyone has left."""
    one = hall.named("one")
    Deferred.fromCoroutine(hall.hub.set_topic(one, "cats"))
    hall.hub.enter(one, "den")
    hall.hub.enter(one, "lobby")
    topics: list[tuple[str, str]] = []
    Deferred.fromCoroutine(hall.hub.topic(one)).addCallback(topics.append)
    assert topics == [("cats", "one")]


def test_a_session_tells_who_it_is(hall: Hall) -> None:
    """A session shows its id and its nick to who debugs."""
    alice, other = hall.named("alice"), hall.session()
    assert repr(alice) == f"<Session {alice.id} alice>"
    assert repr(other) == f"<Session {other.id} anonymous>"


def test_who_is_gone_opens_no_room(hall: Hall) -> None:
    """A session that has left enters no room, and leaves no empty one behind."""
    one = hall.session()
    hall.hub.disconnect(one)
    assert hall.hub.enter(one, "den").members == {}
    assert "den" not in hall.hub.rooms
    assert one.place is None
