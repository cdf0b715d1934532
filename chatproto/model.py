"""The values that travel: drafts on the way into the log, events on the way out of it.

They are named tuples rather than frozen dataclasses: as immutable, and made in a quarter of the
time, which counts because every line said makes two.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple


class Kind(Enum):
    """What happened."""

    SAID = "said"
    ACTION = "action"
    JOINED = "joined"
    LEFT = "left"
    RENAMED = "renamed"
    TOPIC = "topic"
    PRIVATE = "private"
    KICKED = "kicked"
    ANNOUNCED = "announced"


TALK: Final = frozenset({Kind.SAID, Kind.ACTION, Kind.TOPIC, Kind.ANNOUNCED})
"""The kinds whose text somebody may look for."""


class Draft(NamedTuple):
    """What a session wants in the log: an event that has no place in the order yet."""

    room: str
    """The room's name; for a private message the recipient's inbox, see `inbox`."""
    kind: Kind
    sender: str
    """The sender's nick, empty when it has none."""
    text: str
    """What was said; the new nick (RENAMED), the new topic (TOPIC), the farewell (LEFT), the reason
    (KICKED)."""
    origin: int
    """The id of the session that sent it, which is how delivery leaves out the sender."""
    here: int = 0
    """How many are in the room afterwards (JOINED, LEFT, KICKED)."""
    to: str = ""
    """The nick of the recipient (PRIVATE), or of who was put out (KICKED)."""


class Event(NamedTuple):
    """One fact in a room, in its place in the order. The fields of `Draft`, and where and when."""

    id: int
    """Grows with every event of the log, over all rooms; never used twice."""
    seq: int
    """The number of this event in its room, without gaps: a gap is a lost event."""
    time: float
    """Seconds since 1970 (Unix time)."""
    room: str
    kind: Kind
    sender: str
    text: str
    origin: int
    here: int
    to: str


class Page(NamedTuple):
    """A stretch of a room's events in order, read back from the log."""

    events: Sequence[Event]


class Mark(NamedTuple):
    """A place in a room's past: the events after it, up to the newest."""

    after: int
    """The id after which they come."""
    lines: int
    """How many are kept after it."""


class Found(NamedTuple):
    """What a search has found."""

    events: Sequence[Event]
    """The newest events that match, oldest first."""
    unsearched: int
    """How many of the newest events of the room could not be looked at yet."""


class Account(NamedTuple):
    """A registered nick."""

    nick: str
    """As its owner writes it; two accounts never have nicks that are equal when folded."""
    secret: str
    """The Argon2id hash of the password (RFC 9106) in its usual text form; empty when the password
    is checked elsewhere."""
    is_operator: bool
    created: float
    """Unix time in seconds."""
    address: str
    """From where its owner last logged in, as the limits count it; see `address.Peer`."""


class Restriction(NamedTuple):
    """Something that an operator has forbidden to somebody."""

    kind: str
    """``ban`` or ``mute``."""
    subject: str
    """A folded nick, or a network as ``192.0.2.0/24``."""
    until: float
    """Unix time in seconds; 0 for ever."""
    by: str
    """The nick of the operator."""
    why: str
    time: float
    """When it was made: Unix time in seconds."""


INBOX_MARK: Final = "@"
"""What an inbox's room name starts with; no room can be given such a name."""


def inbox(owner: object) -> str:
    """Return the name of the room in which the private messages to `owner` are events.

    The owner is the folded nick of an account, or the id of a session without one: its nick may
    change while a message is on its way. No nick begins with a digit, so the two never meet.
    """
    return f"{INBOX_MARK}{owner}"


def is_inbox(room: str) -> bool:
    """Tell whether the room of this name is an inbox."""
    return room.startswith(INBOX_MARK)


def is_owned(room: str) -> bool:
    """Tell whether the room of this name is the inbox of an account, whose owner may come back."""
    return is_inbox(room) and not room[len(INBOX_MARK) :][:1].isdigit()
