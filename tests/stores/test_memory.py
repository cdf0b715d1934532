"""What only the memory store does; what all do alike is in test_log_contract.py."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatproto.model import Draft, Event, Kind
from chatproto.stores import Topic
from chatproto.stores.memory import (
    ROOMS,
    LocalNames,
    MemoryDirectory,
    MemoryLog,
    memory_store,
)
from chatproto.stores.ring import EVENT_BYTES, Ring

T = TypeVar("T")


class Filled:
    """A memory log on a clock that is wound by hand."""

    def __init__(self, max_events: int = 10_000, total_bytes: int = 1_000_000) -> None:
        """Open a log with these bounds."""
        self.clock = Clock()
        self.batches: list[Sequence[Event]] = []
        self.log = MemoryLog(
            self.clock,
            self.clock.seconds,
            make_ring=lambda: Ring(max_events),
            total_bytes=total_bytes,
        )
        self.log.start(self.batches.append)

    def say(self, room: str, text: str = "x") -> None:
        """Say something in a room, and let it be delivered."""
        self.log.append((Draft(room, Kind.SAID, "", text, 7),))
        self.turns()

    def turns(self) -> None:
        """Let the reactor turn until nothing is left to do; no time passes."""
        while self.clock.getDelayedCalls():
            self.clock.advance(0)

    def page(self, room: str) -> Sequence[Event]:
        """Return all that is kept of a room."""
        return now(self.log.page(room, limit=1_000_000)).events


def now(deferred: Deferred[T]) -> T:
    """Return the result that the memory store has at once."""
    results: list[T] = []
    deferred.addCallback(results.append)
    assert results, "the memory store has no reason to wait"
    return results[0]


def test_what_is_said_in_a_turn_is_one_batch() -> None:
    """Drafts of one turn are delivered together, without any time passing."""
    filled = Filled()
    for text in "abc":
        filled.log.append((Draft("lobby", Kind.SAID, "", text, 7),))
    filled.turns()
    filled.say("lobby", "d")
    assert ["".join(event.text for event in batch) for batch in filled.batches] == ["abc", "d"]
    assert filled.clock.seconds() == 0


def test_an_idle_log_does_nothing() -> None:
    """With nothing said, nothing is scheduled: an idle server sleeps."""
    filled = Filled()
    filled.say("lobby")
    assert filled.clock.getDelayedCalls() == []
    now(filled.log.stop())
    assert len(filled.batches) == 1


def test_stopping_leaves_nothing_scheduled() -> None:
    """A stopped log has delivered what was queued and does nothing more."""
    filled = Filled()
    filled.log.append((Draft("lobby", Kind.SAID, "", "a", 7),))
    now(filled.log.stop())
    assert filled.clock.getDelayedCalls() == []
    assert [event.text for event in filled.batches[0]] == ["a"]


def test_old_events_fall_off_their_room() -> None:
    """A room keeps the most recent events; the numbers tell how many are gone."""
    filled = Filled(max_events=8)
    for number in range(30):
        filled.say("busy", str(number))
    filled.say("quiet")
    kept = [event.seq for event in filled.page("busy")]
    assert 8 <= len(kept) <= 10
    assert kept == list(range(31 - len(kept), 31))
    assert len(filled.page("quiet")) == 1


def test_over_all_rooms_the_longest_silent_loses_first() -> None:
    """Above the total, rooms lose their events in the order in which they fell silent."""
    filled = Filled(total_bytes=4 * (EVENT_BYTES + getsizeof("x")))
    for room in ("a", "b", "c", "a", "d"):
        filled.say(room)
    assert [len(filled.page(room)) for room in "abcd"] == [2, 0, 1, 1]
    filled.say("e")
    assert [len(filled.page(room)) for room in "abcde"] == [2, 0, 0, 1, 1]


def test_a_room_that_lost_its_events_counts_on() -> None:
    """Numbers go on where they were, so that a reader can tell how many it has missed."""
    filled = Filled(total_bytes=2 * (EVENT_BYTES + getsizeof("x")))
    for room in ("a", "a", "b", "b"):
        filled.say(room)
    assert filled.page("a") == []
    filled.say("a")
    assert filled.page("a")[0].seq == 3


def test_the_total_is_bounded_whatever_is_said() -> None:
    """Many rooms with long texts do not take more than the total."""
    filled = Filled(total_bytes=50_000)
    for number in range(200):
        filled.say(f"room{number % 20}", "x" * (number * 37 % 1000))
        kept = [event for room in range(20) for event in filled.page(f"room{room}")]
        assert sum(EVENT_BYTES + len(event.text) for event in kept) <= 50_000
    assert len(kept) > 20


def test_rooms_are_bounded() -> None:
    """Of more rooms than can be remembered, those with the oldest last event are forgotten."""
    filled = Filled(total_bytes=1 << 40)
    filled.log.append([Draft(str(room), Kind.SAID, "", "x", 7) for room in range(ROOMS)])
    filled.say("0")
    filled.say("another")
    assert [len(filled.page(room)) for room in ("0", "1", "2", "another")] == [2, 0, 1, 1]


def test_a_room_that_is_forgotten_gives_its_bytes_back() -> None:
    """What forgotten rooms took is free for others."""
    filled = Filled(total_bytes=ROOMS * (EVENT_BYTES + getsizeof("x")))
    for first in (0, ROOMS):
        rooms = range(first, first + ROOMS)
        filled.log.append([Draft(str(room), Kind.SAID, "", "x", 7) for room in rooms])
        filled.turns()
    assert all(filled.page(str(room)) for room in range(ROOMS, 2 * ROOMS))


def test_topics_are_bounded() -> None:
    """Of more topics than can be remembered, those set longest ago are forgotten."""
    directory = MemoryDirectory()
    for room in range(ROOMS):
        directory.set_topic(str(room), Topic("about", "alice"))
    directory.set_topic("0", Topic("again", "alice"))
    directory.set_topic("another", Topic("about", "bob"))
    texts = [now(directory.topic(room)).text for room in ("0", "1", "2", "another")]
    assert texts == ["again", "", "about", "about"]


def test_names_of_clients_that_are_gone_take_no_memory() -> None:
    """A nick that is released is forgotten."""
    names = LocalNames()
    for session in range(100):
        now(names.claim("alice", session))
        names.release("alice", session)
    assert not names._holders


@pytest.mark.parametrize("port", ["log", "directory", "names"])
def test_two_stores_share_nothing(port: str) -> None:
    """Each store is an empty one of its own."""
    one, other = (memory_store(Clock(), Clock().seconds) for _ in range(2))
    assert getattr(one, port) is not getattr(other, port)
