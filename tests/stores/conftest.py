"""Stores that are open on the real reactor, and what they say.

A store may have threads of its own, so these tests wait for events, never for time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from chatproto.errors import StoreError
from chatproto.model import Draft, Event, Kind
from chatproto.stores import Store
from chatproto.stores.sqlite import sqlite_store
from chatproto.stores.sqlite.file import StoreFile
from chatproto.stores.sqlite.retention import Keep

Make = Callable[[Any, Callable[[], float]], Store]
"""Makes a store, from a reactor and what tells the Unix time."""

DEADLINE: Final = 20.0
"""Seconds after which a store that does not answer fails its test."""

EVER: Final = Keep()
"""Keep everything."""

P = ParamSpec("P")


def in_reactor(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, Deferred[None]]:
    """Let a coroutine be a test of pytest-twisted's, with a deadline."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> Deferred[None]:
        clock: Any = reactor
        return Deferred.fromCoroutine(test(*args, **kwargs)).addTimeout(DEADLINE, clock)

    return run


def draft(text: str, room: str = "lobby", kind: Kind = Kind.SAID, sender: str = "alice") -> Draft:
    """Return a draft of a text."""
    return Draft(room, kind, sender, text, 7)


def texts(events: Sequence[Event] | Sequence[Draft]) -> list[str]:
    """Return what the events or drafts say."""
    return [event.text for event in events]


def turn() -> Deferred[None]:
    """Return what fires when the reactor has turned, and the store's thread could have its turn.

    A reactor that only turns leaves Python's lock to nobody.
    """
    turned: Deferred[None] = Deferred()
    clock: Any = reactor
    clock.callLater(0.001, turned.callback, None)
    return turned


async def until(condition: Callable[[], bool]) -> None:
    """Turn the reactor until `condition` is true, for what announces itself in no other way."""
    while not condition():
        await turn()


def sqlite(path: Path, keep: Keep | None = EVER) -> Make:
    """Return what makes a store in the file `path`."""

    def make(reactor: Any, now: Callable[[], float]) -> Store:
        file = StoreFile(str(path))
        file.prepare()
        return sqlite_store(reactor, now, file, keep=keep)

    return make


class Opened:
    """A store that is open, and what it has delivered and refused."""

    def __init__(self, make: Make, time: float = 1_700_000_000.0) -> None:
        """Open a store, and collect what it delivers."""
        self.time = time
        self.store = make(reactor, lambda: self.time)
        self.log: Any  # also for what only one kind of log has
        self.log, self.directory, self.names = self.store
        self.delivered: list[Event] = []
        self.refused: list[Draft] = []
        self.errors: list[StoreError] = []
        self.on_delivery: Callable[[Sequence[Event]], None] = lambda events: None
        self._awaited: list[tuple[list[Any], int, Deferred[None]]] = []
        self.first_id = self.log.start(self._deliver, self._refuse)

    def has(self, number: int) -> Awaitable[None]:
        """Return what fires when so many events have been delivered."""
        return self._has(self.delivered, number)

    def has_refused(self, number: int) -> Awaitable[None]:
        """Return what fires when so many drafts have been refused."""
        return self._has(self.refused, number)

    async def say(self, *words: str, room: str = "lobby") -> list[Event]:
        """Append a draft for each word in one piece, and return the events once delivered."""
        before = len(self.delivered)
        self.log.append([draft(word, room) for word in words])
        await self.has(before + len(words))
        return self.delivered[before:]

    async def refuses(self, *words: str) -> StoreError:
        """Append a draft for each word in one piece, and return why they are refused."""
        before = len(self.refused)
        self.log.append([draft(word) for word in words])
        await self.has_refused(before + len(words))
        assert texts(self.refused[before:]) == [*words]
        return self.errors[-1]

    async def tries(self, word: str) -> None:
        """Append a draft, and wait until it is delivered or refused."""
        before = len(self.delivered) + len(self.refused)
        self.log.append([draft(word)])
        await until(lambda: len(self.delivered) + len(self.refused) > before)

    async def history(self, room: str = "lobby") -> list[Event]:
        """Return all that is kept of a room."""
        page = await self.log.page(room, after=0, limit=1_000_000)
        return [*page.events]

    def _has(self, what: list[Any], number: int) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._awaited.append((what, number, waiting))
        self._check()
        return waiting

    def _deliver(self, events: Sequence[Event]) -> None:
        self.delivered += events
        self.on_delivery(events)
        self._check()

    def _refuse(self, drafts: Sequence[Draft], error: StoreError) -> None:
        self.refused += drafts
        self.errors.append(error)
        self._check()

    def _check(self) -> None:
        due = [one for one in self._awaited if one[1] <= len(one[0])]
        self._awaited = [one for one in self._awaited if one not in due]
        for _, _, waiting in due:
            waiting.callback(None)


OpenStore = Callable[..., Opened]
"""Opens what a `Make` makes; it is closed at the end of the test."""


@pytest.fixture
def open_store() -> Iterator[OpenStore]:
    """Give a function that opens a store."""
    stores: list[Opened] = []

    def opening(make: Make, time: float = 1_700_000_000.0) -> Opened:
        stores.append(Opened(make, time))
        return stores[-1]

    yield opening
    for opened in stores:
        pytest_twisted.blockon(opened.log.stop())
