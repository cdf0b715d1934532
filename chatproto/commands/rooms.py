"""The commands about rooms: who is in them, what they are about, and what was said there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from chatproto.commands.shared import need_length, need_nick, span_of, wrong_use
from chatproto.errors import CommandError, NotAllowed, StoreError
from chatproto.hub import Hub
from chatproto.model import Mark
from chatproto.past import EFFORT
from chatproto.session import Session
from chatproto.stores.words import query
from chatproto.text import TOPIC_LENGTH

LISTED: Final = 1000
"""Names or rooms in one answer; the rest are counted."""

HISTORY: Final = 1000
"""Lines of history in one answer; it ends with how to get the next ones."""

HISTORY_DEFAULT: Final = 20
"""Lines of history when no number is given."""

WORDS: Final = 8
"""Words of one search."""

FOUND: Final = 50
"""Lines that one search finds at most: the newest."""

SEARCH_EFFORT: Final = 10
"""Lines that a search costs: it may take a tenth of a second of everybody's time."""

_NUMBER: Final = re.compile(r"[0-9]{1,18}")


def list_(hub: Hub, session: Session, rest: str) -> None:
    """/list

    Tells who is in the room with you.
    """
    if rest:
        raise wrong_use(list_)
    members = hub.rooms[session.room].sessions
    nicks = [member.nick for member in members if member.nick]
    nameless = len(hub.rooms[session.room].members) - len(nicks)
    parts = _some(nicks)
    if nameless:
        parts.append(f"{nameless} without a nick")
    session.answer(f"in {session.room}: {', '.join(parts)}")


def rooms(hub: Hub, session: Session, rest: str) -> None:
    """/rooms

    Lists the rooms that somebody is in, and how many.
    """
    if rest:
        raise wrong_use(rooms)
    names = (f"{room.name} ({len(room.members)})" for room in hub.public_rooms())
    session.answer(f"rooms: {', '.join(_some(names))}")


async def join(hub: Hub, session: Session, rest: str) -> None:
    """/join ROOM

    Moves you to a room; it is opened if there is none of that name.
    """
    if not rest or " " in rest:
        raise wrong_use(join)
    room = hub.enter(session, rest)
    try:
        subject = (await hub.topic(session)).text
    except StoreError:
        subject = ""  # it is there all the same
    about = f": {subject}" if subject else ""
    session.answer(f"you are in {room.name} ({len(room.members)} here){about}")
    await hub.show_missed(session, session.place)


async def topic(hub: Hub, session: Session, rest: str) -> None:
    """/topic [WORDS]

    Tells what the room is about, or sets it.
    """
    if not rest:
        subject = await hub.topic(session)
        if not subject.text:
            session.answer(f"{session.room} has no topic")
            return
        session.answer(f"{session.room} is about: {subject.text} (set by {subject.by})")
        return
    need_nick(session, "/topic")
    need_length(rest, TOPIC_LENGTH, "a topic")
    await hub.set_topic(session, rest)
    session.answer(f"{session.room} is about: {rest}")


async def history(hub: Hub, session: Session, rest: str) -> None:
    """/history [N | 10m | 2h | since ID]

    Shows the last N lines of the room (20 if you give no number), or those of the last minutes,
    hours or days, or those after the line with that id; the oldest first, 1000 at a time.
    """
    _need_history(hub)
    place = session.place
    mark = await _mark(hub, session, rest.lower())
    if place is None or session.place is not place:  # put out of the room meanwhile
        return
    room = place.room
    if not mark.lines:
        session.answer("nothing has been said here " + (_since(rest) if rest else "yet"))
        return
    shown = 0
    async for events in hub.past.pages(room.name, mark.after, room.head):
        events = events[: HISTORY - shown]
        shown += len(events)
        session.effort += -(-len(events) // EFFORT)
        await hub.past.show(session, [event for event in events if not session.ignores(event)])
        if shown == HISTORY or session.outbox.dead:
            break
    if mark.lines > shown == HISTORY:
        session.answer(f"{mark.lines - shown} more: /history since {events[-1].id}")


async def search(hub: Hub, session: Session, rest: str) -> None:
    """/search WORDS

    Finds lines of the room that have all these words, in the text or as the sender; wor* finds all
    words that begin so. Shows the newest 50, the oldest first.
    """
    if not rest:
        raise wrong_use(search)
    _need_history(hub)
    wanted = query(rest)
    if len(wanted) > WORDS:
        raise CommandError(f"a search has at most {WORDS} words, this has {len(wanted)}")
    if any(word.is_beginning and len(word.text) < 2 for word in wanted):
        raise CommandError("the beginning of a word needs 2 letters or more")
    session.effort += SEARCH_EFFORT
    found = await hub.search(session, rest, FOUND)
    await hub.past.show(session, found.events)
    if not found.events:
        session.answer("nothing was found")
    if found.unsearched:
        session.answer(f"the last {found.unsearched} lines are not in the index yet")


async def _mark(hub: Hub, session: Session, rest: str) -> Mark:
    word, _, number = rest.partition(" ")
    if word == "since" and _NUMBER.fullmatch(number):
        return await hub.mark(session, after=int(number))
    seconds = span_of(rest)
    if seconds is not None:
        return await hub.mark(session, since=hub.past.now() - seconds)
    if rest and not (_NUMBER.fullmatch(rest) and int(rest)):
        raise wrong_use(history)
    return await hub.mark(session, lines=int(rest or HISTORY_DEFAULT))


def _since(rest: str) -> str:
    return "since" if rest.lower().startswith("since") else "in that time"


def _need_history(hub: Hub) -> None:
    if not hub.past.is_kept:
        raise NotAllowed("history is off on this server: nothing is kept")


def _some(names: Iterable[str]) -> list[str]:
    """Return the first names, and how many more there are."""
    every = [*names]
    more = len(every) - LISTED
    return [*every[:LISTED], f"{more} more"] if more > 0 else every
