"""What was said before: shown in pages to whoever asks for it, joins, or comes back.

    a mark in the log ─► pages ─► answers, the next page once the last one is sent

An account has a read position in every room that it has been in, and in its inbox. While it is
there the position moves with what is delivered; when it leaves, the last one is kept; when it comes
back it is shown what came after.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from chatproto.cursor import Cursor
from chatproto.errors import StoreError
from chatproto.model import Event, is_inbox
from chatproto.room import PAGE_EVENTS, batches
from chatproto.session import Session
from chatproto.stores import Directory, Log
from chatproto.text import fold

EFFORT: Final = 20
"""Lines of the past that cost as much of a client's pace as a line that it sends."""


class Past:
    """Shows sessions what their rooms have seen without them."""

    def __init__(
        self, log: Log, directory: Directory, now: Callable[[], float], *, replay: int, kept: bool
    ) -> None:
        """Read from `log`; `replay` lines are shown to who comes for the first time.

        `now` returns the Unix time in seconds; what is not `kept` cannot be shown to those who come
        back.
        """
        self.is_kept = kept
        self.now = now
        self._log = log
        self._directory = directory
        self._replay = replay

    async def pages(self, room: str, after: int, upto: int) -> AsyncIterator[Sequence[Event]]:
        """Read the events of `room` after the id `after`, up to the id `upto`."""
        while after < upto:
            page = await self._log.page(room, after=after, limit=PAGE_EVENTS)
            events = [event for event in page.events if event.id <= upto]
            if events:
                yield events
            if len(events) < PAGE_EVENTS:
                return
            after = events[-1].id

    async def show(self, session: Session, events: Sequence[Event]) -> None:
        """Answer `session` with `events`, and wait until they are sent."""
        now = self.now()
        for piece in batches(events):
            session.answer("\n".join(session.codec.past(event, now) for event in piece))
            await session.flushed()

    def concerns(self, session: Session) -> bool:
        """Tell whether there may be something to show to `session` in a room it comes to."""
        return self.is_kept and bool(self._replay or session.account)

    async def show_missed(self, session: Session, cursors: Sequence[Cursor]) -> None:
        """Show `session` what it has not seen in the rooms that it has just come to; nothing is
        sent from there until that is done.
        """
        for cursor in cursors:
            cursor.hold()
        try:
            for cursor in cursors:
                await self._show_missed(session, cursor)
        except StoreError as error:
            session.error(f"what was said before cannot be shown: {error.sentence}")
        finally:
            for cursor in cursors:
                cursor.resume()

    async def follow(self, session: Session, cursor: Cursor) -> None:
        """Keep the read position of the session's account while it is in the cursor's room.

        Returns once that is stored: what was shown until now is then not shown again.
        """

        def tell_place(moved: Cursor) -> None:
            self._set(session, moved).addErrback(_told)

        cursor.tell_place = tell_place
        with suppress(StoreError):
            await self._set(session, cursor)

    def leave(self, session: Session, cursor: Cursor) -> None:
        """Keep the read position of a session that is about to leave the cursor's room."""
        cursor.tell_place = _nobody
        if session.account:
            self._set(session, cursor, is_leaving=True).addErrback(_told)

    async def _show_missed(self, session: Session, cursor: Cursor) -> None:
        room = cursor.room.name
        account = session.account
        position = await self._directory.position(account, room) if account else None
        if position is None and is_inbox(room):
            position = 0  # the account was made while its owner was elsewhere
        if position is not None:
            cursor.shown = position  # until the rest is shown
            session.note_unsure(cursor, position)
            await self._announce(session, cursor, position)
            await self._show(session, cursor, position)
            if session.outbox.dead or not cursor.is_taken:
                return
            cursor.shown = None
        elif self._replay and cursor.is_new:
            mark = await self._log.mark(room, lines=self._replay)
            await self._show(session, cursor, mark.after)
            cursor.entered = min(cursor.entered, mark.after)
        cursor.is_new = False
        if account and session.account == account and cursor.is_taken:
            await self.follow(session, cursor)

    async def _announce(self, session: Session, cursor: Cursor, after: int) -> None:
        """Tell how much is going to be shown."""
        room = cursor.room.name
        count = 0
        async for events in self.pages(room, after, cursor.entered):
            session.effort += len(events) // EFFORT
            count += sum(_is_news(event, session) for event in events)
            if session.outbox.dead or not cursor.is_taken:
                return
        if count:
            what = "private message" if is_inbox(room) else "line"
            session.answer(f"while you were away: {count} {what}{'s' if count > 1 else ''}")

    async def _show(self, session: Session, cursor: Cursor, after: int) -> None:
        """Show what came after the id `after`, up to when the session came."""
        async for events in self.pages(cursor.room.name, after, cursor.entered):
            missed = [event for event in events if _is_news(event, session)]
            if not cursor.is_taken:
                return
            await self.show(session, missed)
            if session.outbox.dead:
                return
            if cursor.shown is not None:
                cursor.shown = events[-1].id
            if missed and is_inbox(cursor.room.name):
                session.reply_to = missed[-1].origin, missed[-1].sender

    def _set(self, session: Session, cursor: Cursor, *, is_leaving: bool = False) -> Deferred[None]:
        if not self.is_kept:
            return succeed(None)
        follows = session.is_up_to(cursor) and not is_leaving
        position = None if follows else session.sent_up_to(cursor)
        return self._directory.set_position(session.account, cursor.room.name, position)


def _is_news(event: Event, session: Session) -> bool:
    """Tell whether `event` is by somebody else, whom the session does not ignore."""
    if session.account and fold(event.sender) == session.account:
        return False
    return session.wants(event)


def _nobody(cursor: Cursor) -> None:
    """Follow no longer."""


def _told(failure: Failure) -> None:
    """A failure of the store is in the log already."""
    failure.trap(StoreError)
