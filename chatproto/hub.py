"""Who is here and what they may do: the only code that changes rooms and nicks.

    protocol ─► hub.say(…) ─► log.append ┄(the batch is complete)┄► hub.deliver ─► rooms

Nothing is delivered on the way in: what the hub publishes comes back to it from the log, and that
is the only way into a room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from chatproto.codec import Codec
from chatproto.cursor import Cursor
from chatproto.errors import NameTaken, NoSuchNick
from chatproto.model import Draft, Event, Kind, inbox, is_inbox
from chatproto.outbox import Outbox
from chatproto.room import Room
from chatproto.session import HangUp, Session
from chatproto.stores import Store, Topic
from chatproto.text import LOBBY, Transform, check_nick, check_room, fold

HISTORY: Final = 1000
"""Lines of history that one request can get."""


class Hub:
    """The core of the server: sessions, nicks, rooms and their rules."""

    def __init__(self, store: Store, clock: IReactorTime, transform: Transform) -> None:
        """Serve rooms whose events are in `store`; `transform` applies to what is said in them."""
        self.sessions: dict[int, Session] = {}
        self.rooms: dict[str, Room] = {}
        self.seconds: Callable[[], float] = clock.seconds
        self._clock = clock
        self._transform = transform
        self._log, self._directory, self._names = store
        self._nicks: dict[str, Session] = {}
        self._last_session = 0
        self._open = True
        self._appended = 0
        self._delivered = 0
        self._unsettled: deque[tuple[int, Deferred[None]]] = deque()
        self._log.start(self.deliver)

    # Coming and going.

    def connect(self, codec: Codec, outbox: Outbox, hang_up: HangUp) -> Session:
        """Return the session of a new client, which is in no room yet."""
        self._last_session += 1
        session = Session(self._last_session, codec, outbox, hang_up, self.seconds())
        self.sessions[session.id] = session
        return session

    def disconnect(self, session: Session, words: str = "") -> None:
        """Let the session's name and places go, with `words` of farewell; safe to call twice."""
        if self.sessions.pop(session.id, None) is None:
            return
        self._leave_room(session, words)
        if session.inbox is not None:
            self._vacate(session.inbox.room, session)
            session.inbox = None
        if session.nick:
            key = fold(session.nick)
            del self._nicks[key]
            self._names.release(key, session.id)

    def settled(self) -> Deferred[None]:
        """Return what fires when all that has been published so far is delivered."""
        settled: Deferred[None] = Deferred()
        if self._delivered == self._appended:
            settled.callback(None)
        else:
            self._unsettled.append((self._appended, settled))
        return settled

    def close(self) -> Deferred[None]:
        """Publish nothing any more; fires when what was published is delivered."""
        self._open = False
        return self.settled()

    def stop(self) -> Deferred[None]:
        """Close the log; fires when that is done."""
        return self._log.stop()

    # Names.

    async def name(self, session: Session, nick: str) -> None:
        """Give `session` the nick, and tell its room; raises `NameRefused`."""
        check_nick(nick)
        key, old = fold(nick), session.nick
        if nick == old:
            return
        if key != fold(old):
            granted = await self._names.claim(key, session.id)
            if granted and session.id not in self.sessions:  # it left while the answer was awaited
                self._names.release(key, session.id)
                return
            if not granted:
                raise NameTaken(f"{nick} is taken")
            if old:
                del self._nicks[fold(old)]
                self._names.release(fold(old), session.id)
            self._nicks[key] = session
        session.nick = nick
        if session.inbox is None:
            session.inbox = self._occupy(inbox(session.id), session)
        if session.place is None:
            return
        if old:
            self._publish(session, Kind.RENAMED, nick, sender=old)
        else:
            self._publish(session, Kind.JOINED, here=len(session.place.room.members))

    def find(self, nick: str) -> Session:
        """Return the session with that nick; raises `NoSuchNick`."""
        try:
            return self._nicks[fold(nick)]
        except KeyError:
            raise NoSuchNick(f"nobody here is called {nick}") from None

    # Rooms.

    def enter(self, session: Session, name: str = LOBBY) -> Room:
        """Move `session` to the room, and tell both rooms if it has a nick; raises `BadName`."""
        name = check_room(name)
        if session.room != name and session.id in self.sessions:
            self._leave_room(session, "")
            session.place = self._occupy(name, session)
            if session.nick:
                self._publish(session, Kind.JOINED, here=len(session.place.room.members))
        return self._room(name)

    def public_rooms(self) -> Iterator[Room]:
        """The rooms that somebody is in, in the order in which they were opened."""
        return (room for room in self.rooms.values() if not is_inbox(room.name))

    async def topic(self, session: Session) -> Topic:
        """Return the topic of the session's room."""
        return await self._directory.topic(session.room)

    async def set_topic(self, session: Session, text: str) -> None:
        """Change the topic of the session's room, and tell the room."""
        await self._directory.set_topic(session.room, Topic(text, session.nick))
        self._publish(session, Kind.TOPIC, text)

    async def history(self, session: Session, count: int) -> Sequence[Event]:
        """Return the last `count` events of the session's room, at most `HISTORY`, less what it
        ignores.
        """
        page = await self._log.page(session.room, limit=min(count, HISTORY))
        return [event for event in page.events if not session.ignores(event)]

    # Speaking.

    def say(self, session: Session, text: str) -> None:
        """Say `text` in the session's room."""
        self._publish(session, Kind.SAID, self._transform(text))

    def act(self, session: Session, text: str) -> None:
        """Say that the session's nick does `text`."""
        self._publish(session, Kind.ACTION, self._transform(text))

    def tell(self, session: Session, target: Session, text: str) -> None:
        """Send `text` to one other session in private."""
        self._append(
            Draft(inbox(target.id), Kind.PRIVATE, session.nick, text, session.id, to=target.nick)
        )

    def ignore(self, session: Session, nick: str) -> None:
        """Let `session` neither see nor hear `nick`, nor who has it now under another nick."""
        holder = self._nicks.get(fold(nick))
        self._set_ignored(session, {**session.ignored, fold(nick): holder.id if holder else None})

    def unignore(self, session: Session, nick: str) -> bool:
        """Let `session` see and hear `nick` again; tell whether it did not."""
        holder = self._nicks.get(fold(nick))
        kept = {
            ignored: session_id
            for ignored, session_id in session.ignored.items()
            if ignored != fold(nick) and not (holder is not None and session_id == holder.id)
        }
        changed = len(kept) < len(session.ignored)
        self._set_ignored(session, kept)
        return changed

    def recode(self, session: Session, codec: Codec) -> None:
        """Let `session` be sent another wire form from now on."""
        places = [place for place in (session.place, session.inbox) if place is not None]
        live = [place for place in places if place.room.stop_live(session)]
        session.codec = codec
        for place in live:
            place.room.go_live(place)

    # Out of the log.

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand events that the log has stored to their rooms."""
        by_room: dict[str, list[Event]] = {}
        for event in events:
            by_room.setdefault(event.room, []).append(event)
        for name, of_room in by_room.items():
            room = self.rooms.get(name)
            if room is not None:
                room.deliver(of_room)
            if is_inbox(name):
                self._confirm(of_room, room)
        self._delivered += len(events)
        while self._unsettled and self._unsettled[0][0] <= self._delivered:
            self._unsettled.popleft()[1].callback(None)

    def _confirm(self, events: Sequence[Event], inbox_room: Room | None) -> None:
        """Show private messages to their senders as well, now that they are stored."""
        for event in events:
            sender = self.sessions.get(event.origin)
            if sender is not None:
                sender.outbox.push(sender.codec.sent(event), 1)
            for target in inbox_room.sessions if inbox_room is not None else ():
                if target.wants(event):
                    target.reply_to = event.origin

    def _publish(
        self, session: Session, kind: Kind, text: str = "", *, sender: str = "", here: int = 0
    ) -> None:
        place = session.place
        if place is not None:  # else it has left, and its last lines were still being read
            sender = sender or session.nick
            self._append(Draft(place.room.name, kind, sender, text, session.id, here))

    def _append(self, draft: Draft) -> None:
        if self._open:
            self._log.append((draft,))
            self._appended += 1

    def _set_ignored(self, session: Session, ignored: Mapping[str, int | None]) -> None:
        session.ignored = ignored
        for cursor in (session.place, session.inbox):
            if cursor is not None:
                cursor.room.choose(session)

    def _room(self, name: str) -> Room:
        """Return the room of that name, or an empty one, which is not kept."""
        return self.rooms.get(name) or Room(name, self._log, self._soon)

    def _soon(self, what: Callable[[], object]) -> None:
        self._clock.callLater(0, what)

    def _leave_room(self, session: Session, words: str) -> None:
        if session.place is not None:
            room = session.place.room
            if session.nick:
                self._publish(session, Kind.LEFT, words, here=len(room.members) - 1)
            session.place = None
            self._vacate(room, session)

    def _occupy(self, name: str, session: Session) -> Cursor:
        room = self.rooms[name] = self._room(name)
        return room.enter(session)

    def _vacate(self, room: Room, session: Session) -> None:
        room.leave(session)
        if not room.members:
            del self.rooms[room.name]
