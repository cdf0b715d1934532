"""What only the memory store does; what all do alike is in test_log_contract.py."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import TypeVar

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from chatproto.errors import StoreError
from chatproto.model import Draft, Event, Kind
from chatproto.stores import Topic
from chatproto.stores.memory import (
    POSITIONS,
    LocalNames,
    MemoryDirectory,
    MemoryLog,
    memory_store,
)
from chatproto.stores.recent import ROOMS, Recent
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
            recent=Recent(lambda: Ring(max_events), total_bytes),
        )
        assert self.log.start(self.batches.append, self._refuse) == 0

    def say(self, room: str, text: str = "x") -> None:
        """Say something in a room, and let it be delivered."""
        self.log.append((Draft(room, Kind.SAID, "", text, 7),))
        self.turns()

    def _refuse(self, drafts: Sequence[Draft], error: StoreError) -> None:
        raise AssertionError(f"nothing is ever refused: {drafts}: {error}")

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


def test_topics_are_bounded() -> None:
    """Of more topics than can be remembered, those set longest ago are forgotten."""
    directory = MemoryDirectory()
    for room in range(ROOMS):
        directory.set_topic(str(room), Topic("about", "alice"))
    directory.set_topic("0", Topic("again", "alice"))
    directory.set_topic("another", Topic("about", "bob"))
    texts = [now(directory.topic(room)).text for room in ("0", "1", "2", "another")]
    assert texts == ["again", "", "about", "about"]


def test_positions_are_bounded() -> None:
    """Of more positions than can be remembered, those set longest ago are forgotten."""
    directory = MemoryDirectory()
    for number in range(POSITIONS):
        directory.set_position("alice", str(number), number + 1)
    directory.set_position("alice", "0", 7)
    directory.set_position("bob", "lobby", 8)
    assert [now(directory.position("alice", room)) for room in "012"] == [7, None, 3]
    assert now(directory.position("bob", "lobby")) == 8


def test_a_log_goes_on_where_it_is_told_to() -> None:
    """The first id is the one after the last id that is given."""
    clock = Clock()
    log = MemoryLog(clock, clock.seconds, last_id=41)
    delivered: list[Event] = []
    assert log.start(delivered.extend, lambda drafts, error: None) == 41
    log.append((Draft("lobby", Kind.SAID, "", "x", 7),))
    now(log.stop())
    assert [(event.id, event.seq) for event in delivered] == [(42, 1)]


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
