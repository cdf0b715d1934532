"""Bytes in pieces of any size, lines out; sans I/O.

Each byte is looked at once however the pieces fall, and a line that is too long is counted, not
kept: the memory of a client is bounded by the longest allowed line and one read from the network.
"""

from __future__ import annotations

from typing import Final

from chatproto.errors import LineTooLong, StreamError
from chatproto.protocols.telnet import Telnet

ENDLESS: Final = 64 * 1024
"""Bytes without a line end after which the connection is given up."""

HEAD: Final = 4096
"""Bytes kept of a first line, or of one that is too long, to see what it is."""


class LineBuffer:
    """What one client has sent and nobody has taken yet."""

    __slots__ = (
        "_at",
        "_buffer",
        "_discarded",
        "_keep",
        "_max_line",
        "_removed",
        "_searched",
        "_telnet",
        "crlf",
        "head",
    )

    def __init__(self, max_line: int) -> None:
        """Give out lines of at most `max_line` bytes, not counting the line end."""
        self.crlf = False
        """Whether the line that was taken last ended in CRLF."""
        self.head = b""
        """The beginning of a line that is too long, and whose end has not come."""
        self._max_line = max_line
        self._removed = 0  # bytes of telnet commands since the last line end
        self._keep = max(max_line + 2, HEAD)
        self._telnet = Telnet()
        self._buffer = b""
        self._at = 0  # where the next line starts
        self._searched = 0  # up to where there is no line end
        self._discarded = 0  # bytes of a line that is too long, and whose end has not come

    def feed(self, data: bytes) -> None:
        """Take in what has come; raises `StreamError` when it cannot be lines."""
        came = len(data)
        data = self._telnet.feed(data)
        self._removed += came - len(data)
        if self._at < len(self._buffer):
            self._searched -= self._at
            self._buffer = self._buffer[self._at :] + data
        else:
            self._searched = 0
            self._buffer = data
        self._at = 0
        if self.has_line():
            self._removed = 0
            return
        if self._removed >= ENDLESS:
            raise StreamError(f"{ENDLESS} bytes of telnet commands without a line")
        self._bound_rest()

    def expect_lines(self) -> None:
        """Keep no more of a line than is allowed: now it is known that these are lines."""
        self._keep = self._max_line + 2  # a CR may still belong to the line's end

    def has_line(self) -> bool:
        """Tell whether a complete line is there."""
        return self._find() >= 0

    def peek(self) -> bytes:
        """Return what is there, without taking it."""
        return self._buffer[self._at :]

    def take(self) -> bytes:
        """Take the next complete line, without its LF; raises `LineTooLong`."""
        end = self._find()
        start, self._at = self._at, end + 1
        self._searched = self._at
        length = end - start
        self.crlf = length > 0 and self._buffer[end - 1] == 0x0D
        if self._discarded or length > self._max_line:
            self._check(self._buffer[start:end])
        return self._buffer[start:end]

    def take_rest(self) -> bytes:
        """Take what is there of a line that has no end; raises `LineTooLong`."""
        rest, self._buffer = self._buffer[self._at :], b""
        self._at = self._searched = 0
        self._check(rest)
        return rest

    def peek_line(self) -> bytes:
        """Return the next complete line, without its end and without taking it."""
        return self._buffer[self._at : self._find()].removesuffix(b"\r")

    def has_rest(self) -> bool:
        """Tell whether a line has begun whose end has not come."""
        return self._at < len(self._buffer) or self._discarded > 0

    def pending(self) -> int:
        """Count the complete lines that are there."""
        return self._buffer.count(b"\n", self._at)

    def clear(self) -> None:
        """Forget what is there."""
        self._buffer = b""
        self._at = self._searched = self._discarded = 0
        self.head = b""

    def drop_rest(self) -> None:
        """Forget what is there of a line that has no end."""
        self._discarded = 0
        self.head = b""
        self._buffer = self._buffer[: self._buffer.rfind(b"\n") + 1]
        self._searched = min(self._searched, len(self._buffer))

    def trim(self) -> None:
        """Let go of the memory of what has been taken."""
        if self._at:
            self._buffer = self._buffer[self._at :]
            self._searched -= self._at
            self._at = 0

    def _find(self) -> int:
        found = self._buffer.find(b"\n", self._searched)
        self._searched = len(self._buffer) if found < 0 else found
        return found

    def _check(self, end_of_line: bytes) -> None:
        length = self._discarded + len(end_of_line) - end_of_line.endswith(b"\r")
        self._discarded = 0
        self.head = b""
        if length > self._max_line:
            raise LineTooLong(
                f"this line has {length} bytes, at most {self._max_line} are allowed: not sent"
            )

    def _bound_rest(self) -> None:
        """Count a line that is too long instead of keeping it."""
        if self._discarded or len(self._buffer) >= self._keep:
            self.head = self.head or self._buffer[:HEAD]
            kept = b"\r" if self._buffer.endswith(b"\r") else b""  # it may belong to the line end
            self._discarded += len(self._buffer) - len(kept)
            self._buffer = kept
            self._searched = 0
            if self._discarded >= ENDLESS:
                raise StreamError(f"{ENDLESS} bytes without a line end")
