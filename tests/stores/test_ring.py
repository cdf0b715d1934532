"""The most recent events of one room."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatproto.model import Event, Kind
from chatproto.stores.ring import EVENT_BYTES, Ring, weight


def event(number: int, text: str = "", step: int = 1) -> Event:
    """Return the event of that number; ids grow by `step` from one to the next."""
    return Event(number * step, number, 0.0, "lobby", Kind.SAID, "", text, 7, 0, "")


def filled(count: int, ring: Ring | None = None, text: str = "", step: int = 1) -> Ring:
    """Return a ring to which so many events were added."""
    ring = Ring() if ring is None else ring
    for number in range(1, count + 1):
        ring.add(event(number, text, step))
    return ring


def kept(ring: Ring) -> list[Event]:
    """Return all that a ring has."""
    return [*ring.before(None, 1_000_000)]


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(1, 4), st.integers(-2, 170), st.integers(0, 50))
def test_reading_is_as_of_a_list(count: int, step: int, place: int, limit: int) -> None:
    """Reading after and before any id is what it would be in a plain list of the events."""
    ring = filled(count, step=step)
    events = [event(number, step=step) for number in range(1, count + 1)]
    later = [one for one in events if one.id > place]
    earlier = [one for one in events if one.id < place]
    assert [*ring.after(place, limit)] == later[:limit]
    assert [*ring.before(place, limit)] == (earlier[-limit:] if limit else [])
    assert [*ring.before(None, limit)] == (events[-limit:] if limit else [])


@settings(deadline=None)
@given(st.lists(st.text(max_size=400), max_size=60), st.integers(1, 20), st.integers(300, 5000))
def test_it_keeps_the_last_ones_within_its_bounds(
    said: list[str], max_events: int, max_bytes: int
) -> None:
    """What is kept is the end of what was added, counted right, and never much over the bounds."""
    ring = Ring(max_events, max_bytes)
    everything = [*enumerate(said, 1)]
    grown = 0
    for number, text in enumerate(said, 1):
        grown += ring.add(event(number, text))
        events = kept(ring)
        assert [(one.seq, one.text) for one in events] == everything[number - len(events) : number]
        assert ring.bytes == grown == sum(map(weight, events))
        assert len(events) <= max_events * 5 / 4
        assert ring.bytes <= max_bytes * 5 / 4
        assert ring.last_seq == number


def test_it_keeps_as_many_as_it_may() -> None:
    """Within its bounds nothing falls off, and beyond them never more than has to."""
    assert len(kept(filled(80, Ring(80, 1_000_000)))) == 80
    for count in range(80, 400):
        assert len(kept(filled(count, Ring(80, 1_000_000)))) >= 80


def test_bytes_count_as_well_as_events() -> None:
    """Long texts push out earlier ones long before the number of events is reached."""
    ring = filled(100, Ring(1000, 10_000), text="x" * (1000 - EVENT_BYTES))
    assert 10 <= len(kept(ring)) <= 11


@pytest.mark.parametrize("count", [0, 1, 50])
def test_clearing_frees_and_goes_on_counting(count: int) -> None:
    """A ring that is cleared tells what that freed, is empty, and still knows its last number."""
    ring = filled(count, text="hello")
    size = ring.bytes
    assert ring.clear() == size
    assert (ring.bytes, ring.last_seq, kept(ring)) == (0, count, [])
    ring.add(event(count + 1))
    assert kept(ring) == [event(count + 1)]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_it_knows_how_far_back_it_reaches(count: int) -> None:
    """It reaches a place if everything after that is here; an empty ring cannot know."""
    ring = filled(count, Ring(20, 1_000_000), step=3)
    events = kept(ring)
    assert len(ring) == len(events)
    for place in range(200):
        after = bool(events) and events[0].id <= place
        assert ring.reaches(place) == after
        if after:
            assert [one.id for one in ring.after(place, 1000)] == [
                number * 3 for number in range(1, count + 1) if number * 3 > place
            ]
