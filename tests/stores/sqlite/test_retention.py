"""How long events are kept, and what is left of those that are not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatproto.model import Event, Kind, inbox, is_inbox
from chatproto.stores.sqlite import retention as retention_module
from chatproto.stores.sqlite import rows
from chatproto.stores.sqlite.file import statements
from chatproto.stores.sqlite.retention import (
    PASS,
    STEP,
    Keep,
    Retention,
    condemn,
    condemn_guests,
)
from chatproto.stores.words import matches, query


class Filled:
    """A store's tables in memory, at a time that is set by hand."""

    def __init__(self, keep: Keep | None = None) -> None:
        """Make the tables; nothing is in them yet."""
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for statement in statements(1):
            self.connection.execute(statement)
        self.time = 1_000_000.0
        self.retention = Retention(keep or Keep(), lambda: self.time)
        self._last_id = 0

    def keep(self, keep: Keep) -> None:
        """Keep from now on what `keep` says."""
        self.retention = Retention(keep, lambda: self.time)

    def say(self, *words: str, room: str = "lobby", kind: Kind = Kind.SAID) -> list[Event]:
        """Write an event for each word, and return them."""
        found = rows.room_named(self.connection, room)
        if found is None:
            self.connection.execute(
                "INSERT INTO rooms (name, indexed) VALUES (?, ?)",
                (room, None if is_inbox(room) else 0),
            )
            found = rows.room_named(self.connection, room)
        assert found is not None
        events = [
            Event(self._last_id + n, found.seq + n, self.time, room, kind, "alice", word, 7, 0, "")
            for n, word in enumerate(words, 1)
        ]
        self._last_id += len(events)
        rows.insert(self.connection, {room: found.id}, events)
        self.connection.execute(
            "UPDATE rooms SET seq = seq + ? WHERE id = ?", (len(words), found.id)
        )
        self.connection.execute("UPDATE state SET last_id = ?", (self._last_id,))
        return events

    def index(self, room: str = "lobby", limit: int = 1_000_000) -> None:
        """Put the next events of a room into the index."""
        found = rows.room_named(self.connection, room)
        assert found is not None
        rows.index(self.connection, found, limit)

    def trim(self) -> int:
        """Remove all that is to be removed, and return in how many steps."""
        steps = 1
        while self.retention.step(self.connection):
            steps += 1
        return steps

    def texts(self, room: str = "lobby") -> list[str]:
        """Return all that is kept of a room."""
        return [event.text for event in rows.page(self.connection, room, 0, None, 1_000_000)]

    def found(self, words: str, room: str = "lobby") -> list[str]:
        """Return what a search finds."""
        found = rows.search(self.connection, room, query(words), 1_000_000)
        return [event.text for event in found.events]

    def count(self, what: str) -> int:
        """Return how many rows there are."""
        number: int = self.connection.execute(f"SELECT count(*) FROM {what}").fetchone()[0]
        return number

    def check(self) -> None:
        """Make sure that the index has nothing that is not kept."""
        indexed = {row[0] for row in self.connection.execute("SELECT rowid FROM words")}
        kept = {row[0] for row in self.connection.execute("SELECT id FROM events")}
        assert indexed <= kept
        self.connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")

    def terms(self) -> int:
        """Return how many pairs of a word and an event the index holds."""
        self.connection.execute(
            "CREATE VIRTUAL TABLE temp.terms USING fts5vocab (main, words, row)"
        )
        number: int = self.connection.execute("SELECT total(doc) FROM temp.terms").fetchone()[0]
        self.connection.execute("DROP TABLE temp.terms")
        return int(number)


@pytest.fixture
def filled() -> Iterator[Filled]:
    """Return empty tables."""
    filled = Filled()
    with closing(filled.connection):
        yield filled


def keeping(filled: Filled, **keep: Any) -> None:
    """Keep so much from now on."""
    filled.keep(Keep(**keep))


def test_everything_is_kept_unless_told_otherwise(filled: Filled) -> None:
    """Without a bound nothing is ever removed."""
    filled.say(*map(str, range(1000)))
    filled.time += 1e9
    assert filled.trim() == 1
    assert len(filled.texts()) == 1000


@pytest.mark.parametrize("lines", [1, 10, 99, 100, 101])
def test_the_last_lines_are_kept(lines: int, filled: Filled) -> None:
    """Of each room so many lines remain, the newest; shorter rooms stay whole."""
    filled.say(*map(str, range(100)))
    filled.say("a", room="den")
    keeping(filled, lines=lines)
    filled.trim()
    assert filled.texts() == [str(number) for number in range(100)][-lines:]
    assert filled.texts("den") == ["a"]


def test_what_is_too_old_goes(filled: Filled) -> None:
    """Events that are older than the bound are removed, one of that very age is not."""
    for letter in "abcdef":
        filled.say(letter, letter)
        filled.time += 10.0
    keeping(filled, seconds=30.0)
    filled.trim()
    assert filled.texts() == [*"ddeeff"]
    filled.time += 1000.0
    filled.trim()
    assert filled.texts() == []


def test_a_room_that_lost_everything_counts_on(filled: Filled) -> None:
    """Numbers go on after the last one there was."""
    keeping(filled, seconds=1.0)
    filled.say(*"abc")
    filled.time += 2.0
    filled.trim()
    filled.say("d")
    filled.trim()
    events = rows.page(filled.connection, "lobby", 0, None, 9)
    assert [(event.seq, event.text) for event in events] == [(4, "d")]


def test_steps_are_small(filled: Filled) -> None:
    """One step removes no more than a transaction should take, whatever is to be removed."""
    filled.say(*map(str, range(4 * STEP)))
    filled.index()
    keeping(filled, lines=1)
    left = 4 * STEP
    while filled.retention.step(filled.connection):
        assert left - filled.count("events") <= STEP
        left = filled.count("events")
    assert left == 1


def test_rooms_are_looked_at_a_few_at_a_time(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every room has its turn, also when there are more than one step looks at."""
    monkeypatch.setattr(retention_module, "ROOMS", 3)
    for number in range(10):
        filled.say("a", "b", room=f"room{number}")
    keeping(filled, lines=1)
    filled.trim()
    assert [filled.texts(f"room{number}") for number in range(10)] == [["b"]] * 10
    filled.say("c", room="room9")
    filled.trim()
    assert filled.texts("room9") == ["c"]


def test_a_search_does_not_find_what_was_removed(filled: Filled) -> None:
    """The index forgets what is removed, and finds what remains."""
    filled.say(*(f"apple number{number}" for number in range(20)))
    filled.index()
    before = filled.terms()
    keeping(filled, lines=5)
    filled.trim()
    assert filled.found("apple") == [f"apple number{number}" for number in range(15, 20)]
    assert filled.found("number3") == []
    assert filled.terms() == before / 4
    filled.check()


def test_what_was_never_indexed_is_removed_too(filled: Filled) -> None:
    """Lines that are removed before they are in the index do no harm to it."""
    filled.say(*(f"apple {number}" for number in range(20)))
    filled.index(limit=5)
    keeping(filled, lines=8)
    filled.trim()
    assert filled.terms() == 0
    filled.index(limit=3)
    assert filled.found("apple") == ["apple 12", "apple 13", "apple 14"]
    filled.index()
    assert filled.found("apple") == filled.texts()
    filled.check()


def test_notices_are_not_in_the_index(filled: Filled) -> None:
    """What is removed from the index is what was put there: not what nobody looks for."""
    filled.say("a", kind=Kind.JOINED)
    filled.say("a")
    filled.say("a", kind=Kind.LEFT)
    filled.index()
    assert filled.count("words") == 1
    keeping(filled, lines=0)
    filled.trim()
    assert (filled.count("words"), filled.count("events"), filled.terms()) == (0, 0, 0)
    filled.check()


class TestCondemned:
    """Rooms that nobody can come back to."""

    def test_nobody_finds_it(self, filled: Filled) -> None:
        """From then on the room is not there, and one of its name is another."""
        filled.say("secret", room="den")
        filled.index("den")
        condemn(filled.connection, "den")
        assert filled.texts("den") == filled.found("secret", "den") == []
        filled.say("new", room="den")
        filled.index("den")
        filled.trim()
        assert filled.texts("den") == ["new"]
        assert filled.found("secret", "den") == []
        assert filled.found("new", "den") == ["new"]

    def test_it_is_removed_in_small_steps(self, filled: Filled) -> None:
        """All of it goes in the end: events, what the index has of it, and the room."""
        filled.say("a")
        filled.say(*map(str, range(2 * STEP + 1)), room="den")
        filled.index("den")
        condemn(filled.connection, "den")
        left = filled.count("events")
        while filled.retention.step(filled.connection):
            assert left - filled.count("events") <= STEP
            left = filled.count("events")
        assert filled.texts() == ["a"]
        assert (filled.count("rooms"), filled.count("words"), filled.terms()) == (1, 0, 0)
        filled.check()

    def test_several_of_one_name(self, filled: Filled) -> None:
        """A name may be condemned again before the first room is gone."""
        for _ in range(3):
            filled.say("a", room="den")
            condemn(filled.connection, "den")
        filled.trim()
        assert (filled.count("rooms"), filled.count("events")) == (0, 0)

    def test_guests(self, filled: Filled) -> None:
        """Inboxes of sessions go with their run; those of accounts, and rooms, stay."""
        names = [inbox(1), inbox(23), inbox("alice"), inbox("b2"), "lobby", "#1", "1"]
        for name in names:
            filled.say("a", room=name)
        condemn_guests(filled.connection)
        filled.trim()
        left = [name for (name,) in filled.connection.execute("SELECT name FROM rooms ORDER BY id")]
        assert left == names[2:]


class TestDue:
    """When there is something to do."""

    def test_a_pass_is_followed_by_a_pause(self, filled: Filled) -> None:
        """After a look at all rooms the next one is in a minute."""
        filled.keep(Keep(lines=5))
        assert filled.retention.is_due()
        filled.trim()
        assert not filled.retention.is_due()
        filled.time += PASS
        assert filled.retention.is_due()

    def test_nothing_is_looked_for_where_all_is_kept(self, filled: Filled) -> None:
        """With everything kept for ever only condemned rooms are looked for."""
        filled.keep(Keep())
        assert filled.retention.is_due()  # a run before this may have left some
        filled.trim()
        filled.time += PASS
        assert not filled.retention.is_due()

    def test_unless_there_is_something(self, filled: Filled) -> None:
        """A room that is let go does not wait."""
        filled.trim()
        filled.retention.soon()
        assert filled.retention.is_due()

    def test_a_clock_that_is_set_back(self, filled: Filled) -> None:
        """It is put off by a pause at most, not until the clock is again where it was."""
        filled.keep(Keep(lines=5))
        filled.trim()
        filled.time -= 1_000_000.0
        assert filled.retention.is_due()


_words = st.sampled_from(["apple", "pear", "apple pear", "Crème", ""])
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("ab"), st.lists(_words, max_size=12)),
        st.tuples(st.just("index"), st.sampled_from("ab"), st.integers(0, 5)),
        st.tuples(st.just("cut"), st.sampled_from("ab"), st.integers(0, 12)),
        st.tuples(st.just("condemn"), st.sampled_from("ab"), st.none()),
        st.tuples(st.just("step"), st.none(), st.none()),
        st.tuples(st.just("wait"), st.none(), st.none()),
    ),
    max_size=25,
)


class Model:
    """What is kept of a room, as a plain list."""

    def __init__(self) -> None:
        """Begin with an empty room."""
        self.events: list[Event] = []
        self.indexed = 0
        self._seq = 0

    def say(self, events: list[Event]) -> None:
        """Keep events."""
        self.events += events
        self._seq += len(events)

    def index(self, limit: int) -> None:
        """Let the next events be found."""
        self.indexed = min(max(self.indexed, self._seq - len(self.events)) + limit, self._seq)

    def cut(self, number: int) -> None:
        """Remove the oldest events."""
        del self.events[:number]

    def last(self, limit: int, before: float = float("inf")) -> list[Event]:
        """Return the last events before an id."""
        earlier = [event for event in self.events if event.id < before]
        return earlier[-limit:] if limit else []

    def after(self, place: int) -> list[Event]:
        """Return the events after an id."""
        return [event for event in self.events if event.id > place]

    def since(self, time: float) -> list[Event]:
        """Return the events since a time."""
        return [event for event in self.events if event.time >= time]

    def found(self, words: str) -> list[Event]:
        """Return the events that a search finds."""
        known = (event for event in self.events if event.seq <= self.indexed)
        return [event for event in known if matches(query(words), f"alice {event.text}")]


@settings(deadline=None)
@given(_steps, st.integers(-1, 150), st.integers(0, 10), st.integers(-6, 130))
def test_it_is_as_a_list(
    steps: list[tuple[str, Any, Any]], place: int, limit: int, seconds: int
) -> None:
    """Whatever is said, indexed and removed: pages, marks and searches are as of plain lists."""
    filled = Filled()
    connection = filled.connection
    models = {"a": Model(), "b": Model()}
    for what, room, value in steps:
        found = rows.room_named(connection, room) if room else None
        if what == "say":
            models[room].say(filled.say(*value, room=room))
        elif what == "index" and found is not None:
            filled.index(room, value)
            models[room].index(value)
        elif what == "cut" and found is not None:
            rows.remove(connection, found, min(found.seq, found.first - 1 + value))
            models[room].cut(value)
        elif what == "condemn":
            condemn(connection, room)
            models[room] = Model()
        elif what == "step":
            filled.retention.step(connection)
        elif what == "wait":
            filled.time += 5.0
    filled.trim()
    filled.check()
    time = 1_000_000.0 + seconds
    for room, model in models.items():
        assert rows.page(connection, room, None, None, limit) == model.last(limit)
        assert rows.page(connection, room, place, None, limit) == model.after(place)[:limit]
        assert rows.page(connection, room, None, place, limit) == model.last(limit, place)
        for expected, mark in (
            (model.last(limit), rows.mark(connection, room, limit, None, None)),
            (model.since(time), rows.mark(connection, room, None, time, None)),
            (model.after(place), rows.mark(connection, room, None, None, place)),
        ):
            assert mark.lines == len(expected)
            assert rows.page(connection, room, mark.after, None, 1000) == expected
        for words in ("apple", "CREME", "apple pe*", "alice"):
            events, unsearched = rows.search(connection, room, query(words), 1000)
            assert events == model.found(words)
            assert unsearched == sum(event.seq > model.indexed for event in model.events)
    connection.close()
