"""The commands of people who talk: a nick, private words, who to hear, and the end."""

from __future__ import annotations

from typing import Final

from chatproto.commands.shared import need_length, need_nick, span, wrong_use
from chatproto.errors import CommandError, NoSuchNick
from chatproto.hub import Hub
from chatproto.session import Session
from chatproto.text import AWAY_LENGTH, check_nick, fold, shorten

IGNORED: Final = 100
"""Nicks that one client can ignore."""


async def nick(hub: Hub, session: Session, rest: str) -> None:
    """/nick NAME

    Gives you a name, or a new one. Others then see it in front of what you say.
    """
    if not rest:
        raise wrong_use(nick)
    await hub.name(session, rest)
    session.answer(f"you are now {session.nick}")


async def msg(hub: Hub, session: Session, rest: str) -> None:
    """/msg NICK WORDS

    Says something to one person only. Who has an account gets it later when not here.
    """
    target, _, words = rest.partition(" ")
    if not words.strip():
        raise wrong_use(msg)
    need_nick(session, "/msg")
    await _tell(hub, session, target, words.strip())


async def reply(hub: Hub, session: Session, rest: str) -> None:
    """/reply WORDS

    Answers whoever wrote to you in private last.
    """
    if not rest:
        raise wrong_use(reply)
    need_nick(session, "/reply")
    if session.reply_to is None:
        raise CommandError("nobody has written to you in private yet")
    session_id, nick = session.reply_to
    target = hub.sessions.get(session_id)
    if target is not None and target.nick:
        hub.tell_session(session, target, rest)
        _tell_away(session, target)
    elif await hub.accounts.find(nick) is not None:
        await _tell(hub, session, nick, rest)
    else:
        raise NoSuchNick("who wrote to you last has left")


def me(hub: Hub, session: Session, rest: str) -> None:
    """/me WORDS

    Says what you do: "/me waves" is "* alice WAVES".
    """
    if not rest:
        raise wrong_use(me)
    need_nick(session, "/me")
    hub.act(session, rest)


def whois(hub: Hub, session: Session, rest: str) -> None:
    """/whois NICK

    Tells where somebody is, for how long, and since when silent.
    """
    if not rest or " " in rest:
        raise wrong_use(whois)
    other = hub.find(rest)
    now = hub.seconds()
    known = ", operator" if other.is_operator else ", registered" if other.account else ""
    words = (
        f"{other.nick}{known} is in {other.room}, connected for {span(now - other.connected_at)}, "
        f"silent for {span(now - other.last_heard)}"
    )
    if session.is_operator:
        words += f", from {other.peer.shown}"
    session.answer(words + (f", away: {other.away}" if other.away else ""))


def away(hub: Hub, session: Session, rest: str) -> None:
    """/away [WORDS]

    Tells those who write to you in private that you do not answer, and why; without words that
    you are back.
    """
    need_length(rest, AWAY_LENGTH, "an away text")
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
        raise wrong_use(unignore)
    if not hub.unignore(session, rest):
        raise NoSuchNick(f"you do not ignore {shorten(rest, 32)}")
    session.answer(f"you see {rest} again")


def quit_(hub: Hub, session: Session, rest: str) -> None:
    """/quit [WORDS]

    Ends your connection, with words of farewell to the room.
    """
    need_length(rest, AWAY_LENGTH, "a farewell")
    hub.disconnect(session, rest)
    session.answer("bye")
    session.hang_up("quit")


async def _tell(hub: Hub, session: Session, nick: str, words: str) -> None:
    target = await hub.tell(session, nick, words)
    if target is not None:
        _tell_away(session, target)


def _tell_away(session: Session, target: Session) -> None:
    if target.away:
        session.answer(f"{target.nick} is away: {target.away}")
