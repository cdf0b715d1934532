"""The log in a SQLite file.

    append ─► a batch ─► the next round of the writer: ids, numbers, one transaction ─► deliver
    page ─► the ring in memory, where that reaches back far enough, else a job on the file
    once a second, and before a search: the next events into the index

Ids and numbers are given in the writer's thread, where they are known to be the next ones; when a
transaction fails they have not been given.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatproto.errors import StoreError
from chatproto.model import Draft, Event, Found, Mark, Page, is_inbox
from chatproto.stores import Deliver, Refused
from chatproto.stores.recent import ROOMS, Recent
from chatproto.stores.ring import EVENT_BYTES
from chatproto.stores.sqlite import rows
from chatproto.stores.sqlite.retention import Retention, condemn, condemn_guests
from chatproto.stores.sqlite.writer import Writer
from chatproto.stores.words import query

log = Logger()

WAITING: Final = 32 * 1024 * 1024
"""About so many bytes of drafts may wait for a disk that does not answer; more are refused."""

HOUSEKEEPING: Final = 1.0
"""Seconds between two looks at what is to be indexed or removed."""

STEPS: Final = 40
"""Steps of indexing or removing in one look, each of which lets what waits go first."""

INDEX_STEP: Final = 250
"""Events that are indexed in one transaction, about 5 ms of work."""

SEARCH_STEPS: Final = 20
"""Such steps that a search waits for at most; then it tells how much it has not searched."""

SETTLE: Final = 0.05
"""Seconds without a line until the file is told that the last ones were delivered."""


class SqliteLog:
    """Events in the file of `writer`; the newest ones also in memory."""

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        writer: Writer,
        retention: Retention,
        *,
        recent: Recent | None = None,
    ) -> None:
        """Keep events as long as `retention` says; `now` returns the Unix time in seconds."""
        self._reactor = reactor
        self._now = now
        self._writer = writer
        self._retention = retention
        self._recent = recent or Recent()
        self._deliver: Deliver
        self._refused: Refused
        self._batch: list[Draft] = []  # what goes into the round that is gathering
        self._round = -1  # which one that is
        self._waiting = 0  # bytes that are in no transaction yet
        self._delivered = 0  # the last id handed out for delivery
        self._first_id = 0  # the last one of the runs before this
        self._settling: IDelayedCall | None = None
        self._housekeeping = LoopingCall(self._keep_house)
        self._housekeeping.clock = reactor
        # The rest belongs to the writer's thread.
        self._last_id = 0
        self._is_known = False  # whether the file has been asked for its last id
        self._rooms: OrderedDict[str, tuple[int, int]] = OrderedDict()  # id of the row, last number

    # In the reactor's thread.

    def start(self, deliver: Deliver, refused: Refused) -> int:
        """Open the file; raises `StoreError`."""
        self._deliver, self._refused = deliver, refused
        self._first_id = self._delivered = self._writer.open(self._reset, _begin)
        running = self._housekeeping.start(HOUSEKEEPING, now=False)
        running.addErrback(lambda failure: log.failure("the store is not looked after", failure))
        return self._first_id

    def append(self, drafts: Sequence[Draft]) -> None:
        """Queue `drafts` for the next transaction; refuse them when too much waits already."""
        if not drafts:
            return
        if self._waiting > WAITING:
            error = StoreError("the disk does not keep up")
            self._reactor.callLater(0, self._refused, drafts, error)
            return
        if self._round != self._writer.gathering:
            self._round = self._writer.gathering
            self._batch = []
            written = self._writer.write(partial(self._commit, self._batch))
            written.addCallbacks(self._committed, self._failed, errbackArgs=(self._batch,))
            written.addErrback(lambda failure: log.failure("delivery failed", failure))
        self._batch += drafts
        self._writer.give_way()
        self._waiting += _weight(drafts)

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Read from memory where that reaches back far enough, else from the file."""
        ring = self._recent.ring(room)
        if ring is not None:
            if after is None:
                events = ring.before(before, limit)
                if len(events) == limit:
                    return succeed(Page(events))
            elif ring.reaches(after):
                return succeed(Page(ring.after(after, limit)))
        job = partial(rows.page, name=room, after=after, before=before, limit=limit)
        return self._writer.read(job).addCallback(lambda events: Page(self._of_now(events)))

    def mark(
        self,
        room: str,
        *,
        lines: int | None = None,
        since: float | None = None,
        after: int | None = None,
    ) -> Deferred[Mark]:
        """Find the place in the file."""
        job = partial(rows.mark, name=room, lines=lines, since=since, after=after)
        return self._writer.read(job)

    def search(self, room: str, words: str, limit: int) -> Deferred[Found]:
        """Bring the index up to date, as far as that is quickly done, and look there."""
        return Deferred.fromCoroutine(self._search(room, words, limit))

    def forget(self, room: str) -> None:
        """Condemn the room; it is removed in small steps."""
        self._recent.forget(room)
        self._round = -1  # what is appended from now on comes after this
        condemned = self._writer.write(partial(self._condemn, room))
        # What was appended before and not delivered yet has come into memory by then.
        condemned.addCallbacks(lambda _: self._recent.forget(room), _told)
        self._retention.soon()

    def stop(self) -> Deferred[None]:
        """Store and deliver what is queued, and close."""
        if self._housekeeping.running:
            self._housekeeping.stop()
        if self._settling is not None and self._settling.active():
            self._settling.cancel()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            await self._writer.write(lambda connection: None)  # fires after all that was asked for
            await self._writer.write(self._note_delivered)
        except StoreError:
            pass  # told to those who waited
        await self._writer.stop()

    def _committed(self, events: list[Event]) -> None:
        self._waiting -= _weight(events)
        add = self._recent.add
        for event in events:
            add(event)
        self._recent.trim()
        self._deliver(events)
        self._delivered = events[-1].id
        if self._settling is not None and self._settling.active():
            self._settling.reset(SETTLE)
        elif self._housekeeping.running:
            self._settling = self._reactor.callLater(SETTLE, self._settle)

    def _failed(self, failure: Failure, batch: list[Draft]) -> None:
        self._waiting -= _weight(batch)
        if not isinstance(failure.value, StoreError):
            failure.raiseException()
        self._refused(batch, failure.value)

    def _settle(self) -> None:
        self._writer.write(self._note_delivered).addErrback(_told)

    def _of_now(self, events: list[Event]) -> list[Event]:
        """Take the origin from events of earlier runs: sessions count from 1 in every run."""
        first_id = self._first_id
        return [event if event.id > first_id else event._replace(origin=0) for event in events]

    async def _search(self, room: str, words: str, limit: int) -> Found:
        wanted = query(words)
        if not wanted:
            return Found((), 0)
        index = partial(_index, where="WHERE name = ? AND indexed < seq", values=(room,))
        for _ in range(SEARCH_STEPS):
            if not await self._writer.write_slowly(index):
                break
        search = partial(rows.search, name=room, words=wanted, limit=limit)
        found = await self._writer.read_slowly(search)
        return Found(self._of_now([*found.events]), found.unsearched)

    def _keep_house(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._do_steps())

    async def _do_steps(self) -> None:
        """Index what is new and remove what is too old, whenever nobody waits for the file."""
        index = partial(_index, where="WHERE indexed < seq LIMIT 1", values=())
        try:
            for _ in range(STEPS):
                if not await self._writer.write_later(index):
                    break
            for _ in range(STEPS):
                if not self._retention.is_due():
                    break
                await self._writer.write_later(self._retention.step)
        except (StoreError, CancelledError):
            pass  # what failed is done again in a second

    # In the writer's thread.

    def _reset(self) -> None:
        """Ask the file again before the next ids and numbers are given."""
        self._is_known = False
        self._rooms.clear()

    def _commit(self, batch: list[Draft], connection: sqlite3.Connection) -> list[Event]:
        if not self._is_known:
            # The file may have been replaced by an older one: what was given stays given.
            self._last_id = max(self._last_id, rows.last_id(connection))
            self._is_known = True
        now = self._now()
        event_id = self._last_id
        places: dict[str, tuple[int, int]] = {}
        events: list[Event] = []
        for draft in batch:
            name = draft.room
            room_id, seq = places.get(name) or self._room(connection, name)
            seq += 1
            event_id += 1
            places[name] = room_id, seq
            events.append(Event(event_id, seq, now, *draft))
        rows.insert(connection, {name: place[0] for name, place in places.items()}, events)
        for room_id, seq in places.values():
            connection.execute("UPDATE rooms SET seq = ? WHERE id = ?", (seq, room_id))
        connection.execute(
            "UPDATE state SET last_id = ?, delivered = ?", (event_id, self._delivered)
        )
        self._last_id = event_id
        self._rooms.update(places)
        while len(self._rooms) > ROOMS:
            self._rooms.popitem(last=False)
        return events

    def _room(self, connection: sqlite3.Connection, name: str) -> tuple[int, int]:
        """Return the id of the row of the room `name`, and its last number."""
        known = self._rooms.get(name)
        if known is not None:
            return known
        room = rows.room_named(connection, name)
        if room is not None:
            return room.id, room.seq
        added = connection.execute(
            "INSERT INTO rooms (name, indexed) VALUES (?, ?)", (name, None if is_inbox(name) else 0)
        )
        return added.lastrowid or 0, 0

    def _condemn(self, room: str, connection: sqlite3.Connection) -> None:
        self._rooms.pop(room, None)
        condemn(connection, room)

    def _note_delivered(self, connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE state SET delivered = ?", (self._delivered,))


def _begin(connection: sqlite3.Connection) -> int:
    """Settle what the last run has left, and return its last id."""
    # Who was there when it was cut off has been shown what it delivered.
    connection.execute(
        "UPDATE positions SET position = (SELECT delivered FROM state) WHERE position IS NULL"
    )
    condemn_guests(connection)
    return rows.last_id(connection)


def _index(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> bool:
    """Put the next events of a room into the index, and tell whether there may be more."""
    for room in rows.rooms(connection, where, *values):
        rows.index(connection, room, INDEX_STEP)
        return True
    return False


def _weight(drafts: Sequence[Draft | Event]) -> int:
    return sum(EVENT_BYTES + len(draft.text) for draft in drafts)


def _told(failure: Failure) -> None:
    """A failure of the store is in the log already."""
    failure.trap(StoreError, CancelledError)
