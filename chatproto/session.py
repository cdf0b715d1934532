"""One connected client as the core sees it: who it is, where it is, and what it wants to see.

A session is in one room, and with a nick also the only member of its inbox, the room in which the
private messages to that nick are events. Its place in each room is a `Cursor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from chatproto.codec import Codec
from chatproto.model import Event
from chatproto.text import fold

if TYPE_CHECKING:
    from chatproto.cursor import Cursor
    from chatproto.outbox import Outbox

HangUp = Callable[[str], None]
"""Ends a client's connection once all that was sent to it is out; takes the reason, for the log."""

NOBODY: Final[Mapping[str, int | None]] = MappingProxyType({})


class Session:
    """One client. Slots only, because ten thousand of them may be idle."""

    __slots__ = (
        "_waiters",
        "away",
        "behind",
        "codec",
        "connected_at",
        "effort",
        "hang_up",
        "id",
        "ignored",
        "inbox",
        "last_heard",
        "nick",
        "outbox",
        "place",
        "reply_to",
    )

    def __init__(
        self, session_id: int, codec: Codec, outbox: Outbox, hang_up: HangUp, now: float
    ) -> None:
        """Make the session of a new client that is nowhere yet; `now` in seconds of any clock."""
        self.id = session_id
        """Counts up from 1 with every client of this server; what the log calls the client."""
        self.codec = codec
        self.outbox = outbox
        self.hang_up = hang_up
        self.connected_at = now
        self.last_heard = now
        """When the client last said or asked something."""
        self.effort = 0
        """Lines that what it asked for counts for in its pace, beside its own."""
        self.nick = ""
        """The display name; empty for an anonymous client."""
        self.away = ""
        """Why it does not answer; empty when it does."""
        self.reply_to = 0
        """The id of the session that last wrote to it in private, 0 for none."""
        self.ignored: Mapping[str, int | None] = NOBODY
        """The folded nicks it does not want to hear, and the id of the session that had each nick
        then (or None), which stays ignored under another nick."""
        self.place: Cursor | None = None
        """Its place in its room; None before it has entered one."""
        self.inbox: Cursor | None = None
        """Its place in its inbox; None while it has no nick."""
        self._waiters: tuple[Deferred[None], ...] = ()
        self.behind: frozenset[Cursor] = frozenset()
        """The places where it is catching up."""

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.nick or 'anonymous'}>"

    @property
    def room(self) -> str:
        """The name of the room it is in, empty when in none."""
        return self.place.room.name if self.place is not None else ""

    def wants(self, event: Event) -> bool:
        """Tell whether this client is to see `event`: not its own, and not from the ignored."""
        if event.origin == self.id:
            return False
        return not self.ignores(event)

    def ignores(self, event: Event) -> bool:
        """Tell whether `event` is by somebody whom this client does not want to hear."""
        if not self.ignored:
            return False
        return fold(event.sender) in self.ignored or event.origin in self.ignored.values()

    def answer(self, text: str) -> None:
        """Answer a command; `text` may have several lines."""
        self.outbox.push(self.codec.answer(text), text.count("\n") + 1)

    def error(self, text: str) -> None:
        """Tell the client what it did wrong, or what went wrong for it."""
        self.outbox.push(self.codec.error(text), 1)

    def notice(self, text: str) -> None:
        """Tell the client what concerns everyone."""
        self.outbox.push(self.codec.notice(text), text.count("\n") + 1)

    def flushed(self) -> Deferred[None]:
        """Return what fires once all is sent and nothing is left to catch up with, or never can be.

        Whoever has much to say waits for this between pieces of it.
        """
        flushed: Deferred[None] = Deferred()
        self._waiters += (flushed,)
        if self.outbox.dead or (not self.outbox.busy and not self.behind):
            self.release()
        return flushed

    def drained(self) -> None:
        """The outbox is empty: go on with catching up."""
        for cursor in self.behind:
            cursor.catch_up()
        if not self.behind:
            self.release()

    def release(self) -> None:
        """Let go of those who wait for `flushed`."""
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            waiter.callback(None)
