"""A session's place in one room: live, or catching up.

    live ──outbox above its high-water mark──► catching up
      ▲                                            │ the outbox is empty: read a page after
      └──────────the page ends at the head─────────┘ the position, send it, and again

A live cursor has no position of its own: it is where the room is. One that catches up holds the id
of the last event that its outbox was given, and no more; what it has missed stays in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatproto.session import Session

if TYPE_CHECKING:
    from chatproto.room import Room, Stretch

log = Logger()


class Cursor:
    """The place of `session` in `room`."""

    __slots__ = ("caught_up", "position", "reading", "room", "seq", "session")

    def __init__(self, room: Room, session: Session) -> None:
        """Make a live cursor; the room takes it in with `Room.enter`."""
        self.room = room
        self.session = session
        self.position = 0
        """The id of the last event given to the outbox; meaningful while catching up."""
        self.seq = 0
        """The number in the room of that event; a gap after it is what was lost."""
        self.caught_up = 0
        """How many events it was given since it fell behind."""
        self.reading: Deferred[Any] | None = None
        """The page that is being read."""

    def fall_behind(self, position: int, seq: int) -> None:
        """Begin to catch up from the event with this id and number."""
        self.position = position
        self.seq = seq
        self.caught_up = 0
        self.session.behind |= {self}

    def catch_up(self) -> None:
        """Read on from the position, unless that is already under way."""
        if self.reading is None and self in self.session.behind:
            reading = self.reading = self.room.stretch_after(self)
            reading.addCallback(self._read).addErrback(self._failed)

    def leave(self) -> None:
        """Stop reading: the session has left the room."""
        self.session.behind -= {self}
        if self.reading is not None:
            self.reading.cancel()

    def _read(self, stretch: Stretch) -> None:
        self.reading = None
        if self not in self.session.behind:
            return
        session = self.session
        events = stretch.events
        # The log may have lost what came next, or, when the page is empty, all there was.
        lost = (events[0].seq - 1 if events else self.room.seq) - self.seq
        if lost > 0:
            session.error(f"{lost} lines missed")
        if events:
            data, lines = stretch.for_session(session)
            if data:
                session.outbox.push(data, lines)
            self.position, self.seq = events[-1].id, events[-1].seq
            self.caught_up += len(events)
        else:
            self.position, self.seq = self.room.head, self.room.seq
        if self.position >= self.room.head:
            session.behind -= {self}
            self.room.go_live(self)
            log.info(
                "client {client} caught up with {count} lines",
                event="caught-up",
                client=session.id,
                count=self.caught_up,
            )
            if not session.outbox.busy:
                session.drained()
        elif not session.outbox.busy:
            self.room.soon(self.catch_up)

    def _failed(self, failure: Failure) -> None:
        self.reading = None
        if failure.check(CancelledError) is None:
            log.failure("client {client} failed to catch up", failure, client=self.session.id)
            self.session.hang_up("an error in the server")
