"""What the hub relies on, of every store alike: the ports of `chatproto.stores`.

A further store is one more entry in `STORES`. The tests run on the real reactor, because a store
may have threads and connections of its own, and wait for events, never for time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from itertools import count
from typing import Any, Final, ParamSpec

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from chatproto.model import Draft, Event, Kind, inbox
from chatproto.stores import Store, Topic
from chatproto.stores.memory import memory_store

Make = Callable[[Any, Callable[[], float]], Store]
"""Makes an empty store, from a reactor and what tells the Unix time."""

STORES: Final[dict[str, Make]] = {"memory": memory_store}

DEADLINE: Final = 10.0
"""Seconds after which a store that does not answer fails its test."""

P = ParamSpec("P")


def in_reactor(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Deferred[None]]:
    """Let a coroutine be a test of pytest-twisted's, with a deadline."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> Deferred[None]:
        clock: Any = reactor
        return Deferred.fromCoroutine(test(*args, **kwargs)).addTimeout(DEADLINE, clock)

    return run


def draft(text: str, room: str = "lobby", kind: Kind = Kind.SAID) -> Draft:
    """Return a draft of a text."""
    return Draft(room, kind, "alice", text, 7)


def texts(events: Sequence[Event]) -> list[str]:
    """Return what the events say."""
    return [event.text for event in events]


class Opened:
    """A store that is open, and what it has delivered."""

    def __init__(self, make: Make) -> None:
        """Open a store and collect what it delivers."""
        self.time = 1_700_000_000.0
        self.store = make(reactor, lambda: self.time)
        self.log, self.directory, self.names = self.store
        self.delivered: list[Event] = []
        self.on_delivery: Callable[[Sequence[Event]], None] = lambda events: None
        self._awaited: list[tuple[int, Deferred[None]]] = []
        self.log.start(self._deliver)

    def has(self, number: int) -> Awaitable[None]:
        """Return what fires when so many events have been delivered."""
        waiting: Deferred[None] = Deferred()
        self._awaited.append((number, waiting))
        self._check()
        return waiting

    async def say(self, *words: str, room: str = "lobby") -> list[Event]:
        """Append a draft for each word in one piece, and return the events once delivered."""
        before = len(self.delivered)
        self.log.append([draft(word, room) for word in words])
        await self.has(before + len(words))
        return self.delivered[before:]

    def _deliver(self, events: Sequence[Event]) -> None:
        self.delivered += events
        self.on_delivery(events)
        self._check()

    def _check(self) -> None:
        due = [one for one in self._awaited if one[0] <= len(self.delivered)]
        self._awaited = [one for one in self._awaited if one not in due]
        for _, waiting in due:
            waiting.callback(None)


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Return an empty store of each kind, open."""
    opened = Opened(STORES[request.param])
    yield opened
    opened.log.stop()


class TestAppending:
    """Drafts in, events out."""

    @in_reactor
    async def test_an_event_is_its_draft(self, opened: Opened) -> None:
        """Every field of a draft comes back in its event, with the time of the store's clock."""
        sent = Draft("den", Kind.PRIVATE, "alice", "grüß dich", 7, here=3, to="bob")
        opened.log.append((sent,))
        await opened.has(1)
        (event,) = opened.delivered
        assert Draft(*event[3:]) == sent
        assert event.time == opened.time

    @pytest.mark.parametrize("kind", Kind)
    @in_reactor
    async def test_every_kind_passes(self, kind: Kind, opened: Opened) -> None:
        """Notices pass through the log's order like what is said."""
        opened.log.append((draft("x", kind=kind),))
        await opened.has(1)
        assert opened.delivered[0].kind is kind

    @in_reactor
    async def test_nothing_is_delivered_before_append_returns(self, opened: Opened) -> None:
        """Whoever appends has finished before anything is delivered: no room changes meanwhile."""
        for number in range(100):
            opened.log.append((draft(str(number)),))
            assert opened.delivered == []
        await opened.has(100)

    @in_reactor
    async def test_order_is_the_order_of_appending(self, opened: Opened) -> None:
        """Events come in the order of their drafts, however these are cut into pieces."""
        numbers = count()
        for size in (1, 3, 0, 2, 50, 1):
            opened.log.append([draft(str(next(numbers))) for _ in range(size)])
        await opened.has(57)
        assert texts(opened.delivered) == [str(number) for number in range(57)]

    @in_reactor
    async def test_what_is_appended_while_delivering_comes_later(self, opened: Opened) -> None:
        """An answer to an event that is given while it is delivered comes after all before it."""

        def answer(events: Sequence[Event]) -> None:
            answers = [draft(f"re: {event.text}") for event in events if len(event.text) == 1]
            before = len(opened.delivered)
            opened.log.append(answers)
            assert len(opened.delivered) == before

        opened.on_delivery = answer
        opened.log.append([draft("a"), draft("b")])
        await opened.has(4)
        assert texts(opened.delivered) == ["a", "b", "re: a", "re: b"]

    @in_reactor
    async def test_each_is_delivered_once(self, opened: Opened) -> None:
        """Nothing is delivered twice: not with the next piece, and not when the log stops."""
        await opened.say("a", "b")
        await opened.say("c")
        await opened.log.stop()
        assert texts(opened.delivered) == ["a", "b", "c"]


class TestNumbers:
    """Ids, and numbers in the room."""

    @in_reactor
    async def test_ids_only_grow(self, opened: Opened) -> None:
        """Ids grow over all rooms, also when the clock is set back."""
        for number in range(20):
            await opened.say(*"ab", room=f"room{number % 3}")
            opened.time -= 3600.0
        ids = [event.id for event in opened.delivered]
        assert ids == sorted(set(ids))
        assert all(type(event_id) is int and event_id > 0 for event_id in ids)

    @in_reactor
    async def test_numbers_in_a_room_have_no_gaps(self, opened: Opened) -> None:
        """In each room events are counted from 1 without a gap, whatever is said elsewhere."""
        rooms = ["lobby", "den", inbox(7)]
        opened.log.append([draft("x", rooms[number * number % 3]) for number in range(50)])
        await opened.say("x", room="den")
        await opened.say("x", "y", room=inbox(7))
        for room in rooms:
            numbers = [event.seq for event in opened.delivered if event.room == room]
            assert numbers == list(range(1, len(numbers) + 1))


class TestPaging:
    """Reading back."""

    @in_reactor
    async def test_a_room_that_nothing_was_said_in(self, opened: Opened) -> None:
        """A room without events is an empty page, from either end."""
        await opened.say("elsewhere")
        assert not (await opened.log.page("den", limit=10)).events
        assert not (await opened.log.page("den", after=0, limit=10)).events
        assert not (await opened.log.page("den", before=10, limit=10)).events

    @in_reactor
    async def test_what_is_read_is_what_was_delivered(self, opened: Opened) -> None:
        """A page has the very events of its room that were delivered, and of no other."""
        opened.log.append([draft(str(number), "ab"[number % 2]) for number in range(10)])
        await opened.has(10)
        for room in "ab":
            page = await opened.log.page(room, limit=100)
            assert [*page.events] == [event for event in opened.delivered if event.room == room]

    @in_reactor
    async def test_delivered_events_can_be_read(self, opened: Opened) -> None:
        """Nobody sees an event that the log lacks: at its delivery it can be read already."""
        pages: list[Deferred[Any]] = []
        opened.on_delivery = lambda events: pages.append(
            opened.log.page("lobby", before=events[-1].id + 1, limit=len(events))
        )
        await opened.say("a")
        await opened.say("b", "c")
        read = [event for page in pages for event in (await page).events]
        assert read == opened.delivered

    @pytest.mark.parametrize("limit", [1, 2, 9, 10, 11])
    @in_reactor
    async def test_the_last_ones(self, limit: int, opened: Opened) -> None:
        """Without a place a page is the end of the room, the oldest first."""
        events = await opened.say(*"abcdefghij")
        page = await opened.log.page("lobby", limit=limit)
        assert [*page.events] == events[-limit:]

    @pytest.mark.parametrize("limit", [1, 3, 10, 11])
    @pytest.mark.parametrize("place", range(10))
    @in_reactor
    async def test_before_and_after_an_id(self, place: int, limit: int, opened: Opened) -> None:
        """`after` gives the next ones after that id, `before` the last ones before it."""
        events = await opened.say(*"abcdefghij")
        after = await opened.log.page("lobby", after=events[place].id, limit=limit)
        assert [*after.events] == events[place + 1 :][:limit]
        before = await opened.log.page("lobby", before=events[place].id, limit=limit)
        assert [*before.events] == events[:place][-limit:]

    @in_reactor
    async def test_an_id_of_another_room_is_a_place_too(self, opened: Opened) -> None:
        """Any id will do as a place, of this room or not, before all of them or after."""
        (first,) = await opened.say("first")
        (other,) = await opened.say("other", room="den")
        (last,) = await opened.say("last")
        assert [*(await opened.log.page("lobby", after=other.id, limit=9)).events] == [last]
        assert [*(await opened.log.page("lobby", before=other.id, limit=9)).events] == [first]
        assert [*(await opened.log.page("lobby", after=0, limit=9)).events] == [first, last]
        assert not (await opened.log.page("lobby", after=last.id + 100, limit=9)).events
        assert not (await opened.log.page("lobby", before=first.id, limit=9)).events

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    @in_reactor
    async def test_page_after_page_is_everything(self, limit: int, opened: Opened) -> None:
        """Paging on from the last id read gives every event once, in order, in both directions."""
        events = await opened.say(*map(str, range(20)))
        forward: list[Event] = []
        while page := (
            await opened.log.page("lobby", after=forward[-1].id if forward else 0, limit=limit)
        ).events:
            forward += page
        backward: list[Event] = []
        while page := (
            await opened.log.page("lobby", before=backward[0].id if backward else None, limit=limit)
        ).events:
            backward = [*page, *backward]
        assert forward == backward == events

    @in_reactor
    async def test_a_page_stays_as_it_was(self, opened: Opened) -> None:
        """What is said later does not grow a page that was read before."""
        await opened.say("a")
        page = await opened.log.page("lobby", limit=10)
        await opened.say("b")
        assert texts(page.events) == ["a"]


class TestStopping:
    """The end of a log."""

    @in_reactor
    async def test_what_is_queued_is_delivered(self, opened: Opened) -> None:
        """When the stop has fired, everything appended before it has been delivered, in order."""
        opened.log.append([draft("a"), draft("b")])
        opened.log.append([draft("c")])
        await opened.log.stop()
        assert texts(opened.delivered) == ["a", "b", "c"]

    @in_reactor
    async def test_an_idle_log_stops(self, opened: Opened) -> None:
        """A log that has nothing to deliver stops without delivering anything."""
        await opened.log.stop()
        assert opened.delivered == []


class TestTopics:
    """The directory."""

    @in_reactor
    async def test_a_room_has_no_topic_at_first(self, opened: Opened) -> None:
        """A topic that nobody has set is empty."""
        assert (await opened.directory.topic("lobby")).text == ""

    @in_reactor
    async def test_a_topic_is_of_its_room(self, opened: Opened) -> None:
        """Each room has its own topic, with who set it; the last one holds."""
        await opened.directory.set_topic("lobby", Topic("old", "alice"))
        await opened.directory.set_topic("den", Topic("grüße", ""))
        await opened.directory.set_topic("lobby", Topic("new", "bob"))
        assert await opened.directory.topic("lobby") == Topic("new", "bob")
        assert await opened.directory.topic("den") == Topic("grüße", "")

    @in_reactor
    async def test_an_empty_topic_removes_it(self, opened: Opened) -> None:
        """An empty text leaves the room as if it had never had a topic; twice does no harm."""
        never = await opened.directory.topic("den")
        await opened.directory.set_topic("lobby", Topic("old", "alice"))
        for _ in range(2):
            await opened.directory.set_topic("lobby", Topic("", "bob"))
            assert await opened.directory.topic("lobby") == never


class TestNames:
    """Nicks."""

    @in_reactor
    async def test_a_name_is_one_sessions(self, opened: Opened) -> None:
        """The first to claim a nick has it; nobody else gets it while it is held."""
        assert await opened.names.claim("alice", 1)
        assert not await opened.names.claim("alice", 2)
        assert await opened.names.claim("bob", 2)

    @in_reactor
    async def test_claiming_again_is_granted(self, opened: Opened) -> None:
        """Whoever has a nick may claim it again."""
        assert await opened.names.claim("alice", 1)
        assert await opened.names.claim("alice", 1)
        assert not await opened.names.claim("alice", 2)

    @in_reactor
    async def test_claims_at_once_grant_one(self, opened: Opened) -> None:
        """Of several claims that are under way at once exactly one is granted."""
        claims = [opened.names.claim("alice", session) for session in range(1, 6)]
        assert sorted([await claim for claim in claims]) == [False] * 4 + [True]

    @in_reactor
    async def test_a_released_name_is_free(self, opened: Opened) -> None:
        """A nick that was let go can be claimed by anyone."""
        await opened.names.claim("alice", 1)
        opened.names.release("alice", 1)
        assert await opened.names.claim("alice", 2)

    @in_reactor
    async def test_only_the_holder_releases(self, opened: Opened) -> None:
        """Letting go of a nick that somebody else has, or nobody, changes nothing."""
        opened.names.release("alice", 1)
        await opened.names.claim("alice", 1)
        opened.names.release("alice", 2)
        assert not await opened.names.claim("alice", 2)

    @in_reactor
    async def test_one_session_may_hold_two_names(self, opened: Opened) -> None:
        """While a client changes its nick it holds both, and lets go of the old one alone."""
        assert await opened.names.claim("alice", 1)
        assert await opened.names.claim("alicia", 1)
        opened.names.release("alice", 1)
        assert not await opened.names.claim("alicia", 2)
