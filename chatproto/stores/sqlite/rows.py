"""Events as rows of the file: written many at a time, found by halving.

Everything here runs in the writer's thread, on the connection that it is given. The numbers of a
room's events have no gaps, and ids grow with them; so a place that is given as an id or as a time
takes some twenty looks at the table's own order, in a room of a million, and needs no other index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import monotonic
from typing import Any, Final, NamedTuple

from chatproto.errors import StoreError
from chatproto.model import TALK, Event, Found, Kind, Mark
from chatproto.stores.words import Word

ROWS: Final = (64, 8, 1)
"""Rows in one INSERT: a statement of 64 rows takes half the time of 64 statements."""

SEARCH: Final = 0.1
"""Seconds that one search may take: everybody's lines wait for it."""

PROGRESS: Final = 1000
"""Steps of SQLite's machine between two looks at the clock, about 10 µs."""

_INSERT: Final = {
    rows: "INSERT INTO events VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * rows)
    for rows in ROWS
}
_SELECT: Final = (
    "SELECT id, seq, time, kind, sender, text, origin, here, recipient FROM events WHERE room = ? "
)
_KINDS: Final = {kind.value: kind for kind in Kind}
_NAMES: Final = {kind: kind.value for kind in Kind}  # an Enum's own `value` is slow
_TALK: Final = ", ".join(sorted(f"'{kind.value}'" for kind in TALK))

Row = tuple[Any, ...]


class RoomRow(NamedTuple):
    """What the file knows of one room."""

    id: int
    """Of its row."""
    name: str
    first: int
    """The number of the first event that is kept; `seq` plus 1 when none is."""
    seq: int
    """The number of the last event there was."""
    indexed: int | None
    """The number of the last event in the index; None for a room that is not searched."""


def room_named(connection: sqlite3.Connection, name: str) -> RoomRow | None:
    """Return what is known of a room."""
    return next(rooms(connection, "WHERE name = ?", name), None)


def rooms(connection: sqlite3.Connection, where: str, *values: object) -> Iterator[RoomRow]:
    """Return the rooms for which `where`, a fixed piece of SQL, is true of `values`."""
    query = f"SELECT id, name, first, seq, indexed FROM rooms {where}"
    return (RoomRow(*row) for row in connection.execute(query, values))


def insert(connection: sqlite3.Connection, room_ids: dict[str, int], events: list[Event]) -> None:
    """Write `events` of the rooms whose rows have the ids `room_ids`."""
    rows: list[Row] = [
        (
            room_ids[event.room],
            event.seq,
            event.id,
            event.time,
            _NAMES[event.kind],
            event.sender,
            event.text,
            event.origin,
            event.here,
            event.to,
        )
        for event in events
    ]
    start = 0
    for size in ROWS:
        while len(rows) - start >= size:
            piece = rows[start : start + size]
            connection.execute(_INSERT[size], [*chain.from_iterable(piece)])
            start += size


def page(
    connection: sqlite3.Connection, name: str, after: int | None, before: int | None, limit: int
) -> list[Event]:
    """Return events of a room, see `Log.page`."""
    room = room_named(connection, name)
    if room is None:
        return []
    if after is not None:
        seq = _last_with(connection, room, lambda event_id, time: event_id <= after)
        return _events(connection, room, "AND seq > ? ORDER BY seq LIMIT ?", seq, limit)
    seq = room.seq
    if before is not None:
        seq = _last_with(connection, room, lambda event_id, time: event_id < before)
    return _events(connection, room, "AND seq <= ? ORDER BY seq DESC LIMIT ?", seq, limit)[::-1]


def mark(
    connection: sqlite3.Connection,
    name: str,
    lines: int | None,
    since: float | None,
    after: int | None,
) -> Mark:
    """Return a place in a room, see `Log.mark`."""
    room = room_named(connection, name)
    if room is None or room.first > room.seq:
        return Mark(last_id(connection), 0)
    if lines is not None:
        seq = max(room.first - 1, room.seq - lines)
    elif since is not None:
        seq = _last_with(connection, room, lambda event_id, time: time < since)
    else:
        seq = _last_with(connection, room, lambda event_id, time: event_id <= (after or 0))
    if seq >= room.first:
        place, _ = _at(connection, room, seq)
    else:
        place = _at(connection, room, room.first)[0] - 1
    return Mark(place, room.seq - seq)


def search(connection: sqlite3.Connection, name: str, words: Sequence[Word], limit: int) -> Found:
    """Return what the index has of a room, see `Log.search`."""
    room = room_named(connection, name)
    if room is None or room.indexed is None:
        return Found([], 0)
    wanted = " AND ".join(f'"{word.text}"{"*" if word.is_beginning else ""}' for word in words)
    end = monotonic() + SEARCH
    connection.set_progress_handler(lambda: monotonic() > end, PROGRESS)
    try:
        ids = connection.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?",
            (f"room : {_token(room)} AND {{sender text}} : ({wanted})", limit),
        ).fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        raise StoreError("too many lines have words like these: give a rarer one") from None
    finally:
        connection.set_progress_handler(None, 0)
    found: list[Event] = []
    for (event_id,) in reversed(ids):
        found += page(connection, name, event_id - 1, None, 1)
    return Found(found, room.seq - max(room.indexed, room.first - 1))


def index(connection: sqlite3.Connection, room: RoomRow, limit: int) -> None:
    """Put the next `limit` events of `room` into the index."""
    start = max(room.indexed or 0, room.first - 1)
    end = min(start + limit, room.seq)
    connection.execute(
        "INSERT INTO words (rowid, room, sender, text) SELECT id, ?, sender, text FROM events "
        f"WHERE room = ? AND seq > ? AND seq <= ? AND kind IN ({_TALK})",
        (_token(room), room.id, start, end),
    )
    connection.execute("UPDATE rooms SET indexed = ? WHERE id = ?", (end, room.id))


def remove(connection: sqlite3.Connection, room: RoomRow, upto: int) -> None:
    """Remove the events of `room` with numbers up to `upto`, also from the index."""
    if room.indexed is not None:
        connection.execute(
            "INSERT INTO words (words, rowid, room, sender, text) "
            "SELECT 'delete', id, ?, sender, text FROM events "
            f"WHERE room = ? AND seq <= ? AND kind IN ({_TALK})",
            (_token(room), room.id, min(upto, room.indexed)),
        )
    connection.execute("DELETE FROM events WHERE room = ? AND seq <= ?", (room.id, upto))
    connection.execute("UPDATE rooms SET first = ? WHERE id = ?", (upto + 1, room.id))


def last_since(connection: sqlite3.Connection, room: RoomRow, time: float) -> int:
    """Return the number of the last event of `room` before the Unix time `time`."""
    return _last_with(connection, room, lambda event_id, event_time: event_time < time)


def last_id(connection: sqlite3.Connection) -> int:
    """Return the last id that was given to an event."""
    found: int = connection.execute("SELECT last_id FROM state").fetchone()[0]
    return found


def _token(room: RoomRow) -> str:
    return f"r{room.id}"


def _at(connection: sqlite3.Connection, room: RoomRow, seq: int) -> tuple[int, float]:
    """Return the id and the time of the event with this number."""
    found: tuple[int, float] = connection.execute(
        "SELECT id, time FROM events WHERE room = ? AND seq >= ? ORDER BY seq LIMIT 1",
        (room.id, seq),
    ).fetchone()
    return found


def _last_with(
    connection: sqlite3.Connection, room: RoomRow, test: Callable[[int, float], bool]
) -> int:
    """Return the number of the last event for whose id and time `test` is true, and with it for all
    before; the number before the first one if it is for none.
    """
    low, high = room.first - 1, room.seq
    while low < high:
        middle = (low + high + 1) // 2
        if test(*_at(connection, room, middle)):
            low = middle
        else:
            high = middle - 1
    return low


def _events(
    connection: sqlite3.Connection, room: RoomRow, which: str, *values: object
) -> list[Event]:
    rows = connection.execute(_SELECT + which, (room.id, *values))
    name = room.name
    return [
        Event(event_id, seq, time, name, _KINDS[kind], *rest)
        for event_id, seq, time, kind, *rest in rows
    ]
