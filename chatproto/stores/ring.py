"""The most recent events of one room, in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import attrgetter
from sys import getsizeof
from typing import Final

from chatproto.model import Event

RING_EVENTS: Final = 10_000
"""Events kept of one room: a quarter of an hour of a hundred people who type without a pause."""

RING_BYTES: Final = 4 * 1024 * 1024
"""About so many bytes of memory for the events of one room."""

EVENT_BYTES: Final = 250
"""What an event costs beside its text: the tuple, its numbers, its place in the list."""

_TRIM_SLACK: Final = 1 / 8
"""The ring grows by this much beyond its bounds before it is trimmed, so that the cost of moving
what remains is shared by many events."""

_id = attrgetter("id")


def weight(event: Event) -> int:
    """Return about how many bytes of memory `event` costs."""
    return EVENT_BYTES + getsizeof(event.text)


class Ring:
    """The last events of a room; older ones fall off."""

    __slots__ = (
        "_events",
        "_full_bytes",
        "_full_events",
        "_max_bytes",
        "_max_events",
        "bytes",
        "last_seq",
    )

    def __init__(self, max_events: int = RING_EVENTS, max_bytes: int = RING_BYTES) -> None:
        """Keep about `max_events` events or `max_bytes` bytes, whichever is reached first."""
        self.bytes = 0
        """What the events kept cost, about."""
        self.last_seq = 0
        """The number in the room of the last event that was ever added."""
        self._events: list[Event] = []
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._full_events = int(max_events * (1 + _TRIM_SLACK))
        self._full_bytes = int(max_bytes * (1 + _TRIM_SLACK))

    def __len__(self) -> int:
        return len(self._events)

    def reaches(self, event_id: int) -> bool:
        """Tell whether every event of the room after `event_id` is still here."""
        return bool(self._events) and self._events[0].id <= event_id

    def add(self, event: Event) -> int:
        """Append `event`, let the oldest fall off, and return by how many bytes this grew."""
        before = self.bytes
        self._events.append(event)
        self.last_seq = event.seq
        self.bytes = before + weight(event)
        if len(self._events) > self._full_events or self.bytes > self._full_bytes:
            self._trim()
        return self.bytes - before

    def clear(self) -> int:
        """Forget the events, not how many there were; return how many bytes this freed."""
        freed, self.bytes = self.bytes, 0
        self._events.clear()
        return freed

    def after(self, event_id: int, limit: int) -> Sequence[Event]:
        """Return the first events after `event_id`, at most `limit`, oldest first."""
        start = bisect_right(self._events, event_id, key=_id)
        return self._events[start : start + limit]

    def before(self, event_id: int | None, limit: int) -> Sequence[Event]:
        """Return the last events before `event_id` (None: of all), oldest first."""
        if event_id is None:
            end = len(self._events)
        else:
            end = bisect_left(self._events, event_id, key=_id)
        return self._events[max(0, end - limit) : end]

    def _trim(self) -> None:
        drop = max(0, len(self._events) - self._max_events)
        kept = self.bytes - sum(weight(event) for event in self._events[:drop])
        while kept > self._max_bytes:
            kept -= weight(self._events[drop])
            drop += 1
        del self._events[:drop]
        self.bytes = kept
