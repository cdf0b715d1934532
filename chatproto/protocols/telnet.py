"""Takes telnet's negotiation out of a stream of bytes (RFC 854, RFC 855).

Nothing is ever negotiated or sent. A byte 255 that no telnet command follows is left where it is:
it is no UTF-8 either, so its line is refused, not silently changed.
"""

from __future__ import annotations

from typing import Final

from chatproto.errors import StreamError

SUBNEGOTIATION: Final = 4096
"""Bytes after which a subnegotiation that does not end ends the connection. Real ones (terminal
type, window size, environment) have a few dozen."""

IAC: Final = 0xFF
_SE, _SB, _WILL, _DONT = 0xF0, 0xFA, 0xFB, 0xFE


class Telnet:
    """One client's incoming stream; remembers a command that is split between packets."""

    __slots__ = ("_inside", "_part")

    def __init__(self) -> None:
        """Begin outside of any command."""
        self._part = b""  # the beginning of a command that has not ended
        self._inside: int | None = None  # bytes of the subnegotiation so far

    def feed(self, data: bytes) -> bytes:
        """Return `data` without telnet commands; raises `StreamError` on an endless one."""
        if not self._part and self._inside is None and b"\xff" not in data:
            return data
        data, self._part = self._part + data, b""
        text = bytearray()
        at = 0
        while at < len(data):
            if self._inside is not None:
                at = self._skip(data, at)
                continue
            found = data.find(b"\xff", at)
            if found < 0:
                text += data[at:]
                break
            text += data[at:found]
            at = self._command(data, found, text)
        return bytes(text)

    def _command(self, data: bytes, at: int, text: bytearray) -> int:
        """Read the command at `at`; return where it ends."""
        if at + 1 == len(data):
            self._part = data[at:]
            return len(data)
        verb = data[at + 1]
        if _WILL <= verb <= _DONT:
            if at + 2 == len(data):
                self._part = data[at:]
            return at + 3
        if verb == _SB:
            self._inside = 0
        elif verb == IAC:
            text.append(IAC)  # the escaped data byte 255
        elif verb < _SE:
            text.append(IAC)
            return at + 1
        return at + 2

    def _skip(self, data: bytes, at: int) -> int:
        """Read on inside a subnegotiation; return where it ends, or the end of `data`."""
        assert self._inside is not None
        found = data.find(b"\xff", at)
        end = len(data) if found < 0 else found
        self._inside += end - at
        if self._inside >= SUBNEGOTIATION:
            raise StreamError(f"a telnet negotiation of {SUBNEGOTIATION} bytes without an end")
        if found < 0:
            return end
        if found + 1 == len(data):
            self._part = data[found:]
            return len(data)
        if data[found + 1] == _SE:
            self._inside = None
        else:
            self._inside += 2
        return found + 2
