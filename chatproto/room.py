"""The members of one room, and the delivery of its events to them.

    events from the log ─► batches ─► one encoding for each codec ─► every live member's outbox
                                                    └─ a member that spoke in the batch, or that
                                                       ignores somebody: its own selection

The cost of a batch is messages plus members, not messages times members. Nothing is awaited here:
a member whose outbox is full is left where it is, and its cursor catches up from the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chatproto.codec import Codec
from chatproto.cursor import Cursor
from chatproto.model import Event, Page
from chatproto.session import Session
from chatproto.stores import Log

BATCH_BYTES: Final = 64 * 1024
"""Bytes delivered as one piece, at most about so many; with the high-water mark it bounds what an
outbox can hold."""

FORM: Final = 64
"""Bytes that the wire form of an event has beside its text, at most about so many."""

PAGE_EVENTS: Final = 256
"""Events that a catching-up session is given at a time."""

STRETCHES: Final = 32
"""Encoded stretches kept for others who catch up through the same part of the log."""

Send = Callable[[bytes, int], bool]
Soon = Callable[[Callable[[], object]], object]
"""Calls something in the next turn of the reactor."""

log = Logger()


class Stretch:
    """Some events of a room, encoded by one codec; shared by all who are given them."""

    __slots__ = ("_data", "_lines", "events")

    def __init__(self, events: Sequence[Event], codec: Codec) -> None:
        """Encode `events` once."""
        self.events = events
        self._lines = codec.lines(events)
        self._data = b"".join(self._lines)

    def for_everyone(self) -> tuple[bytes, int]:
        """Return the bytes of all events and how many lines they are."""
        return self._data, len(self._lines)

    def for_session(self, session: Session) -> tuple[bytes, int]:
        """Return the bytes of the events that `session` wants, and how many lines they are."""
        wanted = [
            line
            for event, line in zip(self.events, self._lines, strict=True)
            if session.wants(event)
        ]
        if len(wanted) == len(self._lines):
            return self._data, len(wanted)
        return b"".join(wanted), len(wanted)


class Room:
    """A named set of sessions that see the same events."""

    def __init__(self, name: str, store_log: Log, soon: Soon) -> None:
        """Make an empty room whose events are in `store_log`."""
        self.name = name
        self.members: dict[int, Cursor] = {}
        """The place of each session in the room, by session id, in the order of entering."""
        self.head = 0
        """The id of the last event delivered here."""
        self.seq = 0
        """The number of that event in the room."""
        self.soon = soon
        self._log = store_log
        self._live: dict[Codec, dict[int, Send]] = {}
        self._choosy: set[int] = set()
        self._stretches: OrderedDict[tuple[Codec, int], Stretch] = OrderedDict()

    @property
    def sessions(self) -> Iterator[Session]:
        """The sessions in the room, in the order of entering."""
        return (cursor.session for cursor in self.members.values())

    def enter(self, session: Session) -> Cursor:
        """Take `session` in; it is live from now on."""
        cursor = self.members[session.id] = Cursor(self, session)
        self.go_live(cursor)
        self.choose(session)
        return cursor

    def leave(self, session: Session) -> None:
        """Let `session` go."""
        cursor = self.members.pop(session.id)
        cursor.leave()
        self.stop_live(session)
        self._choosy.discard(session.id)

    def go_live(self, cursor: Cursor) -> None:
        """Give a cursor that is at the head every batch from now on."""
        session = cursor.session
        if self._stretches and not any(one.session.behind for one in self.members.values()):
            self._stretches.clear()
        self._live.setdefault(session.codec, {})[session.id] = session.outbox.send

    def choose(self, session: Session) -> None:
        """Note that what `session` ignores has changed."""
        (self._choosy.add if session.ignored else self._choosy.discard)(session.id)

    def stop_live(self, session: Session) -> bool:
        """Send `session` no more batches, and tell whether it was live; see `go_live`."""
        live = self._live.get(session.codec, {})
        was_live = live.pop(session.id, None) is not None
        if was_live and not live:
            del self._live[session.codec]
        return was_live

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand `events`, the next ones of this room, to everyone who is live."""
        for batch in batches(events):
            self._deliver_batch(batch)

    def stretch_after(self, cursor: Cursor) -> Deferred[Stretch]:
        """Read what comes next for `cursor`, encoded."""
        codec = cursor.session.codec
        key = (codec, cursor.position)
        # Pages end at the same events for everyone, so that they can be shared.
        limit = PAGE_EVENTS - cursor.seq % PAGE_EVENTS

        def encode(page: Page) -> Stretch:
            stretch = self._stretches.get(key)
            if stretch is None:
                # What is stored but not yet delivered comes with its batch.
                known = [event for event in page.events if event.id <= self.head]
                events = next(batches(known), known)
                stretch = Stretch(events, codec)
                if len(events) == limit or len(events) < len(known):
                    self._stretches[key] = stretch
                    if len(self._stretches) > STRETCHES:
                        self._stretches.popitem(last=False)
            return stretch

        return self._log.page(self.name, after=cursor.position, limit=limit).addCallback(encode)

    def _deliver_batch(self, batch: Sequence[Event]) -> None:
        selective = {event.origin for event in batch} | self._choosy
        late: list[int] = []
        broken: list[int] = []
        for codec, live in self._live.items():
            stretch = Stretch(batch, codec)
            data, lines = stretch.for_everyone()
            for session_id, send in live.items():
                try:
                    if session_id in selective:
                        own = stretch.for_session(self.members[session_id].session)
                        taken = not own[0] or send(*own)
                    else:
                        taken = send(data, lines)
                except Exception:
                    log.failure("client {client} failed", client=session_id)
                    broken.append(session_id)
                else:
                    if not taken:
                        late.append(session_id)
        self.head, self.seq = batch[-1].id, batch[-1].seq
        for session_id in late:
            cursor = self.members[session_id]
            self.stop_live(cursor.session)
            cursor.fall_behind(batch[0].id - 1, batch[0].seq - 1)
        for session_id in broken:
            self.members[session_id].session.hang_up("an error in the server")


def batches(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Cut `events` into pieces of at most about `BATCH_BYTES` when written out."""
    start = size = 0
    for index, event in enumerate(events):
        text = event.text
        written = FORM + (len(text) if text.isascii() else len(text.encode()))
        size += written
        if size > BATCH_BYTES and index > start:
            yield events[start:index]
            start, size = index, written
    if start < len(events):
        yield events[start:] if start else events
