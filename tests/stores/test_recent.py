"""The most recent events of all rooms, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from sys import getsizeof
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from chatproto.model import Event, Kind
from chatproto.stores.recent import ROOMS, Recent
from chatproto.stores.ring import EVENT_BYTES, Ring, weight

EVENT: Final = EVENT_BYTES + getsizeof("x")
"""What an event of one letter costs."""


class Filled:
    """Recent events of rooms in which something is said."""

    def __init__(self, total_bytes: int = 1 << 40) -> None:
        """Keep so many bytes over all rooms."""
        self.recent = Recent(lambda: Ring(1000), total_bytes)
        self._last_id = 0

    def say(self, *rooms: str, text: str = "x") -> None:
        """Say something in each of these rooms, one after the other."""
        for room in rooms:
            self.add(room, text)
            self.recent.trim()

    def add(self, room: str, text: str = "x") -> None:
        """Say something in a room, in the middle of a batch."""
        self._last_id += 1
        seq = self.recent.last_seq(room) + 1
        self.recent.add(Event(self._last_id, seq, 0.0, room, Kind.SAID, "", text, 7, 0, ""))

    def kept(self, room: str) -> Sequence[Event]:
        """Return what is kept of a room."""
        ring = self.recent.ring(room)
        return ring.before(None, len(ring)) if ring is not None else ()


def test_a_room_has_a_ring_once_something_was_said() -> None:
    """Nothing is kept of a room that nobody spoke in."""
    filled = Filled()
    assert filled.recent.ring("lobby") is None
    assert filled.recent.last_seq("lobby") == 0
    filled.say("den", "lobby", "lobby")
    assert filled.recent.last_seq("lobby") == 2
    assert [event.id for event in filled.kept("lobby")] == [2, 3]


def test_the_longest_silent_room_loses_first() -> None:
    """Above the total, rooms lose their events in the order in which they fell silent."""
    filled = Filled(total_bytes=4 * EVENT)
    filled.say("a", "b", "c", "a", "d")
    assert [len(filled.kept(room)) for room in "abcd"] == [2, 0, 1, 1]
    filled.say("e")
    assert [len(filled.kept(room)) for room in "abcde"] == [2, 0, 0, 1, 1]


def test_a_room_that_lost_its_events_counts_on() -> None:
    """Numbers go on where they were, so that a reader can tell how many it has missed."""
    filled = Filled(total_bytes=2 * EVENT)
    filled.say(*"aabb")
    assert filled.kept("a") == []
    filled.say("a")
    assert filled.kept("a")[0].seq == 3


def test_rooms_are_bounded() -> None:
    """Of more rooms than can be remembered, those with the oldest last event are forgotten."""
    filled = Filled()
    filled.say(*map(str, range(ROOMS)))
    filled.say("0", "another")
    assert [len(filled.kept(room)) for room in ("0", "1", "2", "another")] == [2, 0, 1, 1]
    assert filled.recent.last_seq("1") == 0


def test_a_room_that_falls_out_gives_its_bytes_back() -> None:
    """What forgotten rooms took is free for others."""
    filled = Filled(total_bytes=ROOMS * EVENT)
    filled.say(*map(str, range(2 * ROOMS)))
    assert all(filled.kept(str(room)) for room in range(ROOMS, 2 * ROOMS))


def test_a_room_that_is_let_go_gives_its_bytes_back() -> None:
    """Letting a room go makes room for others, and it begins anew; twice does no harm."""
    filled = Filled(total_bytes=4 * EVENT)
    filled.say(*"aabb")
    filled.recent.forget("a")
    filled.recent.forget("a")
    filled.say(*"cc")
    assert [len(filled.kept(room)) for room in "abc"] == [0, 2, 2]
    filled.say("a")
    assert [event.seq for event in filled.kept("a")] == [1]


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("abcdef"), st.text(max_size=60)),
        st.tuples(st.just("forget"), st.sampled_from("abcdef"), st.just("")),
    ),
    max_size=80,
)


@settings(deadline=None)
@given(_steps, st.integers(1, 6000))
def test_the_total_is_bounded_whatever_is_said(
    steps: list[tuple[str, str, str]], total: int
) -> None:
    """What is kept of a room is the end of what was said there; all of it is within the total."""
    filled = Filled(total)
    said: dict[str, list[str]] = {room: [] for room in "abcdef"}
    for what, room, text in steps:
        if what == "say":
            said[room].append(text)
            filled.say(room, text=text)
        else:
            said[room].clear()
            filled.recent.forget(room)
        kept = {room: filled.kept(room) for room in said}
        assert sum(weight(event) for events in kept.values() for event in events) <= total
        for room, events in kept.items():
            assert [event.text for event in events] == said[room][len(said[room]) - len(events) :]
            assert filled.recent.last_seq(room) == len(said[room])
