"""How long events are kept, and how the rest is removed: in small steps, when nobody waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final, NamedTuple

from chatproto.stores.sqlite import rows

STEP: Final = 250
"""Events that are removed in one transaction, about 5 ms of work."""

ROOMS: Final = 500
"""Rooms that are looked at in one transaction."""

PASS: Final = 60.0
"""Seconds from the end of one look at all rooms to the next."""

_CONDEMNED: Final = "@~"
"""What the names of rooms begin with that are to be removed; followed by the id of the row."""

_CONDEMN: Final = f"UPDATE rooms SET name = '{_CONDEMNED}' || id WHERE name "


class Keep(NamedTuple):
    """What is kept of each room."""

    seconds: float | None = None
    """Events that are not older than this; None: of any age."""
    lines: int | None = None
    """The last so many events; None: of any number."""


class Retention:
    """Removes what is too old, too much, or condemned."""

    def __init__(self, keep: Keep, now: Callable[[], float]) -> None:
        """Keep events as `keep` says; `now` returns the Unix time in seconds."""
        self._keep = keep
        self._now = now
        self._room = 0  # the id of the last room that was looked at in this pass
        self._next_pass = 0.0
        self._has_condemned = True  # those that a run before this has left

    def is_due(self) -> bool:
        """Tell whether there may be something to remove."""
        # A clock that was set back must not put it off for ever.
        is_time = not self._next_pass - PASS <= self._now() < self._next_pass
        return self._has_condemned or (self._keep != Keep() and is_time)

    def soon(self) -> None:
        """There is a condemned room to remove."""
        self._has_condemned = True

    def step(self, connection: sqlite3.Connection) -> bool:
        """Remove a little, and tell whether there may be more."""
        self._has_condemned = False  # before the look: the reactor may set it at any time
        for room in rows.rooms(connection, "WHERE name GLOB ? LIMIT 1", _CONDEMNED + "*"):
            self._has_condemned = True
            if room.first > room.seq:
                connection.execute("DELETE FROM rooms WHERE id = ?", (room.id,))
            else:
                rows.remove(connection, room, min(room.seq, room.first - 1 + STEP))
            return True
        if self._keep == Keep():
            return False
        looked_at = [*rows.rooms(connection, "WHERE id > ? ORDER BY id LIMIT ?", self._room, ROOMS)]
        for room in looked_at:
            upto = self._cut(connection, room)
            if upto >= room.first:
                rows.remove(connection, room, min(upto, room.first - 1 + STEP))
                return True
            self._room = room.id
        if len(looked_at) == ROOMS:
            return True
        self._room = 0
        self._next_pass = self._now() + PASS
        return False

    def _cut(self, connection: sqlite3.Connection, room: rows.RoomRow) -> int:
        """Return the number of the last event of `room` that is not to be kept."""
        upto = 0
        if self._keep.lines is not None:
            upto = room.seq - self._keep.lines
        if self._keep.seconds is not None:
            upto = max(upto, rows.last_since(connection, room, self._now() - self._keep.seconds))
        return upto


def condemn(connection: sqlite3.Connection, name: str) -> None:
    """Give a room a name under which nobody finds it, until it is removed."""
    connection.execute(_CONDEMN + "= ?", (name,))


def condemn_guests(connection: sqlite3.Connection) -> None:
    """Condemn the inboxes of sessions without an account: those are gone with their run."""
    connection.execute(_CONDEMN + "GLOB '@[0-9]*'")
