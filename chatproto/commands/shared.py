"""What the commands have in common: their type, their help, and the checks of what follows them."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from inspect import cleandoc
from typing import Any, Final

from twisted.internet.defer import Deferred

from chatproto.errors import CommandError, NeedsNick, NotAllowed, WrongUse
from chatproto.hub import Hub
from chatproto.session import Session

Command = Callable[[Hub, Session, str], Coroutine[Deferred[Any], Any, None] | None]
"""Carries out one command of a session; the string is what follows the command's name."""

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_SPAN: Final = re.compile(r"([1-9][0-9]{0,8})([mhd])")
_NAMES: Final = (("day", DAY), ("hour", HOUR), ("minute", MINUTE))
_UNITS: Final = {"m": MINUTE, "h": HOUR, "d": DAY}


def use(command: Command) -> str:
    """Return the line that shows how `command` is used."""
    return cleandoc(command.__doc__ or "").partition("\n")[0]


def wrong_use(command: Command, more: str = "") -> WrongUse:
    """Return the error that shows how `command` is used."""
    return WrongUse(f"use: {use(command)}{more}")


def need_nick(session: Session, what: str) -> None:
    """Raise `NeedsNick` unless the session has one."""
    if not session.nick:
        raise NeedsNick(f"{what} needs a nick: choose one with /nick NAME")


def need_operator(session: Session, what: str) -> None:
    """Raise `NotAllowed` unless the session may moderate."""
    if not session.is_operator:
        raise NotAllowed(f"{what} is for operators")


def need_length(text: str, length: int, what: str) -> None:
    """Raise `CommandError` when `text` has more than `length` characters."""
    if len(text) > length:
        raise CommandError(f"{what} has at most {length} characters, this has {len(text)}")


def span_of(text: str) -> float | None:
    """Return the seconds of a length of time as 10m, 2h or 7d; None when `text` is none."""
    found = _SPAN.fullmatch(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def exact_span(seconds: float) -> str:
    """Return a length of time in words, in the largest unit that it is a whole number of."""
    units = [(unit, length) for unit, length in _NAMES if seconds % length == 0]
    unit, length = units[0]
    return _counted(int(seconds // length), unit)


def span(seconds: float) -> str:
    """Return a length of time in words, in its largest whole unit."""
    for unit, length in _NAMES:
        count = int(seconds // length)
        if count:
            return _counted(count, unit)
    return f"{int(seconds)} s"


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'s' if count > 1 else ''}"
