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


class Draft(NamedTuple):
    """What a session wants in the log: an event that has no place in the order yet."""

    room: str
    """The room's name; for a private message the recipient's inbox, see `inbox`."""
    kind: Kind
    sender: str
    """The sender's nick, empty when it has none."""
    text: str
    """What was said; the new nick (RENAMED), the new topic (TOPIC), the farewell (LEFT)."""
    origin: int
    """The id of the session that sent it, which is how delivery leaves out the sender."""
    here: int = 0
    """How many are in the room afterwards (JOINED, LEFT)."""
    to: str = ""
    """The recipient's nick (PRIVATE)."""


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


INBOX_MARK: Final = "@"
"""What an inbox's room name starts with; no room can be given such a name."""


def inbox(owner: object) -> str:
    """Return the name of the room in which the private messages to `owner` are events.

    The owner is the id of a session: its nick may change while a message is on its way.
    """
    return f"{INBOX_MARK}{owner}"


def is_inbox(room: str) -> bool:
    """Tell whether the room of this name is an inbox."""
    return room.startswith(INBOX_MARK)
