"""The store that keeps everything in memory: fast, and gone when the server stops.

A draft waits until the reactor has looked at the network once more, so that all that has come in
the meantime is one batch; then it gets its id, goes into its room's ring, and is delivered. The
second look costs one poll that does not wait, and doubles the batches of a few busy clients
(docs/decisions/0002-outbox.md has the figures).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatproto.model import Draft, Event, Page
from chatproto.stores import Deliver, Store, Topic
from chatproto.stores.ring import Ring

TOTAL_BYTES: Final = 64 * 1024 * 1024
"""About so many bytes of events kept over all rooms; beyond it the rooms that were silent for the
longest time lose theirs."""

ROOMS: Final = 10_000
"""Rooms remembered after their last event."""

_NO_TOPIC: Final = Topic("", "")


class MemoryLog:
    """The log in memory: a ring for each room, ids from a counter."""

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        *,
        make_ring: Callable[[], Ring] = Ring,
        total_bytes: int = TOTAL_BYTES,
    ) -> None:
        """Batch by the turns of `clock`; `now` returns the Unix time in seconds."""
        self._clock = clock
        self._now = now
        self._make_ring = make_ring
        self._total_bytes = total_bytes
        self._rings: OrderedDict[str, Ring] = OrderedDict()  # the most recently used last
        self._bytes = 0
        self._last_id = 0
        self._queue: list[Draft] = []
        self._turn: IDelayedCall | None = None
        self._deliver: Deliver

    def start(self, deliver: Deliver) -> None:
        """Deliver to `deliver` from now on."""
        self._deliver = deliver

    def append(self, drafts: Sequence[Draft]) -> None:
        """Queue `drafts` until the network has been looked at again."""
        self._queue.extend(drafts)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._gather)

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Read from the room's ring."""
        ring = self._rings.get(room)
        if ring is None:
            return succeed(Page(()))
        if after is not None:
            return succeed(Page(ring.after(after, limit)))
        return succeed(Page(ring.before(before, limit)))

    def stop(self) -> Deferred[None]:
        """Deliver what is queued."""
        if self._turn is not None:
            self._turn.cancel()
            self._commit()
        return succeed(None)

    def _gather(self) -> None:
        self._turn = self._clock.callLater(0, self._commit)

    def _commit(self) -> None:
        self._turn = None
        queue, self._queue = self._queue, []
        now = self._now()
        events = [self._place(draft, now) for draft in queue]
        self._forget()
        self._deliver(events)

    def _place(self, draft: Draft, now: float) -> Event:
        ring = self._rings.get(draft.room)
        if ring is None:
            ring = self._rings[draft.room] = self._make_ring()
        else:
            self._rings.move_to_end(draft.room)
        self._last_id += 1
        event = Event(self._last_id, ring.last_seq + 1, now, *draft)
        self._bytes += ring.add(event)
        return event

    def _forget(self) -> None:
        """Keep within the bounds over all rooms: the longest silent room goes first."""
        while len(self._rings) > ROOMS:
            self._bytes -= self._rings.popitem(last=False)[1].clear()
        if self._bytes > self._total_bytes:
            for ring in self._rings.values():  # the ring itself stays, for its numbers
                self._bytes -= ring.clear()
                if self._bytes <= self._total_bytes:
                    break


class MemoryDirectory:
    """Topics in memory, of the rooms that were given one most recently."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._topics: OrderedDict[str, Topic] = OrderedDict()

    def topic(self, room: str) -> Deferred[Topic]:
        """Return the topic at once."""
        return succeed(self._topics.get(room, _NO_TOPIC))

    def set_topic(self, room: str, topic: Topic) -> Deferred[None]:
        """Keep the topic, and let go of the oldest beyond the bound."""
        self._topics.pop(room, None)
        if topic.text:
            self._topics[room] = topic
            if len(self._topics) > ROOMS:
                self._topics.popitem(last=False)
        return succeed(None)


class LocalNames:
    """The nicks of one server: first come, first served."""

    def __init__(self) -> None:
        """Start with every nick free."""
        self._holders: dict[str, int] = {}

    def claim(self, folded_nick: str, session: int) -> Deferred[bool]:
        """Answer at once."""
        return succeed(self._holders.setdefault(folded_nick, session) == session)

    def release(self, folded_nick: str, session: int) -> None:
        """Free the nick if `session` has it."""
        if self._holders.get(folded_nick) == session:
            del self._holders[folded_nick]


def memory_store(clock: IReactorTime, now: Callable[[], float]) -> Store:
    """Return a store that forgets everything when the process ends."""
    return Store(MemoryLog(clock, now), MemoryDirectory(), LocalNames())
