"""Who is here and what they may do: the only code that changes rooms and nicks.

    protocol ─► hub.say(…) ─► log.append ┄(the batch is complete)┄► hub.deliver ─► rooms

Nothing is delivered on the way in: what the hub publishes comes back to it from the log, and that
is the only way into a room.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatproto.accounts import Accounts
from chatproto.address import Peer
from chatproto.codec import Codec
from chatproto.cursor import RETRY, Cursor
from chatproto.errors import CommandError, NameTaken, NoSuchNick, NotAllowed, StoreError
from chatproto.model import Account, Draft, Event, Found, Kind, Mark, inbox, is_inbox, is_owned
from chatproto.moderation import Moderation, in_words
from chatproto.outbox import Outbox
from chatproto.past import Past
from chatproto.room import Room
from chatproto.session import HangUp, Session
from chatproto.stores import Store, Topic
from chatproto.text import LOBBY, Transform, check_nick, check_room, fold

NOTICES: Final = frozenset({Kind.JOINED, Kind.LEFT, Kind.RENAMED})
"""What sessions do not send themselves: nobody is told when it cannot be stored."""

log = Logger()


class Hub:
    """The core of the server: sessions, nicks, rooms and their rules."""

    def __init__(
        self,
        store: Store,
        clock: IReactorTime,
        transform: Transform,
        *,
        accounts: Accounts,
        moderation: Moderation,
        past: Past,
        needs_nicks: bool,
    ) -> None:
        """Serve rooms whose events are in `store`; `transform` applies to what is said in them.

        With `needs_nicks` nobody is in a room without a nick. Nothing works before `start`.
        """
        self.needs_nicks = needs_nicks
        self.sessions: dict[int, Session] = {}
        self.rooms: dict[str, Room] = {}
        self.accounts = accounts
        self.moderation = moderation
        self.past = past
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
        self._guests_inboxes: set[str] = set()  # those that something was written to
        self._head = 0  # the id up to which everything has been delivered

    def start(self) -> None:
        """Open the store; raises `StoreError`."""
        self._head = self._log.start(self.deliver, self.refused)
        self._load_restrictions()

    def _load_restrictions(self) -> None:
        """Read bans and mutes, however often it takes."""

        def failed(failure: Failure) -> None:
            log.failure("bans and mutes cannot be read", failure)
            if self._open:
                self._clock.callLater(RETRY, self._load_restrictions)

        loading = Deferred.fromCoroutine(self.moderation.load())
        loading.addCallback(lambda _: self.enforce()).addErrback(failed)

    # Coming and going.

    def connect(
        self, codec: Codec, outbox: Outbox, hang_up: HangUp, peer: Peer, *, is_secure: bool
    ) -> Session:
        """Return the session of a new client at `peer`, which is in no room yet."""
        self._last_session += 1
        session = Session(
            self._last_session, codec, outbox, hang_up, peer, is_secure, self.seconds()
        )
        self._find_mute(session)
        self.sessions[session.id] = session
        return session

    def disconnect(self, session: Session, words: str | None = "") -> None:
        """Let the session's name and places go, with `words` of farewell, None to tell nobody; safe
        to call twice.
        """
        if self.sessions.pop(session.id, None) is None:
            return
        self._leave_room(session, words)
        self._leave_inbox(session)
        if session.nick:
            self._free_nick(session)

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
        """Give `session` the nick, and tell its room.

        Raises `NameRefused`, also for the nick of somebody else's account, or `CommandError`.
        """
        check_nick(nick)
        key = fold(nick)
        if session.nick:  # others read a new one
            self.check_mute(session)
        if session.account and key != session.account:
            raise CommandError(f"you are logged in as {session.nick}: /logout first")
        if key != session.account and await self.accounts.find(nick) is not None:
            raise NameTaken(f"{nick} is registered: /login {nick} PASSWORD if it is yours")
        self._check_ban(nick)
        await self._take_nick(session, nick)

    async def log_in(self, session: Session, account: Account) -> None:
        """Let `session` be the owner of `account`, who may still be here from somewhere else."""
        key = fold(account.nick)
        if session.account == key or session.id not in self.sessions:
            return
        self._check_ban(account.nick)
        holder = self._nicks.get(key)
        is_here = False
        room = ""
        if holder is not None and holder is not session:
            room = holder.room
            # To the others in the room nothing changes.
            is_here = not session.nick and session.room in (room, "")
            holder.error(f"{account.nick} is taken over by another connection")
            self.disconnect(holder, None if is_here else "taken over")
            holder.hang_up("taken over")
            session.answer("you are already connected: taking over")
        self.log_out(session)
        await self._take_nick(session, account.nick, tell=not is_here)
        if session.id in self.sessions:
            if session.place is None and room:
                session.place = self._occupy(room, session)
            self.own(session, account)

    def own(self, session: Session, account: Account) -> None:
        """Make `session`, which has the nick, the one of `account`."""
        self._leave_inbox(session)
        session.account = fold(account.nick)
        session.is_operator = self.accounts.may_moderate(account)
        session.outbox.stuck = session.note_stuck
        session.inbox = self._occupy(inbox(session.account), session)
        if session.outbox.busy:
            session.note_stuck()
        log.info(
            "client {client} is {account}",
            event="login",
            client=session.id,
            account=session.account,
            address=session.peer.shown,
        )

    def log_out(self, session: Session) -> None:
        """Take the account from `session`, and with it the nick."""
        if not session.account:
            return
        self._disown(session)
        if session.place is not None:
            here = len(session.place.room.members)
            self._publish(session, Kind.LEFT, "logged out", here=here)
        self._free_nick(session)
        session.nick = ""

    async def unregister(self, name: str) -> None:
        """Remove the account of this folded nick, and what was written to it; whoever is logged in
        to it keeps the nick as a guest. Raises `StoreError`.
        """
        # Asked for in one turn, so it is one transaction: either both are done, or none.
        self._log.forget(inbox(name))
        await self.accounts.remove(name)
        holder = self._nicks.get(name)
        if holder is not None and holder.account == name:
            holder.account = ""  # or its read positions would be kept
            self._disown(holder)
            holder.inbox = self._occupy(inbox(holder.id), holder)

    async def show_missed(self, session: Session, *cursors: Cursor | None) -> None:
        """Show `session` what it has missed in the rooms that it has just come to."""
        if self.past.concerns(session):
            await self.past.show_missed(session, [one for one in cursors if one is not None])

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

    def put_out(self, session: Session, target: Session, why: str) -> None:
        """Put `target` out of its room: into the lobby, or out of the server if that is it."""
        place = target.place
        if place is None:
            return
        room = place.room
        target.error(f"you were put out by {session.nick}{f': {why}' if why else ''}")
        here = len(room.members) - 1
        self._append(Draft(room.name, Kind.KICKED, session.nick, why, 0, here, target.nick))
        self._leave_room(target, None)
        if room.name == LOBBY:
            self.disconnect(target)
            target.hang_up(f"put out by {session.nick}")
        else:
            self.enter(target)
            coming = Deferred.fromCoroutine(self.show_missed(target, target.place))
            coming.addErrback(lambda failure: log.failure("a client failed", failure))

    def public_rooms(self) -> Iterator[Room]:
        """The rooms that somebody is in, in the order in which they were opened."""
        return (room for room in self.rooms.values() if not is_inbox(room.name))

    async def topic(self, session: Session) -> Topic:
        """Return the topic of the session's room."""
        return await self._directory.topic(session.room)

    async def set_topic(self, session: Session, text: str) -> None:
        """Change the topic of the session's room, and tell the room; raises `NotAllowed`."""
        self.check_mute(session)
        place = session.place
        await self._directory.set_topic(session.room, Topic(text, session.nick))
        if session.place is place:  # it may have been put out meanwhile
            self._publish(session, Kind.TOPIC, text)

    async def mark(
        self,
        session: Session,
        *,
        lines: int | None = None,
        since: float | None = None,
        after: int | None = None,
    ) -> Mark:
        """Find a place in the past of the session's room, see `Log.mark`."""
        return await self._log.mark(session.room, lines=lines, since=since, after=after)

    async def search(self, session: Session, words: str, limit: int) -> Found:
        """Find words in the past of the session's room, see `Log.search`."""
        found = await self._log.search(session.room, words, limit)
        heard = [event for event in found.events if not session.ignores(event)]
        return found._replace(events=heard)

    # Speaking.

    def say(self, session: Session, text: str) -> None:
        """Say `text` in the session's room; raises `NotAllowed`."""
        if session.mute is not None:
            self.check_mute(session)
        self._publish(session, Kind.SAID, self._transform(text))

    def act(self, session: Session, text: str) -> None:
        """Say that the session's nick does `text`; raises `NotAllowed`."""
        self.check_mute(session)
        self._publish(session, Kind.ACTION, self._transform(text))

    async def tell(self, session: Session, nick: str, text: str) -> Session | None:
        """Send `text` to one nick in private; return who has it, None when it is kept for the owner
        of an account who is not here. Raises `NoSuchNick` or `NotAllowed`.
        """
        target = self._nicks.get(fold(nick))
        if target is None:
            account = await self.accounts.find(nick)
            if account is None:
                return self._tell(session, self.find(nick), text)  # it may have come meanwhile
            if not self.past.is_kept:
                raise NoSuchNick(f"{account.nick} is not here, and nothing is kept")
            return self._tell(session, account, text)
        return self._tell(session, target, text)

    def tell_session(self, session: Session, target: Session, text: str) -> None:
        """Send `text` to one other session in private; raises `NotAllowed`."""
        self._tell(session, target, text)

    def announce(self, session: Session, text: str) -> int:
        """Tell `text` to every room, and return how many those are."""
        names = [room.name for room in self.public_rooms()]
        for name in names:
            self._append(Draft(name, Kind.ANNOUNCED, session.nick, text, session.id))
        return len(names)

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
        live = [place for place in session.cursors if place.room.stop_live(session)]
        session.codec = codec
        for place in live:
            place.room.go_live(place)

    # Moderation.

    def check_mute(self, session: Session) -> None:
        """Raise `NotAllowed` while `session` may not speak."""
        if session.mute is not None and self.is_muted(session):
            raise NotAllowed(f"you are muted{in_words(session.mute)}")

    def is_muted(self, session: Session) -> bool:
        """Tell whether `session` may not speak."""
        if session.mute is not None:
            session.mute = self.moderation.current(session.mute)
        return session.mute is not None

    def enforce(self) -> None:
        """Let what operators have changed apply to those who are here."""
        for session in [*self.sessions.values()]:
            self._find_mute(session)
            ban = self.moderation.ban_of(session.peer, session.nick)
            if ban is not None:
                session.error(f"you are banned{in_words(ban)}")
                self.disconnect(session)
                session.hang_up("banned")

    # Out of the log.

    def deliver(self, events: Sequence[Event]) -> None:
        """Hand events that the log has stored to their rooms."""
        by_room: dict[str, list[Event]] = {}
        for event in events:
            by_room.setdefault(event.room, []).append(event)
        self._head = events[-1].id
        for name, of_room in by_room.items():
            room = self.rooms.get(name)
            if room is not None:
                room.deliver(of_room)
            if is_inbox(name):
                self._confirm(of_room, room)
        self._settle(len(events))

    def refused(self, drafts: Sequence[Draft], error: StoreError) -> None:
        """Tell those who sent `drafts` that they could not be stored, so nobody has seen them."""
        lost = Counter(draft.origin for draft in drafts if draft.kind not in NOTICES)
        for origin, count in lost.items():
            session = self.sessions.get(origin)
            if session is not None:
                lines = "your line was" if count == 1 else f"{count} of your lines were"
                session.error(f"{lines} not sent: {error.sentence}")
        self._settle(len(drafts))

    def _settle(self, count: int) -> None:
        """Note that so many of the drafts appended have come back."""
        self._delivered += count
        while self._unsettled and self._unsettled[0][0] <= self._delivered:
            self._unsettled.popleft()[1].callback(None)

    def _confirm(self, events: Sequence[Event], inbox_room: Room | None) -> None:
        """Show private messages to their senders as well, now that they are stored."""
        for event in events:
            sender = self.sessions.get(event.origin)
            if sender is not None:
                if inbox_room is None and is_owned(event.room):
                    sender.answer(f"{event.to} is not here, and will read it on coming back")
                sender.outbox.push(sender.codec.sent(event), 1)
            for target in inbox_room.sessions if inbox_room is not None else ():
                if target.wants(event):
                    target.reply_to = event.origin, event.sender

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
        for cursor in session.cursors:
            cursor.room.choose(session)

    def _room(self, name: str) -> Room:
        """Return the room of that name, or an empty one, which is not kept."""
        return self.rooms.get(name) or Room(name, self._log, self._clock.callLater, self._head)

    def _leave_room(self, session: Session, words: str | None) -> None:
        """Take `session` out of its room, which is told with `words`; None: not told."""
        if session.place is not None:
            room = session.place.room
            self.past.leave(session, session.place)
            if words and self.is_muted(session):
                words = ""
            if session.nick and words is not None:
                self._publish(session, Kind.LEFT, words, here=len(room.members) - 1)
            session.place = None
            self._vacate(room, session)

    def _leave_inbox(self, session: Session) -> None:
        """Take `session` out of its inbox; nobody comes back to one that is no account's."""
        if session.inbox is None:
            return
        room = session.inbox.room
        self.past.leave(session, session.inbox)
        session.inbox = None
        if room.name not in self._guests_inboxes:
            self._vacate(room, session)
            return

        def close(_: None) -> None:
            self._vacate(room, session)
            self._log.forget(room.name)

        # What is on its way to a guest still has to arrive, as it may be logging in.
        self._guests_inboxes.discard(room.name)
        self.settled().addCallback(close)

    def _disown(self, session: Session) -> None:
        for cursor in session.cursors:
            self.past.leave(session, cursor)
        self._leave_inbox(session)
        session.account = ""
        session.is_operator = False

    async def _take_nick(self, session: Session, nick: str, *, tell: bool = True) -> None:
        """Give `session` the nick if nobody else has it, and `tell` its room."""
        key, old = fold(nick), session.nick
        if nick == old or session.id not in self.sessions:
            return
        if key != fold(old):
            granted = await self._names.claim(key, session.id)
            if granted and session.id not in self.sessions:  # it left while the answer was awaited
                self._names.release(key, session.id)
                return
            if not granted:
                raise NameTaken(f"{nick} is taken")
            if old:
                self._free_nick(session)
            self._nicks[key] = session
        session.nick = nick
        self._find_mute(session)
        if session.inbox is None:
            session.inbox = self._occupy(inbox(session.id), session)
        if session.place is None or not tell:
            return
        if old:
            self._publish(session, Kind.RENAMED, nick, sender=old)
        else:
            self._publish(session, Kind.JOINED, here=len(session.place.room.members))

    def _free_nick(self, session: Session) -> None:
        key = fold(session.nick)
        del self._nicks[key]
        self._names.release(key, session.id)

    def _find_mute(self, session: Session) -> None:
        """Look whether `session` may speak; another nick does not end a mute."""
        if not self.is_muted(session):
            session.mute = self.moderation.mute_of(session.peer, session.nick)

    def _check_ban(self, nick: str) -> None:
        ban = self.moderation.ban_of(nick=nick)
        if ban is not None:
            raise NotAllowed(f"{nick} is banned{in_words(ban)}")

    def _tell(self, session: Session, target: Session | Account, text: str) -> Session | None:
        self.check_mute(session)
        if isinstance(target, Account):
            room, here = inbox(fold(target.nick)), None
        else:
            room, here = inbox(target.account or target.id), target
            if not target.account:
                self._guests_inboxes.add(room)
        self._append(Draft(room, Kind.PRIVATE, session.nick, text, session.id, to=target.nick))
        return here

    def _occupy(self, name: str, session: Session) -> Cursor:
        room = self.rooms[name] = self._room(name)
        return room.enter(session)

    def _vacate(self, room: Room, session: Session) -> None:
        room.leave(session)
        if not room.members:
            del self.rooms[room.name]
