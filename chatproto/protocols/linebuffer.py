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
        "_end",
        "_keep",
        "_max_line",
        "_removed",
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
        self._end = -1  # where that ends, -1 while its end has not come
        self._discarded = 0  # bytes of a line that is too long, and whose end has not come

    def feed(self, data: bytes) -> None:
        """Take in what has come; raises `StreamError` when it cannot be lines."""
        came = len(data)
        data = self._telnet.feed(data)
        if len(data) != came:
            self._removed += came - len(data)
        left = len(self._buffer) - self._at
        if left:
            self._buffer = self._buffer[self._at :] + data
            # What was left has been searched: it has a line, or none.
            self._end = self._end - self._at if self._end >= 0 else self._buffer.find(b"\n", left)
        else:
            self._buffer = data
            self._end = data.find(b"\n")
        self._at = 0
        if self._end >= 0:
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
        return self._end >= 0

    def peek(self) -> bytes:
        """Return what is there, without taking it."""
        return self._buffer[self._at :]

    def take(self) -> bytes:
        """Take the next complete line, without its LF; raises `LineTooLong`."""
        buffer, start, end = self._buffer, self._at, self._end
        self._at = end + 1
        self._end = buffer.find(b"\n", end + 1)
        line = buffer[start:end]
        self.crlf = line.endswith(b"\r")
        if self._discarded or end - start > self._max_line:
            self._check(line)
        return line

    def take_rest(self) -> bytes:
        """Take what is there of a line that has no end; raises `LineTooLong`."""
        rest, self._buffer, self._at = self._buffer[self._at :], b"", 0
        self._check(rest)
        return rest

    def peek_line(self) -> bytes:
        """Return the next complete line, without its end and without taking it."""
        return self._buffer[self._at : self._end].removesuffix(b"\r")

    def has_rest(self) -> bool:
        """Tell whether a line has begun whose end has not come."""
        return self._at < len(self._buffer) or self._discarded > 0

    def pending(self) -> int:
        """Count the complete lines that are there."""
        return self._buffer.count(b"\n", self._at)

    def clear(self) -> None:
        """Forget what is there."""
        self._buffer = b""
        self._at = self._discarded = 0
        self._end = -1
        self.head = b""

    def drop_rest(self) -> None:
        """Forget what is there of a line that has no end."""
        self._discarded = 0
        self.head = b""
        self._buffer = self._buffer[: self._buffer.rfind(b"\n") + 1]
        self._at = min(self._at, len(self._buffer))

    def trim(self) -> None:
        """Let go of the memory of what has been taken."""
        if self._at:
            self._buffer = self._buffer[self._at :]
            self._end = max(self._end - self._at, -1)
            self._at = 0

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
            if self._discarded >= ENDLESS:
                raise StreamError(f"{ENDLESS} bytes without a line end")
