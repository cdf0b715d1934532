"""What the hub relies on, of every store alike: the ports of `chatproto.stores`.

A further store is one more entry in `STORES`. The tests run on the real reactor, because a store
may have threads and connections of its own, and wait for events, never for time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest
from twisted.internet.defer import Deferred

from chatproto.model import Account, Draft, Event, Kind, Restriction, inbox
from chatproto.stores import Topic
from chatproto.stores.memory import memory_store

from .conftest import Make, Opened, OpenStore, draft, in_reactor, sqlite, texts

STORES: Final[dict[str, Callable[[Path], Make]]] = {
    "memory": lambda path: memory_store,
    "sqlite": sqlite,
    "sqlite without history": lambda path: sqlite(path, keep=None),
}
"""What makes an empty store, given a path that it may use."""


@pytest.fixture(params=STORES)
def opened(request: pytest.FixtureRequest, tmp_path: Path, open_store: OpenStore) -> Opened:
    """Return an empty store of each kind, open."""
    return open_store(STORES[request.param](tmp_path / "chat.db"))


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

    @in_reactor
    async def test_appending_nothing_does_nothing(self, opened: Opened) -> None:
        """No drafts are no event, and nobody is called for them."""
        calls: list[Sequence[Event]] = []
        opened.on_delivery = calls.append
        opened.log.append(())
        await opened.say("a")
        opened.log.append([])
        await opened.log.stop()
        assert [texts(events) for events in calls] == [["a"]]


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
    async def test_an_empty_log_begins_after_none(self, opened: Opened) -> None:
        """The last id of a log in which nothing was ever said is 0."""
        assert opened.first_id == 0

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


class TestMarks:
    """Places in the past."""

    async def _after(self, opened: Opened, **place: Any) -> list[str]:
        """Return what comes after a mark, which must say itself how much that is."""
        mark = await opened.log.mark("lobby", **place)
        page = await opened.log.page("lobby", after=mark.after, limit=1000)
        assert len(page.events) == mark.lines
        return texts(page.events)

    @in_reactor
    async def test_a_room_that_nothing_was_said_in(self, opened: Opened) -> None:
        """In an empty room nothing comes after any place."""
        await opened.say("elsewhere", room="den")
        for place in ({"lines": 5}, {"since": 0.0}, {"after": 0}):
            assert await self._after(opened, **place) == []
        (event,) = await opened.say("a")
        assert await self._after(opened, after=event.id) == []

    @pytest.mark.parametrize("lines", [0, 1, 2, 9, 10, 11, 1_000_000_000])
    @in_reactor
    async def test_the_last_lines(self, lines: int, opened: Opened) -> None:
        """So many come after the mark, or all when there are fewer."""
        for letter in "abcdefghij":
            opened.log.append([draft(letter), draft("elsewhere", "den")])
        await opened.has(20)
        assert await self._after(opened, lines=lines) == [*"abcdefghij"[max(0, 10 - lines) :]]

    @in_reactor
    async def test_since_a_time(self, opened: Opened) -> None:
        """An event of that very time is after the mark."""
        start = opened.time
        for letter in "abcdef":
            await opened.say(letter)
            await opened.say("elsewhere", room="den")
            opened.time += 10.0
        for ago, rest in ((-5.0, "abcdef"), (0.0, "abcdef"), (0.5, "bcdef"), (10.0, "bcdef")):
            assert await self._after(opened, since=start + ago) == [*rest]
        assert await self._after(opened, since=start + 50.0) == ["f"]
        assert await self._after(opened, since=start + 50.5) == []

    @pytest.mark.parametrize("place", range(10))
    @in_reactor
    async def test_after_an_id(self, place: int, opened: Opened) -> None:
        """Any id is a place, also one of another room."""
        events = await opened.say(*"abcde")
        (elsewhere,) = await opened.say("elsewhere", room="den")
        events += await opened.say(*"fghij")
        assert await self._after(opened, after=events[place].id) == [*"abcdefghij"[place + 1 :]]
        assert await self._after(opened, after=elsewhere.id) == [*"fghij"]
        assert await self._after(opened, after=0) == [*"abcdefghij"]
        assert await self._after(opened, after=events[-1].id + 1_000_000) == []


class TestSearching:
    """Finding words."""

    async def _found(self, opened: Opened, words: str, limit: int = 100) -> list[str]:
        found = await opened.log.search("lobby", words, limit)
        assert found.unsearched == 0
        return texts(found.events)

    @in_reactor
    async def test_every_word_must_be_there(self, opened: Opened) -> None:
        """All words count, in any order, without case, and whole."""
        await opened.say("red apples", "green Apples, red leaves", "apple", "redapples")
        assert await self._found(opened, "APPLES red") == ["red apples", "green Apples, red leaves"]
        assert await self._found(opened, "apple") == ["apple"]
        assert await self._found(opened, "apples pear") == []

    @in_reactor
    async def test_an_asterisk_stands_for_any_end(self, opened: Opened) -> None:
        """A word with an asterisk is the beginning of words."""
        await opened.say("apple", "applause", "pineapple", "* app *")
        assert await self._found(opened, "app*") == ["apple", "applause", "* app *"]
        assert await self._found(opened, "appl* * **") == ["apple", "applause"]

    @in_reactor
    async def test_the_sender_counts(self, opened: Opened) -> None:
        """Who said it is found like what was said."""
        opened.log.append([draft("hi", sender="Bob_2"), draft("hi bob"), draft("ho")])
        await opened.has(3)
        assert await self._found(opened, "bob hi") == ["hi", "hi bob"]

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            ("Crème brûlée", "creme brulee"),
            ("creme", "crème"),
            ("cafe\u0301", "café"),
            ("café", "cafe\u0301"),
            ("мой йод, ёлка", "МОЙ ёлка"),
            ("한국어 게시판", "한국*"),
            ("東京 タワー がある", "がある"),
            ("ΣΟΦΟΣ ΔΡΟΜΟΣ", "δρομος"),
            ("Straße", "STRAßE"),
            ("கௌ aஔb", "aஔb"),
            ("snake_case 3.14", "case 14"),
        ],
    )
    @in_reactor
    async def test_words_of_all_languages(self, said: str, words: str, opened: Opened) -> None:
        """Case never counts, diacritics do not on Latin letters; elsewhere they make a letter."""
        await opened.say(said, "something else")
        assert await self._found(opened, words) == [said]

    @pytest.mark.parametrize("words", ["", " ", "*", "!?", '"', "'", "_", "\u0301"])
    @in_reactor
    async def test_no_word_finds_nothing(self, words: str, opened: Opened) -> None:
        """Without a letter or a digit there is nothing to look for."""
        await opened.say("a ! ? \" ' _ *")
        assert await self._found(opened, words) == []

    @pytest.mark.parametrize(
        "words", ['a" OR "b', "text : a", "NEAR(a b)", "NOT a", "a OR b", "r1", "room"]
    )
    @in_reactor
    async def test_a_query_is_only_words(self, words: str, opened: Opened) -> None:
        """Nothing in a query means more than its words."""
        await opened.say("a", "b")
        assert await self._found(opened, words) == []

    @in_reactor
    async def test_only_this_room_and_only_talk(self, opened: Opened) -> None:
        """What was said elsewhere is not found, and neither are notices."""
        await opened.say("apple", room="den")
        opened.log.append([draft("apple", kind=kind) for kind in Kind])
        await opened.has(1 + len(Kind))
        found = await opened.log.search("lobby", "apple", 100)
        talk = [Kind.SAID, Kind.ACTION, Kind.TOPIC, Kind.ANNOUNCED]
        assert [event.kind for event in found.events] == talk
        assert [*found.events] == [event for event in opened.delivered[1:] if event.kind in talk]
        assert not (await opened.log.search("nowhere", "apple", 100)).events

    @pytest.mark.parametrize("limit", [1, 2, 5, 6])
    @in_reactor
    async def test_the_last_ones_are_found(self, limit: int, opened: Opened) -> None:
        """At most so many events are found: the newest ones, the oldest of them first."""
        await opened.say(*(f"apple {number}" for number in range(5)))
        expected = [f"apple {number}" for number in range(5)][-limit:]
        assert await self._found(opened, "apple", limit) == expected


class TestForgetting:
    """Rooms that nobody can come back to."""

    @in_reactor
    async def test_nothing_is_left(self, opened: Opened) -> None:
        """What was said before is gone, from every end."""
        room = inbox(7)
        await opened.say("a", "b", room=room)
        await opened.say("lobby")
        opened.log.forget(room)
        assert await opened.history(room) == []
        assert not (await opened.log.page(room, limit=1)).events
        assert (await opened.log.mark(room, lines=9)).lines == 0
        assert texts(await opened.history()) == ["lobby"]

    @in_reactor
    async def test_a_room_of_the_same_name_begins_anew(self, opened: Opened) -> None:
        """What is said later is in a new room, counted from 1, also at once."""
        room = inbox("bob")
        await opened.say("a", "b", room=room)
        opened.log.forget(room)
        opened.log.append([draft("c", room)])
        await opened.has(3)
        assert texts(await opened.history(room)) == ["c"]
        assert opened.delivered[-1].seq == 1

    @in_reactor
    async def test_a_room_that_never_was(self, opened: Opened) -> None:
        """Forgetting what is not there does no harm."""
        opened.log.forget("nowhere")
        assert texts(await opened.say("a")) == ["a"]


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

    @in_reactor
    async def test_stopping_twice(self, opened: Opened) -> None:
        """A second stop fires too, whether the first one has or not."""
        opened.log.append([draft("a")])
        first, second = opened.log.stop(), opened.log.stop()
        await first
        await second
        await opened.log.stop()
        assert texts(opened.delivered) == ["a"]


class TestTopics:
    """Topics."""

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


def account(nick: str, **fields: Any) -> Account:
    """Return an account."""
    return Account(nick, "secret", False, 1_700_000_000.25, "192.0.2.1")._replace(**fields)


class TestAccounts:
    """Accounts."""

    @in_reactor
    async def test_nobody_has_one_at_first(self, opened: Opened) -> None:
        """An empty directory knows nobody."""
        assert await opened.directory.account("alice") is None
        assert [*await opened.directory.accounts()] == []

    @in_reactor
    async def test_an_account_comes_back_as_it_was(self, opened: Opened) -> None:
        """Every field is kept; it is found under the folded nick, and only there."""
        alice = account("Alice", is_operator=True, secret="$argon2id$…")
        assert await opened.directory.add_account(alice)
        found = await opened.directory.account("alice")
        assert found == alice
        assert found is not None
        assert found.is_operator is True
        assert await opened.directory.account("Alice") is None

    @in_reactor
    async def test_a_nick_has_one_account(self, opened: Opened) -> None:
        """A second account of an equal nick is not added, not even the same one."""
        alice = account("alice")
        assert await opened.directory.add_account(alice)
        assert not await opened.directory.add_account(account("ALICE", secret="other"))
        assert not await opened.directory.add_account(alice)
        assert await opened.directory.account("alice") == alice

    @in_reactor
    async def test_of_several_at_once_one_is_added(self, opened: Opened) -> None:
        """Of several accounts of one nick that are added at once exactly one is."""
        adding = [opened.directory.add_account(account("bob", secret=str(n))) for n in range(5)]
        assert [await added for added in adding] == [True, False, False, False, False]
        assert await opened.directory.account("bob") == account("bob", secret="0")

    @in_reactor
    async def test_an_account_is_changed(self, opened: Opened) -> None:
        """Only an account that is there can be changed, and only in what is given."""
        directory = opened.directory
        assert not await directory.change_account("bob", secret="new")
        assert await directory.account("bob") is None
        first = account("Bob")
        await directory.add_account(first)
        await directory.add_account(account("alice"))
        assert await directory.change_account("bob", secret="new")
        assert await directory.change_account("bob", is_operator=True)
        assert await directory.change_account("bob", address="192.0.2.7")
        changed = first._replace(secret="new", is_operator=True, address="192.0.2.7")
        assert [*await directory.accounts()] == [account("alice"), changed]
        assert await directory.change_account("bob", is_operator=False, address="")
        changed = changed._replace(is_operator=False, address="")
        assert [*await directory.accounts()] == [account("alice"), changed]

    @in_reactor
    async def test_an_account_is_removed(self, opened: Opened) -> None:
        """It goes with its positions, and tells once that it was there."""
        for nick in ("alice", "bob"):
            await opened.directory.add_account(account(nick))
            await opened.directory.set_position(nick, "lobby", 5)
        assert await opened.directory.remove_account("bob")
        assert not await opened.directory.remove_account("bob")
        assert await opened.directory.account("bob") is None
        assert await opened.directory.position("bob", "lobby") is None
        assert await opened.directory.position("alice", "lobby") == 5
        assert [*await opened.directory.accounts()] == [account("alice")]


class TestPositions:
    """Read positions."""

    @in_reactor
    async def test_a_position_is_of_an_account_in_a_room(self, opened: Opened) -> None:
        """Each account has its own in each room; the last one set holds."""
        directory = opened.directory
        assert await directory.position("alice", "lobby") is None
        await directory.set_position("alice", "lobby", 3)
        await directory.set_position("alice", "den", 4)
        await directory.set_position("bob", "lobby", 5)
        await directory.set_position("alice", "lobby", 6)
        assert await directory.position("alice", "lobby") == 6
        assert await directory.position("alice", "den") == 4
        assert await directory.position("bob", "lobby") == 5
        assert await directory.position("bob", "den") is None

    @in_reactor
    async def test_it_is_kept_over_being_there(self, opened: Opened) -> None:
        """While an account is in a room it has no place of its own; then it has again."""
        await opened.directory.set_position("alice", "lobby", 3)
        await opened.directory.set_position("alice", "lobby", None)
        assert await opened.directory.position("alice", "lobby") != 3
        await opened.directory.set_position("alice", "lobby", 8)
        assert await opened.directory.position("alice", "lobby") == 8


class TestRestrictions:
    """What operators forbid."""

    @in_reactor
    async def test_they_come_back_as_they_were(self, opened: Opened) -> None:
        """Every field is kept, in the order of the subjects and then of the kinds."""
        made = [
            Restriction("mute", "alice", 0.0, "root", "", 1.5),
            Restriction("ban", "bob", 1_800_000_000.5, "root", "no reason", 2.5),
            Restriction("ban", "alice", 0.0, "root", "", 3.5),
            Restriction("ban", "192.0.2.0/24", 0.0, "root", "grüße", 4.5),
        ]
        assert [*await opened.directory.restrictions()] == []
        for restriction in made:
            await opened.directory.add_restriction(restriction)
        assert [*await opened.directory.restrictions()] == [made[3], made[2], made[0], made[1]]

    @in_reactor
    async def test_a_second_one_replaces_the_first(self, opened: Opened) -> None:
        """There is one of a kind for a subject."""
        first = Restriction("ban", "bob", 5.0, "root", "why", 1.0)
        second = first._replace(until=0.0, why="because", time=2.0)
        await opened.directory.add_restriction(first)
        await opened.directory.add_restriction(second)
        assert [*await opened.directory.restrictions()] == [second]

    @in_reactor
    async def test_one_is_lifted(self, opened: Opened) -> None:
        """Only the one of that kind goes, and tells once that it was there."""
        ban = Restriction("ban", "bob", 0.0, "root", "", 1.0)
        await opened.directory.add_restriction(ban)
        await opened.directory.add_restriction(ban._replace(kind="mute"))
        assert await opened.directory.remove_restriction("mute", "bob")
        assert not await opened.directory.remove_restriction("mute", "bob")
        assert not await opened.directory.remove_restriction("ban", "alice")
        assert [*await opened.directory.restrictions()] == [ban]


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
