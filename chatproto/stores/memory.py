"""The store that keeps everything in memory: fast, and gone when the server stops.

A draft waits until the reactor has looked at the network once more, so that all that has come in
the meantime is one batch; then it gets its id, goes into its room's ring, and is delivered. The
second look costs one poll that does not wait, and doubles the batches of a few busy clients
(docs/decisions/0002-outbox.md has the figures).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import dropwhile, islice
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from chatproto.model import (
    TALK,
    Account,
    Draft,
    Event,
    Found,
    Mark,
    Page,
    Restriction,
)
from chatproto.stores import Deliver, Refused, Store, Topic
from chatproto.stores.recent import ROOMS, Recent
from chatproto.stores.words import matches, query
from chatproto.text import fold

POSITIONS: Final = 100_000
"""Read positions kept; beyond it the oldest are forgotten."""

_NO_TOPIC: Final = Topic("", "")


class MemoryLog:
    """The log in memory: a ring for each room, ids from a counter."""

    def __init__(
        self,
        clock: IReactorTime,
        now: Callable[[], float],
        *,
        recent: Recent | None = None,
        last_id: int = 0,
    ) -> None:
        """Batch by the turns of `clock`; `now` returns the Unix time in seconds.

        The first id is the one after `last_id`.
        """
        self._clock = clock
        self._now = now
        self._recent = recent or Recent()
        self._last_id = last_id
        self._queue: list[Draft] = []
        self._turn: IDelayedCall | None = None
        self._deliver: Deliver

    def start(self, deliver: Deliver, refused: Refused) -> int:
        """Deliver to `deliver` from now on; nothing is ever refused."""
        self._deliver = deliver
        return self._last_id

    def append(self, drafts: Sequence[Draft]) -> None:
        """Queue `drafts` until the network has been looked at again."""
        if not drafts:
            return
        self._queue.extend(drafts)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._gather)

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Read from the room's ring."""
        ring = self._recent.ring(room)
        if ring is None:
            return succeed(Page(()))
        if after is not None:
            return succeed(Page(ring.after(after, limit)))
        return succeed(Page(ring.before(before, limit)))

    def mark(
        self,
        room: str,
        *,
        lines: int | None = None,
        since: float | None = None,
        after: int | None = None,
    ) -> Deferred[Mark]:
        """Look in the room's ring."""
        ring = self._recent.ring(room)
        events = ring.before(None, len(ring)) if ring is not None else ()
        if lines is not None:
            events = events[-lines:] if lines else ()
        elif since is not None:
            events = [*dropwhile(lambda event: event.time < since, events)]
        else:
            events = [event for event in events if after is None or event.id > after]
        return succeed(Mark(events[0].id - 1 if events else self._last_id, len(events)))

    def search(self, room: str, words: str, limit: int) -> Deferred[Found]:
        """Look at every event in the room's ring."""
        ring = self._recent.ring(room)
        wanted = query(words)
        if ring is None or not wanted:
            return succeed(Found((), 0))
        found = (
            event
            for event in reversed(ring.before(None, len(ring)))
            if event.kind in TALK and matches(wanted, f"{event.sender} {event.text}")
        )
        return succeed(Found([*islice(found, limit)][::-1], 0))

    def forget(self, room: str) -> None:
        """Let the room's ring go."""
        self._recent.forget(room)

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
        self._recent.trim()
        self._deliver(events)

    def _place(self, draft: Draft, now: float) -> Event:
        self._last_id += 1
        event = Event(self._last_id, self._recent.last_seq(draft.room) + 1, now, *draft)
        self._recent.add(event)
        return event


class MemoryDirectory:
    """Everything beside the events, in memory."""

    def __init__(self) -> None:
        """Start with nothing known."""
        self._topics: OrderedDict[str, Topic] = OrderedDict()
        self._accounts: dict[str, Account] = {}
        self._positions: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._restrictions: dict[tuple[str, str], Restriction] = {}

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

    def account(self, folded_nick: str) -> Deferred[Account | None]:
        """Return the account at once."""
        return succeed(self._accounts.get(folded_nick))

    def accounts(self) -> Deferred[Sequence[Account]]:
        """Return all accounts at once."""
        return succeed([self._accounts[name] for name in sorted(self._accounts)])

    def add_account(self, account: Account) -> Deferred[bool]:
        """Keep the account unless there is one."""
        name = fold(account.nick)
        if name in self._accounts:
            return succeed(False)
        self._accounts[name] = account
        return succeed(True)

    def change_account(
        self,
        folded_nick: str,
        *,
        secret: str | None = None,
        is_operator: bool | None = None,
        address: str | None = None,
    ) -> Deferred[bool]:
        """Change the account."""
        account = self._accounts.get(folded_nick)
        if account is None:
            return succeed(False)
        given = {"secret": secret, "is_operator": is_operator, "address": address}
        changes: dict[str, Any] = {key: new for key, new in given.items() if new is not None}
        self._accounts[folded_nick] = account._replace(**changes)
        return succeed(True)

    def remove_account(self, folded_nick: str) -> Deferred[bool]:
        """Forget the account and its positions."""
        for key in [key for key in self._positions if key[0] == folded_nick]:
            del self._positions[key]
        return succeed(self._accounts.pop(folded_nick, None) is not None)

    def position(self, folded_nick: str, room: str) -> Deferred[int | None]:
        """Return the position at once."""
        return succeed(self._positions.get((folded_nick, room)))

    def set_position(self, folded_nick: str, room: str, position: int | None) -> Deferred[None]:
        """Keep the position; who is there now needs none, as nothing survives the process."""
        self._positions.pop((folded_nick, room), None)
        if position is not None:
            self._positions[folded_nick, room] = position
            if len(self._positions) > POSITIONS:
                self._positions.popitem(last=False)
        return succeed(None)

    def restrictions(self) -> Deferred[Sequence[Restriction]]:
        """Return them at once."""
        return succeed(sorted(self._restrictions.values(), key=lambda one: (one.subject, one.kind)))

    def add_restriction(self, restriction: Restriction) -> Deferred[None]:
        """Keep it."""
        self._restrictions[restriction.kind, restriction.subject] = restriction
        return succeed(None)

    def remove_restriction(self, kind: str, subject: str) -> Deferred[bool]:
        """Forget it."""
        return succeed(self._restrictions.pop((kind, subject), None) is not None)


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
