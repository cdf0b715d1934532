"""One connected client as the core sees it: who it is, where it is, and what it wants to see.

A session is in one room, and with a nick also the only member of its inbox, the room in which the
private messages to that nick are events. Its place in each room is a `Cursor`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from chatproto.address import Peer
from chatproto.codec import Codec
from chatproto.model import Event, Restriction
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
        "_sure",
        "_waiters",
        "account",
        "away",
        "behind",
        "codec",
        "connected_at",
        "effort",
        "hang_up",
        "id",
        "ignored",
        "inbox",
        "is_operator",
        "is_secure",
        "last_heard",
        "mute",
        "nick",
        "outbox",
        "peer",
        "place",
        "reply_to",
    )

    def __init__(
        self,
        session_id: int,
        codec: Codec,
        outbox: Outbox,
        hang_up: HangUp,
        peer: Peer,
        is_secure: bool,
        now: float,
    ) -> None:
        """Make the session of a new client that is nowhere yet; `now` in seconds of any clock."""
        self.id = session_id
        """Counts up from 1 with every client of this server; what the log calls the client."""
        self.codec = codec
        self.outbox = outbox
        self.hang_up = hang_up
        self.peer = peer
        """Where it comes from."""
        self.is_secure = is_secure
        """Whether nobody between us can read what it sends."""
        self.connected_at = now
        self.last_heard = now
        """When the client last said or asked something."""
        self.effort = 0
        """Lines that what it asked for counts for in its pace, beside its own."""
        self.nick = ""
        """The display name; empty for an anonymous client."""
        self.account = ""
        """The folded nick of the account it is logged in to, empty when in none."""
        self.is_operator = False
        """Whether it may moderate."""
        self.mute: Restriction | None = None
        """Why it may not speak, while that is in force."""
        self.away = ""
        """Why it does not answer; empty when it does."""
        self.reply_to: tuple[int, str] | None = None
        """The id of the session that last wrote to it in private, and the nick it had then."""
        self.ignored: Mapping[str, int | None] = NOBODY
        """The folded nicks it does not want to hear, and the id of the session that had each nick
        then (or None), which stays ignored under another nick."""
        self.place: Cursor | None = None
        """Its place in its room; None before it has entered one."""
        self.inbox: Cursor | None = None
        """Its place in its inbox; None while it has no nick."""
        self._sure: dict[Cursor, int] | None = None
        self._waiters: tuple[Deferred[None], ...] = ()
        self.behind: frozenset[Cursor] = frozenset()
        """The places where it is catching up."""

    def __repr__(self) -> str:
        return f"<Session {self.id} {self.nick or 'anonymous'}>"

    @property
    def room(self) -> str:
        """The name of the room it is in, empty when in none."""
        return self.place.room.name if self.place is not None else ""

    @property
    def cursors(self) -> list[Cursor]:
        """Its places: in its room, and in its inbox."""
        return [cursor for cursor in (self.place, self.inbox) if cursor is not None]

    def note_stuck(self) -> None:
        """What is being sent now waits: remember what the client has surely been sent."""
        self._sure = {cursor: cursor.place for cursor in self.cursors}
        for cursor in self.cursors:
            cursor.tell_place(cursor)

    def note_unsure(self, cursor: Cursor, place: int) -> None:
        """If something waits, the client has surely been sent no more than up to the id `place`."""
        if self._sure is not None:
            self._sure[cursor] = place

    def is_up_to(self, cursor: Cursor) -> bool:
        """Tell whether the client has been sent all that was delivered in the cursor's room."""
        return self._sure is None and cursor.is_live

    def sent_up_to(self, cursor: Cursor) -> int:
        """Return the id up to which the client has been sent what is in the cursor's room."""
        if self._sure is None:
            return cursor.place
        return self._sure.get(cursor, cursor.entered)

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
        if self._sure is not None:
            self._sure = None
            for cursor in self.cursors:
                cursor.tell_place(cursor)
        for cursor in self.behind:
            cursor.catch_up()
        if not self.behind:
            self.release()

    def release(self) -> None:
        """Let go of those who wait for `flushed`."""
        waiters, self._waiters = self._waiters, ()
        for waiter in waiters:
            waiter.callback(None)
