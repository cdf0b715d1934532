"""The most recent events of all rooms, in memory and within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from chatproto.model import Event
from chatproto.stores.ring import Ring

TOTAL_BYTES: Final = 64 * 1024 * 1024
"""About so many bytes of events kept over all rooms; beyond it the rooms that were silent for the
longest time lose theirs."""

ROOMS: Final = 10_000
"""Rooms remembered after their last event."""


class Recent:
    """A ring for each room that has had an event lately."""

    def __init__(
        self, make_ring: Callable[[], Ring] = Ring, total_bytes: int = TOTAL_BYTES
    ) -> None:
        """Keep about `total_bytes` of events in rings that `make_ring` makes."""
        self._make_ring = make_ring
        self._total_bytes = total_bytes
        self._rings: OrderedDict[str, Ring] = OrderedDict()  # the most recently used last
        self._bytes = 0

    def ring(self, room: str) -> Ring | None:
        """Return the ring of `room`, None when it has none."""
        return self._rings.get(room)

    def add(self, event: Event) -> None:
        """Keep `event`, the newest of its room."""
        self._bytes += self._used(event.room).add(event)

    def last_seq(self, room: str) -> int:
        """Return the number of the last event of `room` that was ever added."""
        ring = self._rings.get(room)
        return ring.last_seq if ring is not None else 0

    def trim(self) -> None:
        """Keep within the bounds over all rooms: the longest silent room goes first."""
        while len(self._rings) > ROOMS:
            self._bytes -= self._rings.popitem(last=False)[1].clear()
        if self._bytes > self._total_bytes:
            for ring in self._rings.values():  # the ring itself stays, for its numbers
                self._bytes -= ring.clear()
                if self._bytes <= self._total_bytes:
                    break

    def forget(self, room: str) -> None:
        """Let the events of `room` go."""
        ring = self._rings.pop(room, None)
        if ring is not None:
            self._bytes -= ring.clear()

    def _used(self, room: str) -> Ring:
        ring = self._rings.get(room)
        if ring is None:
            ring = self._rings[room] = self._make_ring()
        else:
            self._rings.move_to_end(room)
        return ring
