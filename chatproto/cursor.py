"""A session's place in one room: live, or catching up.

    live ──outbox above its high-water mark──► catching up
      ▲                                            │ the outbox is empty: read a page after
      └──────────the page ends at the head─────────┘ the position, send it, and again

A cursor can also be held: nothing is sent while its session is shown what came before.

A live cursor has no position of its own: it is where the room is. One that catches up holds the id
of the last event that its outbox was given, and no more; what it has missed stays in the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatproto.errors import StoreError
from chatproto.session import Session

if TYPE_CHECKING:
    from chatproto.room import Room, Stretch

RETRY: Final = 1.0
"""Seconds after which a page that could not be read is asked for again."""

UNKNOWN: Final = -1
"""The number of an event that was not looked up."""

log = Logger()


def _nobody(cursor: Cursor) -> None:
    """Tell nobody."""


class Cursor:
    """The place of `session` in `room`."""

    __slots__ = (
        "_holds",
        "caught_up",
        "entered",
        "is_new",
        "position",
        "reading",
        "room",
        "seq",
        "session",
        "shown",
        "tell_place",
    )

    def __init__(self, room: Room, session: Session) -> None:
        """Make a live cursor; the room takes it in with `Room.enter`."""
        self.room = room
        self.session = session
        self.position = 0
        """The id of the last event given to the outbox; meaningful while not live."""
        self.seq = UNKNOWN
        """The number in the room of that event; a gap after it is what was lost."""
        self.entered = room.head
        """The id up to which it has seen nothing of the room."""
        self.is_new = True
        """Whether nothing from before has been shown to it yet."""
        self.shown: int | None = None
        """While events before the position are being shown: the id of the last of those."""
        self.tell_place: Callable[[Cursor], object] = _nobody
        """Is told when this stops being live, and when it is live again."""
        self.caught_up = 0
        """How many events it was given since it fell behind."""
        self.reading: Deferred[Any] | None = None
        """The page that is being read."""
        self._holds = 0

    @property
    def is_taken(self) -> bool:
        """Whether its session is still in its room."""
        return self.room.members.get(self.session.id) is self

    @property
    def is_live(self) -> bool:
        """Whether it is given what is delivered."""
        return not self._holds and self not in self.session.behind

    @property
    def place(self) -> int:
        """The id of the last event that its session was given, in order."""
        if self.shown is not None:
            return self.shown
        return self.room.head if self.is_live else self.position

    def hold(self) -> None:
        """Send nothing until `resume` is called as often as this was."""
        if self._holds == 0:
            if self in self.session.behind:
                self.session.behind -= {self}
            else:
                self.room.stop_live(self.session)
                self.position, self.seq = self.room.head, self.room.seq
        self._holds += 1

    def resume(self) -> None:
        """Go on after `hold`, from there, until live again."""
        self._holds -= 1
        if not self._holds and self.is_taken:
            self.session.behind |= {self}
            self.catch_up()

    def fall_behind(self, position: int, seq: int) -> None:
        """Begin to catch up from the event with this id and number."""
        self.position = position
        self.seq = seq
        self.caught_up = 0
        self.session.behind |= {self}
        self.tell_place(self)

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
        reached = events[0].seq - 1 if events else self.room.seq
        lost = reached - self.seq
        if lost > 0 and UNKNOWN not in (reached, self.seq):
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
            self.tell_place(self)
            if self.caught_up:
                log.info(
                    "client {client} caught up with {count} lines",
                    event="caught-up",
                    client=session.id,
                    count=self.caught_up,
                )
            if not session.outbox.busy:
                session.drained()
        elif not session.outbox.busy:
            self.room.later(0, self.catch_up)

    def _failed(self, failure: Failure) -> None:
        self.reading = None
        if failure.check(StoreError) is not None:  # the log tells why; it may work again soon
            self.room.later(RETRY, self.catch_up)
        elif failure.check(CancelledError) is None:
            log.failure("client {client} failed to catch up", failure, client=self.session.id)
            self.session.hang_up("an error in the server")
