"""The slash commands, one small named function each.

A command's docstring is its help: the first line shows its use, the rest says what it does. A
command that has to wait is a coroutine; the client's next line is read when it has finished.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from inspect import cleandoc
from typing import Any, Final

from twisted.internet.defer import Deferred

from chatproto.commands import account, moderation, rooms, talk
from chatproto.commands.shared import Command, use
from chatproto.errors import UnknownCommand
from chatproto.hub import Hub
from chatproto.session import Session
from chatproto.text import shorten

WITH_PASSWORDS: Final = frozenset({"register", "login", "password", "unregister"})
"""Commands that nobody else may ever see."""


_COMMAND: Final = re.compile(r"([\s/]*)(\w+)")


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


def is_secret(line: str) -> bool:
    """Tell whether `line` seems to be a command with a password that something stands before."""
    found = _COMMAND.match(line)
    return found is not None and "/" in found[1] and found[2].lower() in WITH_PASSWORDS


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


COMMANDS: Final[dict[str, Command]] = {
    "help": help_,
    "nick": talk.nick,
    "msg": talk.msg,
    "reply": talk.reply,
    "me": talk.me,
    "list": rooms.list_,
    "names": rooms.list_,
    "who": rooms.list_,
    "rooms": rooms.rooms,
    "join": rooms.join,
    "topic": rooms.topic,
    "history": rooms.history,
    "search": rooms.search,
    "whois": talk.whois,
    "away": talk.away,
    "ignore": talk.ignore,
    "unignore": talk.unignore,
    "register": account.register,
    "login": account.login,
    "logout": account.logout,
    "password": account.password,
    "unregister": account.unregister,
    "op": moderation.op,
    "deop": moderation.deop,
    "kick": moderation.kick,
    "ban": moderation.ban,
    "unban": moderation.unban,
    "bans": moderation.bans,
    "mute": moderation.mute,
    "unmute": moderation.unmute,
    "announce": moderation.announce,
    "quit": talk.quit_,
    "exit": talk.quit_,
}
"""Every command by every name it has."""
