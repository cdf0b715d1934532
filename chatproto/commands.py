"""The slash commands, one small named function each.

A command's docstring is its help: the first line shows its use, the rest says what it does. A
command that has to wait is a coroutine; the client's next line is read when it has finished.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from inspect import cleandoc
from typing import Any, Final

from twisted.internet.defer import Deferred

from chatproto.errors import CommandError, NeedsNick, NoSuchNick, UnknownCommand, WrongUse
from chatproto.hub import HISTORY, Hub
from chatproto.room import batches
from chatproto.session import Session
from chatproto.text import AWAY_LENGTH, TOPIC_LENGTH, check_nick, fold, shorten

Command = Callable[[Hub, Session, str], Coroutine[Deferred[Any], Any, None] | None]
"""Carries out one command of a session; the string is what follows the command's name."""

LISTED: Final = 1000
"""Names or rooms in one answer; the rest are counted."""

IGNORED: Final = 100
"""Nicks that one client can ignore."""

EFFORT: Final = 20
"""Lines of history that cost as much of a client's pace as a line that it sends."""

HISTORY_DEFAULT: Final = 20
"""Lines of history when no number is given."""


def run(hub: Hub, session: Session, line: str) -> Coroutine[Deferred[Any], Any, None] | None:
    """Carry out `line`, which starts with a slash; raises `ChatError` for the session to see."""
    name, _, rest = line[1:].partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        raise UnknownCommand(f"there is no command /{shorten(name, 32)}: try /help")
    return command(hub, session, rest.strip())


def speaks(line: str) -> bool:
    """Tell whether `line` says something to others, rather than asking the server something."""
    if not line.startswith("/") or line.startswith("//"):
        return True
    return line[1:].partition(" ")[0].lower() in ("me", "msg", "reply")


def use(command: Command) -> str:
    """Return the line that shows how `command` is used."""
    return cleandoc(command.__doc__ or "").partition("\n")[0]


def help_(hub: Hub, session: Session, rest: str) -> None:
    """/help [COMMAND]

    Lists the commands, or tells what one of them does.
    """
    if rest:
        name = rest.removeprefix("/").lower()
        command = COMMANDS.get(name)
        if command is None:
            raise UnknownCommand(f"there is no command /{shorten(name, 32)}: try /help")
        text = cleandoc(command.__doc__ or "").replace("\n\n", "\n")
        others = [f"/{other}" for other in COMMANDS if COMMANDS[other] is command and other != name]
        session.answer(text + (f"\nAlso: {' '.join(others)}" if others else ""))
        return
    uses = [use(command) for command in dict.fromkeys(COMMANDS.values())]
    session.answer("commands:\n" + "\n".join(uses) + "\na line that starts with // says /")


async def nick(hub: Hub, session: Session, rest: str) -> None:
    """/nick NAME

    Gives you a name, or a new one. Others then see it in front of what you say.
    """
    if not rest:
        raise WrongUse(f"use: {use(nick)}")
    await hub.name(session, rest)
    session.answer(f"you are now {session.nick}")


def msg(hub: Hub, session: Session, rest: str) -> None:
    """/msg NICK WORDS

    Says something to one person only.
    """
    target, _, words = rest.partition(" ")
    if not words.strip():
        raise WrongUse(f"use: {use(msg)}")
    _need_nick(session, "/msg")
    _tell(hub, session, hub.find(target), words.strip())


def reply(hub: Hub, session: Session, rest: str) -> None:
    """/reply WORDS

    Answers whoever wrote to you in private last.
    """
    if not rest:
        raise WrongUse(f"use: {use(reply)}")
    _need_nick(session, "/reply")
    if not session.reply_to:
        raise CommandError("nobody has written to you in private yet")
    target = hub.sessions.get(session.reply_to)
    if target is None:
        raise NoSuchNick("who wrote to you last has left")
    _tell(hub, session, target, rest)


def me(hub: Hub, session: Session, rest: str) -> None:
    """/me WORDS

    Says what you do: "/me waves" is "* alice WAVES".
    """
    if not rest:
        raise WrongUse(f"use: {use(me)}")
    _need_nick(session, "/me")
    hub.act(session, rest)


def list_(hub: Hub, session: Session, rest: str) -> None:
    """/list

    Tells who is in the room with you.
    """
    if rest:
        raise WrongUse(f"use: {use(list_)}")
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
        raise WrongUse(f"use: {use(rooms)}")
    names = (f"{room.name} ({len(room.members)})" for room in hub.public_rooms())
    session.answer(f"rooms: {', '.join(_some(names))}")


async def join(hub: Hub, session: Session, rest: str) -> None:
    """/join ROOM

    Moves you to a room; it is opened if there is none of that name.
    """
    if not rest or " " in rest:
        raise WrongUse(f"use: {use(join)}")
    room = hub.enter(session, rest)
    subject = await hub.topic(session)
    about = f": {subject.text}" if subject.text else ""
    session.answer(f"you are in {room.name} ({len(room.members)} here){about}")


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
    _need_nick(session, "/topic")
    _not_longer(rest, TOPIC_LENGTH, "a topic")
    await hub.set_topic(session, rest)
    session.answer(f"{session.room} is about: {rest}")


def whois(hub: Hub, session: Session, rest: str) -> None:
    """/whois NICK

    Tells where somebody is, for how long, and since when silent.
    """
    if not rest or " " in rest:
        raise WrongUse(f"use: {use(whois)}")
    other = hub.find(rest)
    now = hub.seconds()
    words = (
        f"{other.nick} is in {other.room}, connected for {_span(now - other.connected_at)}, "
        f"silent for {_span(now - other.last_heard)}"
    )
    session.answer(words + (f", away: {other.away}" if other.away else ""))


def away(hub: Hub, session: Session, rest: str) -> None:
    """/away [WORDS]

    Tells those who write to you in private that you do not answer, and why; without words that
    you are back.
    """
    _not_longer(rest, AWAY_LENGTH, "an away text")
    session.away = rest
    session.answer(f"you are away: {rest}" if rest else "you are back")


def ignore(hub: Hub, session: Session, rest: str) -> None:
    """/ignore [NICK]

    Hides what somebody says and does from you; without a nick it lists whom you ignore.
    """
    if not rest:
        ignored = ", ".join(sorted(session.ignored)) or "nobody"
        session.answer(f"you ignore {ignored}")
        return
    check_nick(rest)
    if fold(rest) == fold(session.nick):
        raise CommandError("that is you")
    if len(session.ignored) >= IGNORED:
        raise CommandError(f"you can ignore {IGNORED} people at most")
    hub.ignore(session, rest)
    session.answer(f"you no longer see {rest}")


def unignore(hub: Hub, session: Session, rest: str) -> None:
    """/unignore NICK

    Shows you again what somebody says.
    """
    if not rest:
        raise WrongUse(f"use: {use(unignore)}")
    if not hub.unignore(session, rest):
        raise NoSuchNick(f"you do not ignore {shorten(rest, 32)}")
    session.answer(f"you see {rest} again")


async def history(hub: Hub, session: Session, rest: str) -> None:
    """/history [N]

    Shows the last N lines of the room (20 if you give no number), the oldest first.
    """
    if rest and not (rest.isascii() and rest.isdigit() and 0 < int(rest[:9]) <= HISTORY):
        raise WrongUse(f"use: {use(history)} with N from 1 to {HISTORY}")
    count = int(rest or HISTORY_DEFAULT)
    events = await hub.history(session, count)
    if not events:
        session.answer("nothing has been said here yet")
        return
    session.effort += len(events) // EFFORT
    for piece in batches(events):
        session.answer("\n".join(session.codec.past(event) for event in piece))
        await session.flushed()


def quit_(hub: Hub, session: Session, rest: str) -> None:
    """/quit [WORDS]

    Ends your connection, with words of farewell to the room.
    """
    _not_longer(rest, AWAY_LENGTH, "a farewell")
    hub.disconnect(session, rest)
    session.answer("bye")
    session.hang_up("quit")


COMMANDS: Final[dict[str, Command]] = {
    "help": help_,
    "nick": nick,
    "msg": msg,
    "reply": reply,
    "me": me,
    "list": list_,
    "names": list_,
    "who": list_,
    "rooms": rooms,
    "join": join,
    "topic": topic,
    "whois": whois,
    "away": away,
    "ignore": ignore,
    "unignore": unignore,
    "history": history,
    "quit": quit_,
    "exit": quit_,
}
"""Every command by every name it has."""


def _tell(hub: Hub, session: Session, target: Session, words: str) -> None:
    hub.tell(session, target, words)
    if target.away:
        session.answer(f"{target.nick} is away: {target.away}")


def _need_nick(session: Session, what: str) -> None:
    if not session.nick:
        raise NeedsNick(f"{what} needs a nick: choose one with /nick NAME")


def _not_longer(text: str, length: int, what: str) -> None:
    if len(text) > length:
        raise CommandError(f"{what} has at most {length} characters, this has {len(text)}")


def _some(names: Iterable[str]) -> list[str]:
    """Return the first names, and how many more there are."""
    every = [*names]
    more = len(every) - LISTED
    return [*every[:LISTED], f"{more} more"] if more > 0 else every


def _span(seconds: float) -> str:
    """Return a length of time in words, in its largest whole unit."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{int(seconds)} s"
