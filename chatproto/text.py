"""What may be said: decoding, control characters, names, transforms.

Everything that comes from a client passes through here once, on its way in; so nothing that could
move a cursor, change a clipboard or turn the reading direction is ever stored or delivered.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from chatproto.errors import BadName, NameReserved, NothingToSay, NotUtf8

Transform = Callable[[str], str]
"""What happens to a text that is said in a room."""

TRANSFORMS: Final[dict[str, Transform]] = {"upper": str.upper, "none": str}

NICK_LENGTH: Final = 32
"""Characters. The web and our own prompts have room for it; IRC networks allow 9 to 31."""

ROOM_LENGTH: Final = 50
"""Characters, as RFC 2812, section 1.3 has it for channels."""

TOPIC_LENGTH: Final = 390
"""Characters, so that a topic fits into one IRC message with everything around it."""

AWAY_LENGTH: Final = 200
"""Characters of an away text or a farewell."""

LOBBY: Final = "lobby"
"""The room where everyone starts."""

RESERVED_NICKS: Final = frozenset(
    {"admin", "administrator", "all", "anonymous", "chat", "chanserv", "everyone", "here", "me"}
    | {"nickserv", "nobody", "operator", "root", "server", "service", "system", "to", "you"}
)
"""Names that could be taken for the server, for everyone, or for a part of a line's form."""

# ECMA-48: CSI sequences (5.4), control strings up to their terminator or the end of the line
# (8.3: APC, DCS, OSC, PM, SOS), and the other escape sequences (ISO 2022); C1 in both codings.
_SEQUENCES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"
    "|(?:\x1b[PX^_\\]]|[\x90\x98\x9d\x9e\x9f]).*?(?:\x07|\x1b\\\\|\x9c|$)"
    "|\x1b[ -/]*[0-~]"
)

# C0, DEL, C1, line and paragraph separators, and the characters that turn the direction of the
# text around them (UAX #9: embeddings, overrides, isolates).
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

_NICK = re.compile(rf"[A-Za-z][A-Za-z0-9_-]{{0,{NICK_LENGTH - 1}}}")
_ROOM = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{ROOM_LENGTH - 1}}}")


def clean(text: str) -> str:
    """Return `text` without escape sequences and control characters; a tab becomes four spaces."""
    if text.isprintable():  # the common case, and much cheaper than a regular expression
        return text
    return _CONTROLS.sub("", _SEQUENCES.sub("", text.replace("\t", "    ")))


def decode(line: bytes) -> str:
    """Return the text of a line that a client sent, safe to show to others.

    Raises `NotUtf8`, or `NothingToSay` when it held control characters only.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise NotUtf8("this line is not UTF-8: not sent") from None
    if text.isprintable():
        return text
    cleaned = clean(text)
    if not cleaned:
        raise NothingToSay("this line holds control characters only: not sent")
    return cleaned


def shorten(text: str, length: int) -> str:
    """Return `text` in at most `length` characters, with a mark where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def fold(name: str) -> str:
    """Return what is the same for two names that count as equal (Unicode case folding)."""
    return name.casefold()


def check_nick(nick: str) -> str:
    """Return `nick` if a client may have it; raise `BadName` or `NameReserved`."""
    if not _NICK.fullmatch(nick):
        raise BadName(
            "a nick starts with a letter and has only A-Z, a-z, 0-9, _ and -, "
            f"at most {NICK_LENGTH} of them"
        )
    if fold(nick) in RESERVED_NICKS:
        raise NameReserved(f"{nick} is a reserved name")
    return nick


def check_room(name: str) -> str:
    """Return the name under which a room is kept; raise `BadName`.

    Room names are lower case. A leading ``#`` is allowed, for people who come from IRC.
    """
    name = name.removeprefix("#")
    if not _ROOM.fullmatch(name):
        raise BadName(
            "a room name has only A-Z, a-z, 0-9, _, - and ., starts with a letter or digit, "
            f"and has at most {ROOM_LENGTH} characters"
        )
    return fold(name)
