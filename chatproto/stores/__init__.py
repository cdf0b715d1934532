"""The ports behind which everything lives: the log, the directory and the names.

A store is one object for each; the hub is given the three and knows no more of where they keep
things. What may take time answers with a Deferred, already fired where the answer is at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from chatproto.model import Draft, Event, Page

Deliver = Callable[[Sequence[Event]], None]
"""Is called with events in the order of the log, once they are as durable as the store makes
them."""


class Log(Protocol):
    """The ordered sequence of events; assigns their ids."""

    def start(self, deliver: Deliver) -> None:
        """Open the log; from now on every event is handed to `deliver`, once and in order."""

    def append(self, drafts: Sequence[Draft]) -> None:
        """Queue `drafts` in order; they come back through `deliver`, never before this returns."""

    def page(
        self, room: str, *, after: int | None = None, before: int | None = None, limit: int
    ) -> Deferred[Page]:
        """Read at most `limit` events of `room`: the first ones after the id `after`, or the last
        ones before the id `before` (None: of all).
        """

    def stop(self) -> Deferred[None]:
        """Deliver what is queued, then close; fires when both are done."""


class Topic(NamedTuple):
    """What a room is about, and the nick of who said so."""

    text: str
    by: str


class Directory(Protocol):
    """What is known of rooms beside their events."""

    def topic(self, room: str) -> Deferred[Topic]:
        """Return the topic of `room`, with an empty text when it has none."""

    def set_topic(self, room: str, topic: Topic) -> Deferred[None]:
        """Keep the topic of `room`; an empty text removes it."""


class Names(Protocol):
    """Who holds which nick, so that it is one client's at a time wherever it is connected."""

    def claim(self, folded_nick: str, session: int) -> Deferred[bool]:
        """Give the nick to `session` unless another session has it; tell whether it was given."""

    def release(self, folded_nick: str, session: int) -> None:
        """Free the nick if `session` has it."""


class Store(NamedTuple):
    """The three ports of one store."""

    log: Log
    directory: Directory
    names: Names
