"""What the first bytes of a connection speak.

Pure functions on bytes. What we do not speak is refused in its own language, and above all never
read as chat: a browser that is made to POST to this port must not be able to say anything.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final


class Speaks(Enum):
    """A kind of client, known by its first bytes."""

    LINE = "line"
    TLS = "TLS"
    HTTP = "HTTP"
    IRC = "IRC"
    SSH = "SSH"


# RFC 9112, section 3; a method is any token (RFC 9110, section 5.6.2), not only a known one.
_METHOD = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]+"
_REQUEST_LINE = re.compile(_METHOD + rb"\S+[ \t]+HTTP/\d")
_REQUEST_START = re.compile(_METHOD + rb"(/|\*|[A-Za-z]+:)")  # any form of request target
_IRC_LINE = re.compile(rb"(CAP|NICK|PASS|USER) ")  # RFC 2812, section 3.1, in capitals
_TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446, section 5.1: handshake, version 3.x
_SSH_IDENT = b"SSH-"  # RFC 4253, section 4.2


def detect(first: bytes, *, cut: bool = False) -> Speaks | None:
    """Return what a client speaks whose first bytes are `first`, None while that is open.

    TLS is known by its second byte, everything else by its first line. With `cut`, `first` is the
    beginning of a line that is too long to be kept.
    """
    if first.startswith(_TLS_HANDSHAKE):
        return Speaks.TLS
    if _TLS_HANDSHAKE.startswith(first):
        return None
    line, end, _ = first.partition(b"\n")
    if not end and not cut:
        return None
    if (_REQUEST_START if cut else _REQUEST_LINE).match(line):
        return Speaks.HTTP
    if line.startswith(_SSH_IDENT):
        return Speaks.SSH
    if _IRC_LINE.match(line):
        return Speaks.IRC
    return Speaks.LINE


_HTTP_BODY: Final = b"This is a chat server for nc and telnet; there is no web page here.\n"

REFUSALS: Final[dict[Speaks, bytes]] = {
    # RFC 8446, section 6: a fatal alert, handshake_failure.
    Speaks.TLS: b"\x15\x03\x01\x00\x02\x02\x28",
    Speaks.HTTP: (
        b"HTTP/1.1 404 Not Found\r\n"
        b"Content-Type: text/plain\r\n"
        b"Content-Length: %d\r\n"
        b"Connection: close\r\n\r\n" % len(_HTTP_BODY)
    )
    + _HTTP_BODY,
    Speaks.IRC: b"ERROR :This port does not speak IRC\r\n",
    # RFC 4253, section 4.2: lines before the identification are shown to the user.
    Speaks.SSH: b"This port does not speak SSH\r\n",
}
"""What each is told before its connection is closed."""
