"""The members of one room, and the delivery of its events to them.

    events from the log ─► batches ─► one encoding for each codec ─► every live member's outbox
                                                    └─ a member that spoke in the batch, or that
                                                       ignores somebody: its own selection

The cost of a batch is messages plus members, not messages times members. Nothing is awaited here:
a member whose outbox is full is left where it is, and its cursor catches up from the log.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatproto.codec import Codec
from chatproto.cursor import UNKNOWN, Cursor
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
Later = Callable[[float, Callable[[], object]], object]
"""Calls something in so many seconds."""

log = Logger()


class Stretch:
    """Some events of a room, encoded by one codec; shared by all who are given them."""

    __slots__ = ("_data", "_lines", "_places", "events")

    def __init__(self, events: Sequence[Event], codec: Codec) -> None:
        """Encode `events` once."""
        self.events = events
        self._lines = codec.lines(events)
        self._data = b"".join(self._lines)
        self._places: dict[int, list[int]] = {}
        """Where the events of each origin stand."""
        for place, event in enumerate(events):
            self._places.setdefault(event.origin, []).append(place)

    def for_everyone(self) -> tuple[bytes, int]:
        """Return the bytes of all events and how many lines they are."""
        return self._data, len(self._lines)

    def for_session(self, session: Session) -> tuple[bytes, int]:
        """Return the bytes of the events that `session` wants, and how many lines they are."""
        if session.ignored:
            pairs = zip(self.events, self._lines, strict=True)
            wanted = [line for event, line in pairs if session.wants(event)]
        elif session.id in self._places:
            wanted = self._lines.copy()
            for place in reversed(self._places[session.id]):
                del wanted[place]
        else:
            return self.for_everyone()
        return b"".join(wanted), len(wanted)

    @property
    def origins(self) -> Set[int]:
        """The ids of the sessions that these events are from."""
        return self._places.keys()


class Room:
    """A named set of sessions that see the same events."""

    def __init__(self, name: str, store_log: Log, later: Later, head: int) -> None:
        """Make an empty room whose events are in `store_log`, delivered up to the id `head`."""
        self.name = name
        self.members: dict[int, Cursor] = {}
        """The place of each session in the room, by session id, in the order of entering."""
        self.head = head
        """The id up to which everything has been delivered here."""
        self.seq = UNKNOWN
        """The number in the room of the last event, once one has been delivered here."""
        self.later = later
        self._log = store_log
        self._live: dict[Codec, dict[int, Send]] = {}
        self._choosy: set[int] = set()
        self._stretches: OrderedDict[tuple[Codec, int], Stretch] = OrderedDict()
        self._reading: dict[tuple[Codec, int], list[Deferred[Stretch]]] = {}

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
        """Read what comes next for `cursor`, encoded; once for all who ask for the same."""
        codec = cursor.session.codec
        key = (codec, cursor.position)
        known = self._stretches.get(key)
        if known is not None:
            return succeed(known)
        answer: Deferred[Stretch] = Deferred()
        waiting = self._reading.setdefault(key, [])
        waiting.append(answer)
        if len(waiting) == 1:
            # Pages end at the same events for everyone, so that they can be shared.
            limit = PAGE_EVENTS - (0 if cursor.seq == UNKNOWN else cursor.seq % PAGE_EVENTS)
            page = self._log.page(self.name, after=cursor.position, limit=limit)
            page.addCallback(self._encode, key, limit).addBoth(self._answer, key)
        return answer

    def _encode(self, page: Page, key: tuple[Codec, int], limit: int) -> Stretch:
        # What is stored but not yet delivered comes with its batch.
        known = [event for event in page.events if event.id <= self.head]
        events = next(batches(known), known)
        stretch = Stretch(events, key[0])
        if len(events) == limit or len(events) < len(known):
            self._stretches[key] = stretch
            if len(self._stretches) > STRETCHES:
                self._stretches.popitem(last=False)
        return stretch

    def _answer(self, result: Stretch | Failure, key: tuple[Codec, int]) -> None:
        for waiting in self._reading.pop(key):
            if waiting.called:  # it has left
                continue
            if isinstance(result, Failure):
                waiting.errback(result)
            else:
                waiting.callback(result)

    def _deliver_batch(self, batch: Sequence[Event]) -> None:
        late: list[int] = []
        broken: list[int] = []
        for codec, live in self._live.items():
            stretch = Stretch(batch, codec)
            data, lines = stretch.for_everyone()
            selective = stretch.origins | self._choosy
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
