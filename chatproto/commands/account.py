"""The commands about accounts. What follows them is never logged, stored or shown."""

from __future__ import annotations

from chatproto.commands.shared import need_nick, wrong_use
from chatproto.errors import CommandError, NotAllowed
from chatproto.hub import Hub
from chatproto.session import Session
from chatproto.text import fold


async def register(hub: Hub, session: Session, rest: str) -> None:
    """/register PASSWORD

    Makes your nick yours: from now on only who knows the password can have it.
    """
    if not rest or " " in rest:
        raise wrong_use(register)
    _need_secrecy(hub, session)
    need_nick(session, "/register")
    if session.account:
        raise CommandError(f"{session.nick} is registered already")
    nick = session.nick
    account = await hub.accounts.register(nick, rest, session.peer)
    if fold(session.nick) == fold(nick) and session.id in hub.sessions:
        hub.own(session, account)
        await hub.show_missed(session, *session.cursors)
    session.answer(f"{nick} is yours: /login {nick} PASSWORD brings you back")


async def login(hub: Hub, session: Session, rest: str) -> None:
    """/login NICK PASSWORD

    Gives you your registered nick, what was said in the room since you left, and what was written
    to you meanwhile.
    """
    nick, _, word = rest.partition(" ")
    if not word or " " in word:
        raise wrong_use(login)
    _need_secrecy(hub, session)
    if session.account and session.account == fold(nick):
        raise CommandError(f"you are logged in as {session.nick} already")
    account = await hub.accounts.check(nick, word, session.peer)
    await hub.log_in(session, account)
    session.answer(f"you are logged in as {session.nick}")
    await hub.show_missed(session, *session.cursors)


async def password(hub: Hub, session: Session, rest: str) -> None:
    """/password OLD NEW

    Changes the password of your account.
    """
    old, _, new = rest.partition(" ")
    if not new or " " in new:
        raise wrong_use(password)
    _need_secrecy(hub, session)
    _need_account(session)
    await hub.accounts.change_password(session.account, old, new, session.peer)
    session.answer("your password is changed")


def logout(hub: Hub, session: Session, rest: str) -> None:
    """/logout

    Leaves your account, and gives back its nick.
    """
    if rest:
        raise wrong_use(logout)
    _need_account(session)
    hub.log_out(session)
    session.answer("you are logged out, and have no nick")
    if hub.needs_nicks:
        hub.disconnect(session)
        session.hang_up("logged out")


async def unregister(hub: Hub, session: Session, rest: str) -> None:
    """/unregister PASSWORD

    Removes your account, and all that was written to you in private.
    """
    if not rest or " " in rest:
        raise wrong_use(unregister)
    _need_secrecy(hub, session)
    _need_account(session)
    account = session.account
    await hub.accounts.check_own(account, rest, session.peer)
    await hub.unregister(account)
    session.answer("your account is removed; anyone can have the nick when you leave")


def _need_account(session: Session) -> None:
    if not session.account:
        raise CommandError("you are not logged in: /login NICK PASSWORD")


def _need_secrecy(hub: Hub, session: Session) -> None:
    if not (session.is_secure or hub.accounts.allows_plaintext):
        raise NotAllowed(
            "this connection is not encrypted, so others could read your password: "
            "connect with TLS, or ask for --plaintext-login"
        )
