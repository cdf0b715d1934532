"""What every wire format has to be able to say: the port between a session and its protocol.

A codec turns events and the server's own words into bytes and knows nothing of sockets. There is
one codec object for each distinct output form, shared by all sessions that use it, because a batch
is encoded once for each codec: equal codecs must be the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from chatproto.model import Event


class Codec(Protocol):
    """One wire format, outwards."""

    def lines(self, events: Sequence[Event]) -> list[bytes]:
        """Return the wire form of each event, as everyone but its sender sees it."""

    def sent(self, event: Event) -> bytes:
        """Return the wire form of a private message as its sender sees it."""

    def past(self, event: Event, now: float) -> str:
        """Return an event as a line of history: an answer, for `answer`; `now` is the Unix time."""

    def answer(self, text: str) -> bytes:
        """Return the answer to a command; `text` may have several lines."""

    def error(self, text: str) -> bytes:
        """Return an error, told to the one who can act on it."""

    def notice(self, text: str) -> bytes:
        """Return the server's own words to everyone; `text` may have several lines."""
