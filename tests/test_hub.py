"""The hub: who is here, what they may do, and how what they publish comes back from the log."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from chatproto.accounts import Accounts
from chatproto.address import peer
from chatproto.errors import (
    BadName,
    ChatError,
    CommandError,
    NameReserved,
    NameTaken,
    NoSuchNick,
    NotAllowed,
    StoreError,
)
from chatproto.hub import Hub
from chatproto.model import Account, Draft, Kind, Page, Restriction, inbox
from chatproto.moderation import BAN, MUTE, Moderation
from chatproto.outbox import WrappedOutbox
from chatproto.passwords import Hasher
from chatproto.past import Past
from chatproto.protocols.linecodec import CRLF, LF
from chatproto.session import Session
from chatproto.stores import Deliver, Names, Refused, Store
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.testing import MemoryTransport
from chatproto.text import TRANSFORMS
from chatproto.threads import NoThreads

from .conftest import LoggedErrors

ADDRESS = IPv4Address("TCP", "127.0.0.1", 40_000)


class FullDisk(MemoryLog):
    """A log that stores nothing while its disk is full."""

    def __init__(self, clock: Clock, now: Callable[[], float], *, last_id: int = 0) -> None:
        """Begin with room on the disk."""
        super().__init__(clock, now, last_id=last_id)
        self.is_full = False
        self.is_unreadable = False

    def start(self, deliver: Deliver, refused: Refused) -> int:
        """Remember who is told of refusals."""
        self._refused = refused
        return super().start(deliver, refused)

    def append(self, drafts: Sequence[Draft]) -> None:
        """Refuse `drafts` in a later turn, if the disk is full."""
        if self.is_full:
            self._clock.callLater(0, self._refused, drafts, StoreError("the disk is full"))
        else:
            super().append(drafts)

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Fail, if nothing can be read."""
        if self.is_unreadable:
            return fail(StoreError("the disk reports an error"))
        return super().page(room, after=after, before=before, limit=limit)


class Hall:
    """A hub with sessions, without any protocol."""

    def __init__(
        self,
        names: Names | None = None,
        *,
        last_id: int = 0,
        directory: MemoryDirectory | None = None,
        replay: int = 0,
        kept: bool = True,
    ) -> None:
        """Open an empty hub whose log has given ids up to `last_id`."""
        self.clock = Clock()
        now = self.clock.seconds
        self.log = FullDisk(self.clock, now, last_id=last_id)
        self.directory = directory or MemoryDirectory()
        self.hub = Hub(
            Store(self.log, self.directory, names or LocalNames()),
            self.clock,
            TRANSFORMS["upper"],
            accounts=Accounts(
                self.directory,
                NoThreads(),
                now,
                now,
                hasher=Hasher(time_cost=1, memory_cost=8),
                operators=["Boss"],
            ),
            moderation=Moderation(self.directory, now),
            past=Past(self.log, self.directory, now, replay=replay, kept=kept),
            needs_nicks=False,
        )
        self.hub.start()
        self.transports: dict[int, MemoryTransport] = {}
        self.reasons: list[str] = []

    def session(self, room: str = "lobby") -> Session:
        """Connect a session and let it enter a room."""
        transport = MemoryTransport(ADDRESS)
        outbox = WrappedOutbox(transport, 65536, self.clock.seconds, lambda: session.drained())
        session = self.hub.connect(LF, outbox, self.reasons.append, peer(ADDRESS), is_secure=True)
        self.transports[session.id] = transport
        self.hub.enter(session, room)
        return session

    def owner(self, nick: str, room: str = "lobby") -> Session:
        """Connect the owner of an account, which is made if there is none."""
        account = Account(nick, "", False, 0.0, "local")
        self.directory.add_account(account)
        session = self.session(room)
        self.log_in(session, account)
        self.settle()
        return session

    def log_in(self, session: Session, account: Account) -> None:
        """Let `session` be the owner of `account`."""
        done(self.hub.log_in(session, account))

    def tell(self, session: Session, nick: str, text: str) -> None:
        """Say something to one person."""
        done(self.hub.tell(session, nick, text))

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


def done(work: Coroutine[Deferred[Any], Any, Any]) -> None:
    """Do what answers at once; raises what that raises."""
    finished: list[object] = []
    Deferred.fromCoroutine(work).addBoth(finished.append)
    (result,) = finished
    error = getattr(result, "value", None)
    if isinstance(error, ChatError):
        raise error


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
    hall.tell(alice, "bob", "1")
    hall.tell(carol, "bob", "2")
    hall.tell(alice, "bob", "3")
    assert hall.read(bob) == "[alice] 1\n[carol] 2\n[alice] 3\n"
    assert hall.read(alice) == "[to bob] 1\n[to bob] 3\n"
    assert hall.read(carol) == "[to bob] 2\n"
    assert bob.reply_to


def test_private_messages_follow_their_reader(hall: Hall) -> None:
    """A private message reaches who had the nick when it was written, under any new name."""
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.tell(alice, "bob", "hi")
    hall.name(bob, "bert")
    hall.hub.enter(bob, "den")
    assert hall.read(bob) == "[alice] hi\n"


def test_a_private_message_to_one_who_leaves(hall: Hall) -> None:
    """A private message to a guest who leaves before it is delivered is on its way, and harms
    nobody; after that nothing of the two is left.
    """
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.tell(alice, "bob", "hi")
    hall.hub.disconnect(bob)
    assert hall.read(bob) == "[alice] hi\n"
    assert "[to bob] hi\n" in hall.read(alice)
    assert [*hall.hub.rooms] == ["lobby", inbox(alice.id)]


@pytest.mark.parametrize("room", ["lobby", "den"])
def test_ignoring_survives_a_new_name(hall: Hall, room: str) -> None:
    """Who is ignored stays so under a new name, wherever the two are."""
    alice, bob = hall.named("alice", room), hall.named("bob")
    hall.settle()
    hall.hub.ignore(bob, "alice")
    hall.name(alice, "anne")
    hall.tell(alice, "bob", "hi")
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
    hall.tell(bob, "victim", "hello")
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
    hall.tell(alice, "bob", "3")
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


def test_topic_is_of_the_room(hall: Hall) -> None:
    """A topic belongs to its room and stays when everyone has left."""
    one = hall.named("one")
    done(hall.hub.set_topic(one, "cats"))
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


# The store.


def test_it_goes_on_from_the_log() -> None:
    """Who comes in after a restart has seen what the log held before; new ids come after those."""
    hall = Hall(last_id=41)
    one, two = hall.session(), hall.session()
    assert one.place is not None
    assert one.place.entered == 41
    hall.hub.say(one, "a")
    assert hall.read(two) == "A\n"
    assert one.place.room.head == 42


def test_restrictions_are_read_at_the_start() -> None:
    """What operators have forbidden before a restart holds for whoever comes after it."""
    directory = MemoryDirectory()
    directory.add_restriction(Restriction(BAN, "eve", 0.0, "boss", "", 0.0))
    directory.add_restriction(Restriction(MUTE, "127.0.0.0/8", 0.0, "boss", "rest", 0.0))
    hall = Hall(directory=directory)
    session = hall.session()
    with pytest.raises(NotAllowed, match=r"^Eve is banned$"):
        done(hall.hub.name(session, "Eve"))
    with pytest.raises(NotAllowed, match=r"^you are muted: rest$"):
        hall.hub.say(session, "hello")


class UnreadableDirectory(MemoryDirectory):
    """A directory whose restrictions cannot be read."""

    def restrictions(self) -> Deferred[Sequence[Restriction]]:
        """Fail."""
        return fail(StoreError("the disk reports an error"))


def test_restrictions_that_cannot_be_read(logged_errors: LoggedErrors) -> None:
    """A server that cannot read what is forbidden serves all the same, and its log tells."""
    hall = Hall(directory=UnreadableDirectory())
    assert logged_errors.take("bans and mutes cannot be read")
    one, two = hall.session(), hall.session()
    hall.hub.say(one, "a")
    assert hall.read(two) == "A\n"


def test_a_line_that_cannot_be_stored() -> None:
    """Who says what cannot be stored is told why, nobody else sees anything; then it works."""
    hall = Hall()
    one, two = hall.session(), hall.session()
    hall.log.is_full = True
    hall.hub.say(one, "a")
    assert hall.read(one) == "! your line was not sent: the disk is full\n"
    assert hall.read(two) == ""
    hall.log.is_full = False
    hall.hub.say(one, "b")
    assert hall.read(two) == "B\n"
    assert hall.read(one) == ""


def test_lines_that_cannot_be_stored() -> None:
    """Each sender is told once how many of its lines were refused together."""
    hall = Hall()
    alice, bob, gone = hall.named("alice"), hall.named("bob"), hall.named("gone")
    hall.settle()
    drafts = [
        *[Draft("lobby", Kind.SAID, "alice", "x", alice.id) for _ in range(3)],
        Draft("lobby", Kind.ACTION, "bob", "x", bob.id),
        Draft("lobby", Kind.SAID, "gone", "x", gone.id),
    ]
    hall.hub.disconnect(gone, None)
    hall.hub.refused(drafts, StoreError("the disk is full"))
    assert hall.read(alice) == "! 3 of your lines were not sent: the disk is full\n"
    assert hall.read(bob) == "! your line was not sent: the disk is full\n"
    assert hall.read(gone) == ""


def test_a_private_message_that_cannot_be_stored() -> None:
    """The sender of a private message is not shown that it was sent, but that it was not."""
    hall = Hall()
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.log.is_full = True
    hall.tell(alice, "bob", "hi")
    assert hall.read(alice) == "! your line was not sent: the disk is full\n"
    assert hall.read(bob) == ""


def test_notices_that_cannot_be_stored() -> None:
    """Coming, going and renaming still work; nobody is told of notices that nobody has sent."""
    hall = Hall()
    one, two = hall.session(), hall.session()
    hall.log.is_full = True
    hall.name(one, "one")
    hall.name(one, "uno")
    hall.hub.enter(one, "den")
    assert (hall.read(one), hall.read(two)) == ("", "")
    assert hall.hub.find("uno") is one


def test_settled_counts_what_was_refused() -> None:
    """What could not be stored is not waited for."""
    hall = Hall()
    one, two = hall.session(), hall.session()
    hall.hub.say(one, "a")
    hall.log.is_full = True
    hall.hub.say(one, "b")
    settled = hall.hub.settled()
    assert not settled.called
    hall.turn()
    assert settled.called
    assert hall.read(two) == "A\n"


def test_closing() -> None:
    """After the close nothing is published; it fires when the rest is delivered."""
    hall = Hall()
    one, two = hall.session(), hall.session()
    hall.hub.say(one, "a")
    closed = hall.hub.close()
    hall.hub.say(one, "b")
    assert not closed.called
    assert hall.read(two) == "A\n"
    assert closed.called


# Accounts.


def test_a_name_that_has_an_owner() -> None:
    """The nick of an account is its owner's, also while the owner is not here."""
    hall = Hall()
    hall.hub.disconnect(hall.owner("alice"))
    other = hall.session()
    with pytest.raises(NameTaken, match=r"^Alice is registered: /login Alice PASSWORD "):
        done(hall.hub.name(other, "Alice"))
    assert other.nick == ""


def test_an_owner_keeps_its_name() -> None:
    """Who is logged in writes its nick in another case, but cannot have another one."""
    hall = Hall()
    alice = hall.owner("alice")
    with pytest.raises(CommandError, match=r"^you are logged in as alice: /logout first$"):
        done(hall.hub.name(alice, "bob"))
    done(hall.hub.name(alice, "ALICE"))
    assert (alice.nick, alice.account) == ("ALICE", "alice")


def test_logging_in() -> None:
    """Who logs in has the nick and the inbox of its account, and may do what that may."""
    hall = Hall()
    other = hall.session()
    boss = hall.session()
    hall.log_in(boss, Account("boss", "", False, 0.0, "local"))
    assert (boss.nick, boss.account, boss.is_operator) == ("boss", "boss", True)
    assert boss.inbox is not None
    assert boss.inbox.room.name == inbox("boss")
    assert hall.read(other) == "* boss joined (2 here)\n"
    assert not hall.owner("alice").is_operator


def test_logging_out() -> None:
    """Who logs out has no nick, no inbox and no rights any more; the room hears of it."""
    hall = Hall()
    other, boss = hall.session(), hall.owner("boss")
    hall.settle()
    hall.hub.log_out(boss)
    assert (boss.nick, boss.account, boss.is_operator, boss.inbox) == ("", "", False, None)
    assert hall.read(other) == "* boss left (2 here): logged out\n"
    hall.hub.log_out(boss)
    assert hall.read(other) == ""


def test_taking_over_in_silence() -> None:
    """Who takes over from its own lost connection in the same room ends that one; no others are
    told.
    """
    hall = Hall()
    other, lost = hall.session(), hall.owner("alice")
    hall.settle()
    again = hall.session()
    hall.log_in(again, Account("alice", "", False, 0.0, "local"))
    assert hall.read(lost) == "! alice is taken over by another connection\n"
    assert hall.reasons == ["taken over"]
    assert hall.read(again) == "-> you are already connected: taking over\n"
    assert hall.read(other) == ""
    assert hall.hub.find("alice") is again
    assert lost.id not in hall.hub.sessions


@pytest.mark.parametrize(("room", "nick"), [("den", ""), ("lobby", "al")])
def test_taking_over_from_elsewhere(room: str, nick: str) -> None:
    """When others see a change, they are told: the lost connection leaves, the new one comes."""
    hall = Hall()
    other, lost = hall.session(), hall.owner("alice", room)
    again = hall.session()
    if nick:
        hall.name(again, nick)
    hall.settle()
    hall.log_in(again, Account("alice", "", False, 0.0, "local"))
    seen = hall.read(other).splitlines()
    assert seen[-1] == ("* al is now alice" if nick else "* alice joined (2 here)")
    assert len(seen) == (2 if nick else 1)
    assert hall.hub.find("alice") is again
    assert lost.id not in hall.hub.sessions


def test_what_is_on_its_way_at_a_take_over() -> None:
    """A private message that is not stored yet when its reader takes over reaches it all the
    same.
    """
    hall = Hall()
    bob, _ = hall.named("bob"), hall.owner("alice")
    again = hall.session()
    hall.settle()
    hall.tell(bob, "alice", "hi")
    hall.log_in(again, Account("alice", "", False, 0.0, "local"))
    done(hall.hub.show_missed(again, *again.cursors))
    assert "[bob] hi\n" in hall.read(again)


def test_a_private_message_to_an_owner_who_is_away() -> None:
    """What is written to an account that is not here is stored in its inbox, and comes later."""
    hall = Hall()
    bob = hall.named("bob")
    hall.hub.disconnect(hall.owner("alice"))
    hall.settle()
    hall.tell(bob, "ALICE", "hi")
    assert hall.read(bob) == (
        "-> alice is not here, and will read it on coming back\n[to alice] hi\n"
    )
    alice = hall.owner("alice")
    done(hall.hub.show_missed(alice, *alice.cursors))
    assert "[bob] hi" in hall.read(alice)


def test_nothing_waits_where_nothing_is_kept() -> None:
    """With the history off who writes to somebody who is not here is told that this is no use."""
    hall = Hall(kept=False)
    bob = hall.named("bob")
    hall.hub.disconnect(hall.owner("alice"))
    with pytest.raises(NoSuchNick, match=r"^alice is not here, and nothing is kept$"):
        hall.tell(bob, "alice", "hi")


def test_unregistering() -> None:
    """Whose account is removed goes on as a guest with the nick; what was written to it is gone."""
    hall = Hall()
    bob, alice = hall.named("bob"), hall.owner("alice")
    hall.tell(bob, "alice", "old")
    hall.settle()
    done(hall.hub.unregister("alice"))
    assert (alice.nick, alice.account) == ("alice", "")
    assert alice.inbox is not None
    assert alice.inbox.room.name == inbox(alice.id)
    hall.tell(bob, "alice", "new")
    assert hall.read(alice) == "[bob] new\n"
    pages: list[Page] = []
    hall.log.page(inbox("alice"), limit=10).addCallback(pages.append)
    assert pages == [Page(())]
    known: list[object] = []
    hall.directory.position("alice", "lobby").addCallback(known.append)
    hall.directory.account("alice").addCallback(known.append)
    assert known == [None, None]


def test_unregistering_while_away() -> None:
    """An account can be removed while nobody is logged in to it, and while a guest has its nick."""
    hall = Hall()
    hall.hub.disconnect(hall.owner("alice"))
    done(hall.hub.unregister("alice"))
    guest = hall.named("alice")
    done(hall.hub.unregister("alice"))
    assert (guest.nick, guest.account) == ("alice", "")


def test_the_inbox_of_a_guest_goes_with_it() -> None:
    """Nobody can ever come back to the inbox of a guest, so the log keeps nothing of it."""
    hall = Hall()
    alice, bob = hall.named("alice"), hall.named("bob")
    hall.settle()
    hall.tell(alice, "bob", "hi")
    assert hall.read(bob) == "[alice] hi\n"
    hall.hub.disconnect(bob)
    hall.turn()
    pages: list[Page] = []
    hall.log.page(inbox(bob.id), limit=10).addCallback(pages.append)
    assert pages == [Page(())]


# What was missed.


def test_what_was_missed() -> None:
    """An owner who comes back is shown what was said since, and then what is said now."""
    hall = Hall()
    bob, alice = hall.named("bob"), hall.owner("alice")
    done(hall.hub.show_missed(alice, *alice.cursors))
    hall.hub.say(bob, "seen")
    assert hall.read(alice) == "<bob> SEEN\n"
    hall.hub.disconnect(alice)
    hall.hub.say(bob, "missed")
    hall.turn()
    alice = hall.owner("alice")
    done(hall.hub.show_missed(alice, *alice.cursors))
    hall.hub.say(bob, "live")
    count, missed, live = hall.read(alice).splitlines()
    assert count == "-> while you were away: 1 line"
    assert missed.endswith(" <bob> MISSED")
    assert live == "<bob> LIVE"


def test_what_was_queued_when_it_broke_off() -> None:
    """What an owner who did not read was never sent counts as missed, in a room that it came to
    meanwhile as well, and in private.
    """
    hall = Hall()
    bob, alice = hall.named("bob", "den"), hall.owner("alice")
    done(hall.hub.show_missed(alice, *alice.cursors))
    alice.outbox.pauseProducing()
    hall.hub.enter(alice, "den")
    done(hall.hub.show_missed(alice, alice.place))
    hall.hub.say(bob, "unread")
    hall.tell(bob, "alice", "unread as well")
    hall.turn()
    hall.hub.disconnect(alice)
    hall.settle()
    again = hall.session("den")
    hall.log_in(again, Account("alice", "", False, 0.0, "local"))
    done(hall.hub.show_missed(again, *again.cursors))
    shown = hall.read(again)
    assert "<bob> UNREAD\n" in shown
    assert "[bob] unread as well\n" in shown


def test_who_logs_in_without_reading() -> None:
    """Who is waiting to read when it logs in has not been sent what comes then."""
    hall = Hall()
    bob = hall.named("bob")
    hall.hub.disconnect(hall.owner("alice"))
    alice = hall.session()
    alice.outbox.pauseProducing()
    hall.log_in(alice, Account("alice", "", False, 0.0, "local"))
    done(hall.hub.show_missed(alice, *alice.cursors))
    hall.tell(bob, "alice", "unread")
    hall.turn()
    hall.hub.disconnect(alice)
    hall.settle()
    again = hall.session()
    hall.log_in(again, Account("alice", "", False, 0.0, "local"))
    done(hall.hub.show_missed(again, *again.cursors))
    assert "[bob] unread\n" in hall.read(again)


def test_a_newcomer_is_shown_the_last_lines() -> None:
    """With a replay who comes for the first time is shown the last lines, then what is said."""
    hall = Hall(replay=2)
    bob = hall.named("bob")
    for word in ("one", "two", "three"):
        hall.hub.say(bob, word)
    hall.settle()
    new = hall.session()
    done(hall.hub.show_missed(new, *new.cursors))
    hall.hub.say(bob, "four")
    *shown, live = hall.read(new).splitlines()
    assert [line.split()[-1] for line in shown] == ["TWO", "THREE"]
    assert live == "<bob> FOUR"


@pytest.mark.parametrize(("replay", "kept"), [(0, True), (2, False)])
def test_nothing_was_missed(replay: int, kept: bool) -> None:
    """Where there is nothing to show nothing is shown, and what is said comes as ever."""
    hall = Hall(replay=replay, kept=kept)
    bob = hall.named("bob")
    hall.hub.say(bob, "one")
    hall.settle()
    new = hall.session()
    done(hall.hub.show_missed(new, *new.cursors, None))
    hall.hub.say(bob, "two")
    assert hall.read(new) == "<bob> TWO\n"


def test_what_was_missed_cannot_be_read() -> None:
    """Who cannot be shown what it missed is told so, and sees what is said from now on."""
    hall = Hall(replay=2)
    bob = hall.named("bob")
    hall.hub.say(bob, "one")
    hall.settle()
    hall.log.is_unreadable = True
    new = hall.session()
    done(hall.hub.show_missed(new, *new.cursors))
    assert hall.read(new) == "! what was said before cannot be shown: the disk reports an error\n"
    hall.log.is_unreadable = False
    hall.clock.advance(1)
    hall.hub.say(bob, "two")
    assert hall.read(new) == "<bob> TWO\n"
