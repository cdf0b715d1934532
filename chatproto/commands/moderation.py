"""The commands of operators. Each is logged with who gave it."""

from __future__ import annotations

from twisted.logger import Logger

from chatproto.commands.shared import (
    exact_span,
    need_length,
    need_operator,
    span_of,
    wrong_use,
)
from chatproto.errors import CommandError
from chatproto.hub import Hub
from chatproto.moderation import BAN, MUTE, in_words, subject_of
from chatproto.session import Session
from chatproto.text import TOPIC_LENGTH, fold

log = Logger()


async def op(hub: Hub, session: Session, rest: str) -> None:
    """/op NICK

    Makes the owner of an account an operator.
    """
    await _set_operator(hub, session, rest, is_operator=True)


async def deop(hub: Hub, session: Session, rest: str) -> None:
    """/deop NICK

    Makes an operator an ordinary user again.
    """
    await _set_operator(hub, session, rest, is_operator=False)


def kick(hub: Hub, session: Session, rest: str) -> None:
    """/kick NICK [WHY]

    Puts somebody out of the room: into the lobby, or out of the server if that is the lobby.
    """
    nick, _, why = rest.partition(" ")
    if not nick:
        raise wrong_use(kick)
    need_operator(session, "/kick")
    need_length(why, TOPIC_LENGTH, "a reason")
    target = hub.find(nick)
    if target is session:
        raise CommandError("that is you: /quit ends your connection")
    _note(session, f"put {target.nick} out of {target.room}", why)
    hub.put_out(session, target, why.strip())
    session.answer(f"{target.nick or nick} is put out")


async def ban(hub: Hub, session: Session, rest: str) -> None:
    """/ban NICK|ADDRESS[/PREFIX] [10m|forever] [WHY]

    Keeps a nick or an address out of the server, for some minutes, hours (2h) or days (7d), or for
    ever if you give no time.
    """
    need_operator(session, "/ban")
    subject = await _restrict(hub, session, BAN, rest)
    session.answer(f"{subject} is banned")


async def mute(hub: Hub, session: Session, rest: str) -> None:
    """/mute NICK|ADDRESS[/PREFIX] [10m|forever] [WHY]

    Lets somebody read, but say nothing.
    """
    need_operator(session, "/mute")
    subject = await _restrict(hub, session, MUTE, rest)
    session.answer(f"{subject} is muted")


async def unban(hub: Hub, session: Session, rest: str) -> None:
    """/unban NICK|ADDRESS[/PREFIX]

    Ends a ban.
    """
    await _lift(hub, session, BAN, rest)


async def unmute(hub: Hub, session: Session, rest: str) -> None:
    """/unmute NICK|ADDRESS[/PREFIX]

    Ends a mute.
    """
    await _lift(hub, session, MUTE, rest)


def bans(hub: Hub, session: Session, rest: str) -> None:
    """/bans

    Lists who is banned or muted, by whom, until when and why.
    """
    if rest:
        raise wrong_use(bans)
    need_operator(session, "/bans")
    lines = [
        f"{'banned' if one.kind == BAN else 'muted'}: {one.subject} by {one.by}{in_words(one)}"
        for one in hub.moderation.listed()
    ]
    session.answer("\n".join(lines) or "nobody is banned or muted")


def announce(hub: Hub, session: Session, rest: str) -> None:
    """/announce WORDS

    Says something in every room.
    """
    if not rest:
        raise wrong_use(announce)
    need_operator(session, "/announce")
    rooms = hub.announce(session, rest)
    _note(session, "announced something", "")
    session.answer(f"announced in {rooms} room{'s' if rooms != 1 else ''}")


async def _set_operator(hub: Hub, session: Session, nick: str, *, is_operator: bool) -> None:
    if not nick or " " in nick:
        raise wrong_use(op if is_operator else deop)
    need_operator(session, "/op" if is_operator else "/deop")
    account = await hub.accounts.set_operator(nick, is_operator)
    for other in hub.sessions.values():
        if other.account == fold(account.nick) and other.is_operator != is_operator:
            other.is_operator = is_operator
            if other is not session:
                what = "are an operator now" if is_operator else "are no operator any more"
                other.answer(f"you {what} ({session.nick})")
    what = "an operator" if is_operator else "no operator"
    _note(session, f"made {account.nick} {what}", "")
    session.answer(f"{account.nick} is {what} now")


async def _restrict(hub: Hub, session: Session, kind: str, rest: str) -> str:
    """Carry out /ban and /mute; return whom they concern."""
    whom, _, rest = rest.partition(" ")
    if not whom:
        raise wrong_use(ban if kind == BAN else mute)
    word, _, why = rest.strip().partition(" ")
    seconds = 0.0 if word == "forever" else span_of(word)
    if seconds is None:
        seconds, why = 0.0, rest
    why = why.strip()
    need_length(why, TOPIC_LENGTH, "a reason")
    subject = subject_of(whom)
    if hub.moderation.concerns(subject, session):
        raise CommandError("that concerns you yourself")
    await hub.moderation.add(kind, subject, seconds, session.nick, why)
    time = f" for {exact_span(seconds)}" if seconds else ""
    _note(session, f"{'banned' if kind == BAN else 'muted'} {subject}{time}", why)
    hub.enforce()
    return f"{subject}{time}"


async def _lift(hub: Hub, session: Session, kind: str, rest: str) -> None:
    """Carry out /unban and /unmute."""
    name = f"/un{kind}"
    if not rest or " " in rest:
        raise wrong_use(unban if kind == BAN else unmute)
    need_operator(session, name)
    subject = subject_of(rest)
    what = "banned" if kind == BAN else "muted"
    if not await hub.moderation.lift(kind, subject):
        raise CommandError(f"{subject} is not {what}")
    _note(session, f"lifted: {subject} {what}", "")
    hub.enforce()
    session.answer(f"{subject} is no longer {what}")


def _note(session: Session, what: str, why: str) -> None:
    log.info(
        "operator {by} {what}{reason}",
        event="moderation",
        by=session.nick,
        what=what,
        reason=f": {why}" if why else "",
    )
