"""How the line protocol writes events and answers (docs/protocol.md, "What you read")."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from chatproto.model import Event, Kind


class LineCodec:
    """Events as lines of text that end in LF or in CRLF."""

    def __init__(self, ending: bytes) -> None:
        """End every line with `ending`."""
        self.ending = ending
        self._ending = ending.decode()

    def lines(self, events: Sequence[Event]) -> list[bytes]:
        """Return the line of each event."""
        ending = self._ending
        return [
            f"<{event.sender}> {event.text}{ending}".encode()
            if event.kind is Kind.SAID and event.sender
            else (_FORMS[event.kind](event) + ending).encode()
            for event in events
        ]

    def sent(self, event: Event) -> bytes:
        """Return a private message as its sender sees it."""
        return f"[to {event.to}] {event.text}{self._ending}".encode()

    def past(self, event: Event, now: float) -> str:
        """Return an event with the local time of day in front, and the date if it is another."""
        when = time.localtime(event.time)
        is_today = when[:3] == time.localtime(now)[:3]
        clock = time.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S", when)
        return f"{clock} {_FORMS[event.kind](event)}"

    def answer(self, text: str) -> bytes:
        """Return each line of `text` behind an arrow."""
        return self._marked("-> ", text)

    def error(self, text: str) -> bytes:
        """Return `text` behind an exclamation mark."""
        return self._marked("! ", text)

    def notice(self, text: str) -> bytes:
        """Return each line of `text` behind an asterisk."""
        return self._marked("* ", text)

    def _marked(self, mark: str, text: str) -> bytes:
        ending = self._ending
        return (mark + text.replace("\n", ending + mark) + ending).encode()


def _said(event: Event) -> str:
    return f"<{event.sender}> {event.text}" if event.sender else event.text


def _left(event: Event) -> str:
    return f"* {event.sender} left ({event.here} here){_words(event)}"


def _kicked(event: Event) -> str:
    return f"* {event.to} was put out by {event.sender} ({event.here} here){_words(event)}"


def _words(event: Event) -> str:
    return f": {event.text}" if event.text else ""


_FORMS: Final[dict[Kind, Callable[[Event], str]]] = {
    Kind.SAID: _said,
    Kind.ACTION: lambda event: f"* {event.sender} {event.text}",
    Kind.JOINED: lambda event: f"* {event.sender} joined ({event.here} here)",
    Kind.LEFT: _left,
    Kind.RENAMED: lambda event: f"* {event.sender} is now {event.text}",
    Kind.TOPIC: lambda event: f"* {event.sender} set the topic: {event.text}",
    Kind.PRIVATE: lambda event: f"[{event.sender}] {event.text}",
    Kind.KICKED: _kicked,
    Kind.ANNOUNCED: lambda event: f"* {event.sender} announces: {event.text}",
}

LF = LineCodec(b"\n")
CRLF = LineCodec(b"\r\n")
