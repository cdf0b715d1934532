"""The line protocol, in bytes: what one client sends, and what it and the others then read."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.logger import capturedLogs, formatEvent
from twisted.protocols.basic import LineReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from chatproto.testing import Client, MemoryTransport, World

IAC, DONT, DO, WONT, WILL, SB, SE = b"\xff", b"\xfe", b"\xfd", b"\xfc", b"\xfb", b"\xfa", b"\xf0"

FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What must never reach a terminal: every control character but the line end, and what turns the
direction of reading."""

Sending = Callable[[Client, bytes], None]
"""A way to send bytes to the server."""


def whole(client: Client, data: bytes) -> None:
    """Send everything in one packet."""
    client.send(data)


def byte_by_byte(client: Client, data: bytes) -> None:
    """Send one byte in a packet, as far as the server takes them."""
    for byte in data:
        if client.is_connected:
            client.send(bytes([byte]))


@pytest.fixture(params=[whole, byte_by_byte])
def sending(request: pytest.FixtureRequest) -> Sending:
    """Each way in which packets may fall."""
    way: Sending = request.param
    return way


def numbered(first: int, last: int) -> list[bytes]:
    """Return a block of lines to paste."""
    return [b"LINE %d\n" % number for number in range(first, last + 1)]


# What two people see.


def test_two_who_know_nothing(sending: Sending) -> None:
    """A line is uppercased at everyone but its sender, and nothing else is ever sent."""
    world = World()
    one, two, three = world.client(), world.client(), world.client()
    assert one.received() == two.received() == three.received() == b""
    sending(one, b"hello\n")
    assert (one.received(), two.received(), three.received()) == (b"", b"HELLO\n", b"HELLO\n")
    two.close()
    assert (one.received(), three.received()) == (b"", b"")


def test_it_is_a_line_receiver() -> None:
    """A client is a `LineReceiver`, with its interface: lines in, `sendLine` with the delimiter."""
    world = World()
    one, two = world.client(), world.client()
    assert isinstance(one.protocol, LineReceiver)
    one.protocol.lineReceived(b"hello")
    world.turn()
    two.protocol.sendLine(b"and this")
    assert two.received() == b"HELLO\nand this\n"


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        pytest.param(b"one\ntwo\nthree\n", b"ONE\nTWO\nTHREE\n", id="several lines"),
        pytest.param(b"one\r\ntwo\r\n", b"ONE\nTWO\n", id="CRLF"),
        pytest.param(b"one\r\ntwo\n", b"ONE\nTWO\n", id="both endings"),
        pytest.param(b"\n\r\nx\n", b"\n\nX\n", id="empty lines"),
        pytest.param(b"  two words \n", b"  TWO WORDS \n", id="spaces"),
        pytest.param("straße\n".encode(), b"STRASSE\n", id="eszett"),
        pytest.param("żółw 🐢\n".encode(), "ŻÓŁW 🐢\n".encode(), id="UTF-8"),
        pytest.param(b"a\tb\n", b"A    B\n", id="tab"),
        pytest.param(b"//slash\n", b"/SLASH\n", id="double slash"),
    ],
)
def test_lines_however_they_are_packed(sending: Sending, sent: bytes, read: bytes) -> None:
    """However the packets fall, also inside a character, the same lines arrive."""
    world = World()
    one, two = world.client(), world.client()
    sending(one, sent)
    assert two.received() == read
    assert one.received() == b""


PIECES = st.lists(
    st.sampled_from(
        [
            *[b"hello", "straße".encode(), "🐢".encode(), b"\n", b"\r\n", b"x" * 50 + b"\n"],
            *[b"\xff", b"\xf0", b"\xff\xfb\x18", b"\xff\xfa\x18\x00vt100\xff\xf0"],
            *[b"/list\n", b"/nick al\n"],
        ]
    ),
    max_size=20,
)


@given(stream=PIECES.map(b"".join), data=st.data())
def test_any_chunking(stream: bytes, data: st.DataObject) -> None:
    """Any chunking of the same bytes has the same effect on everyone."""

    def outcome(chunks: list[bytes]) -> tuple[bytes, bytes]:
        world = World(max_line=40)
        one, two = world.client(), world.client()
        for chunk in chunks:
            one.send(chunk)
        one.close()
        return one.received(), two.received()

    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12), label="cuts"))
    edges = [0, *cuts, len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    assert outcome(chunks) == outcome([stream])


# Ends of lines and of connections.


def test_last_line_without_an_ending() -> None:
    """A last line without an ending counts when the client closes cleanly."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"first\nlast")
    assert two.received() == b"FIRST\n"
    one.close()
    assert two.received() == b"LAST\n"


def test_no_last_line_after_a_reset() -> None:
    """A beginning of a line does not count when the connection breaks: it may be half a line."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"first\nla")
    one.reset()
    assert two.received() == b"FIRST\n"


def test_half_close() -> None:
    """A client that sends no more is given its answers and all that was said before it goes."""
    world = World()
    one, two = world.client(), world.client()
    one.feed(b"hello\n/list")
    one.protocol.readConnectionLost()
    world.turn()
    assert two.received() == b"HELLO\n"
    assert one.received() == b"-> in lobby: 2 without a nick\n"
    assert not one.is_connected


def test_half_close_after_a_line_that_is_too_long() -> None:
    """A last line without an ending that is too long is refused in words, as any other."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"x" * 5000)
    one.protocol.readConnectionLost()
    world.turn()
    assert one.received().startswith(b"! this line has 5000 bytes")
    assert two.received() == b""


def test_answers_use_the_ending_of_the_client() -> None:
    """What a client is sent ends as its own lines do, and in LF until it has shown an ending."""
    world = World(motd="welcome")
    one, two = world.client(), world.client()
    assert one.received() == b"* welcome\n"
    two.send(b"early\n")
    assert one.received() == b"EARLY\n"
    one.send(b"/list\r\n")
    two.send(b"late\n")
    assert one.received() == b"-> in lobby: 2 without a nick\r\nLATE\r\n"
    one.protocol.sendLine(b"x")
    assert one.received() == b"x\r\n"


@pytest.mark.parametrize(
    "first", [b"\xfe", b"\x01", b"x" * 4097, b""], ids=["not UTF-8", "control", "too long", "empty"]
)
def test_the_first_line_shows_the_ending(sending: Sending, first: bytes) -> None:
    """The first line shows the ending even when it is refused."""
    world = World()
    one, _ = world.client(), world.client()
    sending(one, first + b"\r\n")
    one.send(b"/list\r\n")
    lines = one.received().split(b"\n")
    assert lines.pop() == b""
    assert lines[-1] == b"-> in lobby: 2 without a nick\r"
    assert all(line.endswith(b"\r") for line in lines)


# Telnet.


@pytest.mark.parametrize(
    "negotiation",
    [
        pytest.param(IAC + WILL + b"\x18", id="WILL"),
        pytest.param(IAC + WONT + b"\x0a", id="WONT, an option that is a line feed"),
        pytest.param(IAC + DO + b"\x03" + IAC + DONT + b"\x01", id="DO, DONT"),
        pytest.param(IAC + b"\xf1", id="NOP"),
        pytest.param(IAC + SB + b"\x18\x00xterm\n" + IAC + SE, id="a line end in SB"),
        pytest.param(IAC + SB + b"\x18" + IAC + IAC + b"x" + IAC + SE, id="IAC IAC in SB"),
    ],
)
def test_telnet_negotiation(sending: Sending, negotiation: bytes) -> None:
    """Telnet negotiation is consumed anywhere in the stream, and never answered."""
    line = "füße\n".encode()
    for at in range(len(line) + 1):
        world = World()
        one, two = world.client(), world.client()
        sending(one, line[:at] + negotiation + line[at:])
        assert two.received() == "FÜSSE\n".encode()
        assert one.received() == b""


def test_endless_telnet_negotiation(sending: Sending) -> None:
    """A subnegotiation that has not ended after 4 KiB ends the connection, with an error."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"hi\n" + IAC + SB)
    sending(one, b"x" * 4096)
    assert re.fullmatch(rb"! .+\n", one.received())
    assert not one.is_connected
    assert two.received() == b"HI\n"


# What is refused, and the session goes on.


@pytest.mark.parametrize(
    "bad",
    [b"\xfe", b"caf\xe9", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", IAC + IAC],
    ids=["FE", "latin-1", "cut", "surrogate", "overlong", "beyond", "escaped FF"],
)
def test_invalid_utf8(sending: Sending, bad: bytes) -> None:
    """A line that is not UTF-8 is refused with an error, and the session goes on."""
    world = World()
    one, two = world.client(), world.client()
    sending(one, b"before\nx" + bad + b"y\nafter\n")
    assert two.received() == b"BEFORE\nAFTER\n"
    assert one.received() == b"! this line is not UTF-8: not sent\n"


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_longest_line(sending: Sending, ending: bytes) -> None:
    """A line of 4096 bytes, not counting its ending, is said."""
    world = World()
    one, two = world.client(), world.client()
    sending(one, b"x" * 4096 + ending)
    assert two.received() == b"X" * 4096 + b"\n"
    assert one.received() == b""


@pytest.mark.parametrize("length", [4097, 4098, 5000, 60_000])
@pytest.mark.parametrize("packet", [1000, 100_000])
def test_line_too_long(length: int, packet: int) -> None:
    """A line of more than 4096 bytes is refused with an error, and the session goes on."""
    world = World()
    one, two = world.client(), world.client()
    stream = b"before\n" + b"x" * length + b"\nafter\n"
    for start in range(0, len(stream), packet):
        one.send(stream[start : start + packet])
    assert two.received() == b"BEFORE\nAFTER\n"
    error = f"! this line has {length} bytes, at most 4096 are allowed: not sent\n"
    assert one.received() == error.encode()


def test_line_too_long_cut_before_its_end() -> None:
    """The CR of a line's ending is not counted, wherever the packets fall."""
    world = World()
    one, two = world.client(), world.client()
    for packet in (b"x" * 5000 + b"\r", b"\n", b"x" * 4096 + b"\r", b"\n"):
        one.send(packet)
    assert one.received().startswith(b"! this line has 5000 bytes")
    assert two.received() == b"X" * 4096 + b"\n"


def test_max_line_is_a_setting() -> None:
    """The longest line is what the setting says."""
    world = World(max_line=16)
    one, two = world.client(), world.client()
    one.send(b"x" * 16 + b"\n" + b"x" * 17 + b"\n")
    assert two.received() == b"X" * 16 + b"\n"
    assert one.received() == b"! this line has 17 bytes, at most 16 are allowed: not sent\n"


@pytest.mark.parametrize("packet", [1, 1000, 65_536])
def test_endless_line(packet: int) -> None:
    """64 KiB without a line end: an error, closed, and nothing is said."""
    world = World()
    one, two = world.client(), world.client()
    for _ in range(0, 65_536, packet):
        one.feed(b"x" * packet)
    if 65_536 % packet:
        one.feed(b"x" * (65_536 % packet))
    world.turn()
    assert re.fullmatch(rb"! .+\n", one.received())
    assert not one.is_connected
    assert two.received() == b""


def test_endless_line_costs_no_memory() -> None:
    """What will be refused is counted, not kept: memory stays flat while a line does not end."""
    world = World()
    one = world.client()
    one.send(b"x" * 8192)
    tracemalloc.start()
    try:
        for _ in range(50):
            one.send(b"x" * 1024)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 8192
    assert one.is_connected


# Characters that do harm.

HARMFUL = {
    "NUL": "a\0b",
    "bell": "a\ab",
    "backspace": "a\bb",
    "CR inside": "a\rb",
    "colour": "a\x1b[31mb",
    "clear": "a\x1b[2Jb",
    "lone ESC": "a\x1b",
    "OSC 52": "a\x1b]52;c;cm0gLXJm\x07b",
    "OSC 52, ST": "a\x1b]52;c;cm0gLXJm\x1b\\b",
    "OSC without an end": "a\x1b]0;title",
    "DCS": "a\x1bPx\x1b\\b",
    "DEL": "a\x7fb",
    "C1 CSI": "a\x9b31mb",
    "C1 OSC": "a\x9d52;c;cm0=\x9cb",
    "C1 NEL": "a\x85b",
    "bidi override": "a\u202eb",
    "bidi isolate": "a\u2067b",
    "line separator": "a\u2028b",
    "nested": "a\x1b\x1b[[31mb\x9b\x9b1mm",
}


FIELDS = [
    *["{}", "//{}", "/me {}", "/msg bob {}", "/reply {}", "/topic {}", "/away {}", "/quit {}"],
    *["/nick {}", "/nick al{}", "/join {}", "/join a{}", "/ignore {}", "/unignore {}"],
    *["/whois {}", "/msg {} hi", "/help {}", "/{}", "/list {}", "/history {}"],
]


@pytest.mark.parametrize("line", FIELDS)
def test_harmful_characters(line: str) -> None:
    """No control character in any field of any line reaches a client, its sender, or the log."""
    for text in HARMFUL.values():
        with capturedLogs() as logged:
            read = harm(line.format(text))
        assert "".join(read)
        assert logged
        for words in (*read, *(formatEvent(event) for event in logged)):
            assert not FORBIDDEN.search(words), ascii(words)


def harm(line: str) -> list[str]:
    """Let somebody send `line`, and return what everyone reads."""
    world = World()
    alice, bob, anonymous = world.named("alice"), world.named("bob"), world.client()
    bob.send(b"/msg alice hi\n")  # for /reply
    alice.send(line.encode() + b"\n")
    bob.send(b"/whois alice\n/list\n/msg alice hi\n/topic\n/history\n/rooms\n")
    if alice.is_connected:
        alice.close()
    return [client.received().decode() for client in (alice, bob, anonymous)]


def test_harmful_message_of_the_day() -> None:
    """Not even the message of the day carries a control character."""
    for motd in HARMFUL.values():
        assert not FORBIDDEN.search(World(motd=motd).client().received().decode())


@pytest.mark.parametrize(
    ("text", "said"),
    [("a\x1b[31mb", "AB"), ("a\0b", "AB"), ("a\x1b]52;c;cm0=\x07b", "AB"), ("a\u202eb", "AB")],
    ids=["colour", "NUL", "OSC 52", "bidi"],
)
def test_the_rest_is_said(text: str, said: str) -> None:
    """Harmful characters are taken out of a line; the rest of it is said."""
    world = World()
    one, two = world.client(), world.client()
    one.send(text.encode() + b"\n")
    assert two.received() == said.encode() + b"\n"
    assert one.received() == b""


def test_controls_only() -> None:
    """A line of nothing but control characters is refused in words."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"\x1b[2J\x07\nnext\n")
    assert one.received() == b"! this line holds control characters only: not sent\n"
    assert two.received() == b"NEXT\n"


# Clients that are not ours.

STRANGERS = {
    "GET": (b"GET / HTTP/1.1\r\nHost: chat\r\n\r\n", rb"HTTP/1\.1 \d{3} .*"),
    "POST": (
        b"POST /x HTTP/1.1\r\nHost: chat\r\nContent-Type: text/plain\r\n\r\n/nick eve\nbuy\n",
        rb"HTTP/1\.1 \d{3} .*",
    ),
    "HTTP/1.0": (b"HEAD /?q=a%20b HTTP/1.0\r\n\r\nbuy\n", rb"HTTP/1\.1 \d{3} .*"),
    "PRI": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", rb"HTTP/1\.1 \d{3} .*"),
    "long GET": (b"GET /" + b"a" * 6000 + b" HTTP/1.1\r\nbuy: x\r\n\r\n", rb"HTTP/1\.1 \d{3} .*"),
    "long POST": (
        b"POST /" + b"a" * 6000 + b" HTTP/1.1\r\nHost: x\r\n\r\nbuy\n",
        rb"HTTP/1\.1 \d{3} .*",
    ),
    "TLS": (b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03buy\nbuy\n", rb"\x15\x03.\x00\x02\x02."),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\nbuy\r\n", rb"[^\r\n]*SSH\r\n"),
    "IRC": (b"CAP LS 302\r\nNICK eve\r\nUSER eve 0 * :Eve\r\nbuy\r\n", rb"ERROR :.+\r\n"),
    "IRC NICK": (b"NICK eve\r\nUSER eve 0 * :Eve\r\n", rb"ERROR :.+\r\n"),
    "IRC PASS": (b"PASS secret\nNICK eve\n", rb"ERROR :.+\r\n"),
    "IRC USER": (b"USER eve 0 * :Eve\nNICK eve\n", rb"ERROR :.+\r\n"),
}


@pytest.mark.parametrize(("request_", "answer"), STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("packet", [1, 1460, 100_000])
def test_strangers(request_: bytes, answer: bytes, packet: int) -> None:
    """A client of another kind is refused in its language and closed, and says nothing here."""
    for nicknames in ("optional", "required", "off"):
        world = World(nicknames=nicknames)
        reader = world.client()
        reader.send(b"reader\n")
        stranger = world.client()
        reader.received()
        stranger.received()
        for start in range(0, len(request_), packet):
            if stranger.is_connected:
                stranger.feed(request_[start : start + packet])
        world.turn()
        assert re.fullmatch(answer, stranger.received(), re.DOTALL)
        assert not stranger.is_connected
        assert reader.received() == b""


def test_a_short_limit_lets_no_stranger_in(sending: Sending) -> None:
    """A request line above the longest line allowed is still seen to be a request."""
    world = World(max_line=16)
    reader, browser = world.client(), world.client()
    sending(browser, b"POST /a/long/path HTTP/1.1\r\nHost: x\r\n\r\nbuy\n")
    assert browser.received().startswith(b"HTTP/1.1 ")
    assert reader.received() == b""


def test_strangers_that_close_early() -> None:
    """A stranger that closes before its first line has ended says nothing either."""
    world = World()
    reader = world.client()
    for request, _ in STRANGERS.values():
        stranger = world.client()
        stranger.send(request.partition(b"\n")[0])
        if stranger.is_connected:
            stranger.close()
        assert reader.received() == b"", request


def test_only_the_first_line_is_looked_at() -> None:
    """Somebody who chats may say what looks like a request."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"look\nGET / HTTP/1.1\nNICK eve\n")
    assert two.received() == b"LOOK\nGET / HTTP/1.1\nNICK EVE\n"
    assert one.is_connected


# The pace.

TOLD = b"! more than 100 lines at once: the rest follows at 10 lines a second\n"


def test_a_pasted_block_arrives_at_once(sending: Sending) -> None:
    """A block of 100 lines arrives whole and at once, and nobody is told anything."""
    world = World()
    one, two = world.client(), world.client()
    block = numbered(1, 100)
    sending(one, b"".join(block))
    assert two.received() == b"".join(block)
    assert one.received() == b""


def test_a_longer_block_is_paced() -> None:
    """A longer block arrives whole, in order, at the pace; the sender is told once."""
    world = World()
    one, two = world.client(), world.client()
    block = numbered(1, 150)
    one.send(b"".join(block))
    assert two.received() == b"".join(block[:100])
    assert one.received() == TOLD
    for second in range(5):
        for _ in range(10):
            world.wait(0.1)
        start = 100 + 10 * second
        lines = two.received().splitlines(keepends=True)
        assert abs(len(lines) - 10) <= 1
        assert set(lines) <= set(block[start - 1 : start + 11])
    world.wait(1)
    assert one.received() == b""
    assert two.received() in (b"", block[-1])


def test_a_block_in_many_packets_is_paced() -> None:
    """However a long block comes, all of it arrives in order, and the sender is told once."""
    world = World()
    one, two = world.client(), world.client()
    block = numbered(1, 300)
    for line in block:
        one.send(line)
    for _ in range(300):
        world.wait(0.1)
    assert two.received() == b"".join(block)
    assert one.received() == TOLD


def test_reading_pauses_while_lines_wait() -> None:
    """While lines wait for their turn the server reads no more of that client."""
    world = World()
    one, two = world.client(), world.client()
    one.send(b"".join(numbered(1, 101)))
    assert one.transport.producerState == "paused"
    two.send(b"hi\n")
    assert one.received().endswith(b"HI\n")
    world.wait(1)
    assert one.transport.producerState == "producing"


def test_told_again_after_a_rest() -> None:
    """Once a whole burst is free again, the next block that is too long is a new occasion."""
    world = World()
    one, two = world.client(), world.client()
    for _ in range(2):
        one.send(b"x\n" * 101)
        assert one.received() == TOLD
        for _ in range(20):
            world.wait(1)
    assert two.received() == b"X\n" * 202


def test_no_pace() -> None:
    """With a rate of 0 everything passes at once."""
    world = World(rate=0)
    one, two = world.client(), world.client()
    block = b"".join(numbered(1, 5000))
    one.feed(block)
    world.turn(5000)
    assert two.received() == block
    assert one.received() == b""


def test_pace_is_a_setting() -> None:
    """Burst and rate are what the settings say."""
    world = World(burst=2, rate=1)
    one, two = world.client(), world.client()
    one.send(b"a\nb\nc\nd\n")
    assert two.received() == b"A\nB\n"
    world.wait(1)
    assert two.received() == b"C\n"
    world.wait(1)
    assert two.received() == b"D\n"
    assert one.received() == b"! more than 2 lines at once: the rest follows at 1 lines a second\n"


def test_one_who_floods_delays_nobody() -> None:
    """While one client's block waits, what the others say is delivered at once."""
    world = World()
    flood, one, two = world.client(), world.client(), world.client()
    flood.send(b"x\n" * 5000)
    two.received()
    one.send(b"hello\n")
    assert two.received() == b"HELLO\n"


@pytest.mark.parametrize("closing", [Client.close, Client.reset])
def test_commands_of_one_who_left(closing: Callable[[Client], None]) -> None:
    """10,000 commands in one packet, then close: paced, and no ghost is left in /list."""
    world = World()
    reader, ghost = world.client(), world.client()
    ghost.send(b"/nick ghost\n" + b"/list\n" * 10_000)
    assert ghost.received().count(b"-> in lobby") <= 100
    closing(ghost)
    world.wait(1)
    reader.received()
    reader.send(b"/list\n")
    assert reader.received() == b"-> in lobby: 1 without a nick\n"
    assert len(world.factory.protocols) == 1


def test_lines_of_one_who_left_still_arrive() -> None:
    """A block whose sender closes before it has been passed on arrives whole, at the pace."""
    world = World()
    one, two = world.client(), world.client()
    block = numbered(1, 150)
    one.feed(b"".join(block) + b"last")
    one.close()
    assert two.received() == b"".join(block[:100])
    for _ in range(60):
        world.wait(0.1)
    assert two.received() == b"".join(block[100:]) + b"LAST\n"
    assert len(world.factory.protocols) == 1


def test_data_of_one_who_left_with_nicknames_off() -> None:
    """With nicknames off a slash starts no command, not even when its sender has left."""
    world = World(nicknames="off")
    one, two = world.client(), world.client()
    block = b"".join(b"/USR/%d\n" % number for number in range(100))
    one.feed(block)
    one.close()
    world.wait(1)
    assert two.received() == block


# Answers that are not read.


def test_answers_never_read() -> None:
    """Who does not read its answers is not read from either; it gets all of them afterwards."""
    world = World(rate=0, high_water=1)
    one, two = world.client(), world.client()
    one.stop_reading()
    asked = 300
    one.feed(b"/help\n" * asked)
    world.turn(400)
    assert one.transport.producerState == "paused"
    assert one.protocol.session.outbox.queued < 64 * 1024
    two.send(b"meanwhile\n")
    one.read_on()
    world.turn(400)
    assert one.transport.producerState == "producing"
    answers = one.received()
    assert answers.count(b"-> commands:\n") == asked
    assert answers.count(b"MEANWHILE\n") == 1


def test_input_waits_in_order_behind_answers() -> None:
    """What waits because answers are not read is carried out in order later, and not lost."""
    world = World(rate=0, high_water=1)
    one, two = world.client(), world.client()
    one.stop_reading()
    one.send(b"/help\n" * 60 + b"a\nb\nc\n")
    assert two.received() == b""
    one.read_on()
    world.turn(100)
    assert two.received() == b"A\nB\nC\n"


def test_a_peer_that_never_reads_after_the_close() -> None:
    """A closed connection whose peer does not take our last words is gone within 5 s."""
    world = World()
    one, two = world.named("one"), world.client()
    one.stop_reading()
    one.send(b"/quit\n")
    assert two.received() == b"* one left (1 here)\n"
    assert one.is_connected
    world.wait(5)
    assert not one.is_connected
    assert len(world.factory.protocols) == 1


# Transforms, nicks, the message of the day.


@pytest.mark.parametrize(("transform", "said"), [("upper", "HI Ä"), ("none", "hi ä")])
def test_transform(transform: str, said: str) -> None:
    """The transform applies to what is said in rooms: not to nicks, commands, private messages."""
    world = World(transform=transform)
    alice, bob = world.named("alice"), world.named("bob")
    for line in ("hi ä", "/me hi ä", "/msg bob hi ä", "/topic hi ä", "/quit hi ä"):
        alice.send(f"{line}\n".encode())
    assert bob.received().decode().splitlines() == [
        f"<alice> {said}",
        f"* alice {said}",
        "[alice] hi ä",
        "* alice set the topic: hi ä",
        "* alice left (1 here): hi ä",
    ]


def test_nicknames_off(sending: Sending) -> None:
    """With nicknames off every line is data."""
    world = World(nicknames="off")
    one, two = world.client(), world.client()
    sending(one, b"/nick x\n//y\n/quit\n/nonsense\n")
    assert two.received() == b"/NICK X\n//Y\n/QUIT\n/NONSENSE\n"
    assert one.received() == b""
    assert one.is_connected


def test_nicknames_optional() -> None:
    """Nobody is asked, and anonymous clients come and go without a word."""
    world = World()
    one = world.client()
    world.client().close()
    assert one.received() == b""


def test_nicknames_required() -> None:
    """Where a nick is required it is asked for on connect, and again when it cannot be had."""
    world = World(nicknames="required")
    alice, bob = world.client(), world.client()
    assert alice.received() == b"-> what is your nick?\n"
    alice.send(b"alice\n")
    assert alice.received() == b"-> you are alice, in lobby (1 here)\n"
    bob.received()
    bob.send(b"ALICE\n")
    assert bob.received() == b"! ALICE is taken; what is your nick?\n"
    bob.send(b"two words\n")
    assert re.fullmatch(rb"! a nick .+; what is your nick\?\n", bob.received())
    bob.send(b"root\n")
    assert re.fullmatch(rb"! root .+; what is your nick\?\n", bob.received())
    assert alice.received() == b""
    bob.send(b"/nick bob\nhi\n")
    assert bob.received() == b"-> you are bob, in lobby (2 here)\n"
    assert alice.received() == b"* bob joined (2 here)\n<bob> HI\n"


def test_nobody_without_a_nick_takes_part() -> None:
    """Before it has its nick a client reads nothing, says nothing, and is not in the room."""
    world = World(nicknames="required")
    alice, other = world.client(), world.client()
    alice.send(b"alice\n")
    alice.received()
    other.received()
    alice.send(b"secret\n/list\n")
    assert alice.received() == b"-> in lobby: alice\n"
    other.send(b"/list\n/msg alice hi\n/history\n")
    answers = other.received().splitlines()
    assert len(answers) == 3
    assert all(answer.endswith(b"; what is your nick?") for answer in answers)
    assert alice.received() == b""


@pytest.mark.parametrize("line", [b"/quit\n", b"/EXIT\n"])
def test_leaving_before_a_nick(line: bytes) -> None:
    """Who is asked for a nick may leave instead, and ask for help."""
    world = World(nicknames="required")
    one, other = world.client(), world.client()
    one.send(b"other\n")
    one.received()
    other.send(b"/help\n")
    assert b"-> /nick NAME\n" in other.received()
    other.send(line)
    assert other.received() == b"-> bye\n"
    assert not other.is_connected
    assert one.received() == b""


def test_login_deadline() -> None:
    """Who has chosen no nick 60 s after connecting is closed, whatever it has tried since."""
    world = World(nicknames="required")
    slow, quick = world.client(), world.client()
    quick.send(b"quick\n")
    for _ in range(59):
        world.wait(1)
        slow.send(b"not a nick\n")
    assert slow.is_connected
    world.wait(1)
    assert not slow.is_connected
    assert quick.is_connected
    world.wait(1000)
    assert quick.is_connected


def test_motd() -> None:
    """The message of the day is sent on connect, each line behind an asterisk."""
    world = World(motd="welcome\nbe kind", nicknames="required")
    assert world.client().received() == b"* welcome\n* be kind\n-> what is your nick?\n"


def test_motd_from_a_file(tmp_path: Path) -> None:
    """The message of the day can be in a file, and is read again on reload."""
    file = tmp_path / "motd"
    file.write_bytes("grüß dich\r\nline 2\n".encode())
    world = World(motd=f"@{file}")
    assert world.client().received() == "* grüß dich\n* line 2\n".encode()
    file.write_text("new\n")
    assert world.client().received() == "* grüß dich\n* line 2\n".encode()
    world.factory.reload()
    assert world.client().received() == b"* new\n"


# TLS.


@implementer(IOpenSSLContextFactory)
class Context:
    """The server's context of TLS, with a certificate that is good for a test."""

    def __init__(self) -> None:
        """Make the key and the certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(hours=1))
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_privatekey(key)
        self._context.use_certificate(builder.sign(key, hashes.SHA256()))

    def getContext(self) -> SSL.Context:
        """Return the context, as `TLSMemoryBIOFactory` wants it."""
        return self._context


class Inside(Protocol):
    """What a client reads inside of TLS."""

    transport: Any
    received = b""

    def dataReceived(self, data: bytes) -> None:
        """Keep `data`."""
        self.received += data


class TlsClient:
    """A client that speaks TLS to the server, in memory."""

    def __init__(self, world: World, context: Context) -> None:
        """Connect; what each side sends stays with it until `pump`."""
        address = IPv4Address("TCP", "127.0.0.1", 40_000)
        self._world = world
        self._inside = Inside()
        client = TLSMemoryBIOProtocol(
            TLSMemoryBIOFactory(CertificateOptions(), True, Factory()), self._inside
        )
        server = TLSMemoryBIOFactory(context, False, world.factory, world.clock).buildProtocol(
            address
        )
        self.transport = MemoryTransport(address)
        self._ends = [(server, self.transport), (client, MemoryTransport(address))]
        for end, transport in self._ends:
            end.makeConnection(transport)

    @property
    def received(self) -> bytes:
        """Everything that was read inside of TLS."""
        return self._inside.received

    def send(self, data: bytes) -> None:
        """Send `data` inside of TLS."""
        self._inside.transport.write(data)
        self.pump()

    def pump(self) -> None:
        """Carry the bytes between the two until both are silent."""
        (server, to_client), (client, to_server) = self._ends
        while True:
            self._world.turn()
            outward, inward = to_client.value(), to_server.value()
            if not outward and not inward:
                return
            to_client.clear()
            to_server.clear()
            if outward:
                client.dataReceived(outward)
            if inward:
                server.dataReceived(inward)


@pytest.fixture
def certificate() -> Context:
    """The server's certificate."""
    return Context()


def test_chat_over_tls(certificate: Context) -> None:
    """Inside of TLS the contract is the same, and nothing is sent before the handshake is done."""
    world = World(motd="welcome")
    plain, secure = world.client(), TlsClient(world, certificate)
    assert secure.transport.value() == b""
    secure.pump()
    assert secure.received == b"* welcome\n"
    secure.send(b"hello\r\n")
    assert plain.received() == b"* welcome\nHELLO\n"
    plain.send(b"hi\n")
    secure.pump()
    assert secure.received == b"* welcome\nHI\r\n"


def test_handshake_deadline(certificate: Context) -> None:
    """A client that has not finished the TLS handshake after 10 s is closed; others stay."""
    world = World(nicknames="required")
    silent, quick = TlsClient(world, certificate), TlsClient(world, certificate)
    quick.pump()
    quick.send(b"quick\n")
    world.clock.advance(9.9)
    assert not silent.transport.aborted
    world.clock.advance(0.1)
    assert silent.transport.aborted
    world.clock.advance(1000)
    assert not quick.transport.disconnecting


def test_login_deadline_begins_after_the_handshake(certificate: Context) -> None:
    """Over TLS too a client that is to choose a nick has 60 s for it."""
    world = World(nicknames="required")
    client = TlsClient(world, certificate)
    client.pump()
    assert client.received == b"-> what is your nick?\n"
    world.clock.advance(59.9)
    assert not client.transport.aborted
    world.clock.advance(0.1)
    assert client.transport.aborted


# A client that is gone.


def gone_with(world: World, lines: bytes) -> Client:
    """Connect a client named ghost that sends `lines` at once, more than its burst, and resets."""
    ghost = world.named("ghost")
    ghost.feed(lines)
    ghost.reset()
    return ghost


@pytest.mark.parametrize("command", [b"/quit", b"\x01/quit", b"\x1b[0m/nick undead", b"/join x"])
def test_a_command_of_one_who_is_gone(command: bytes) -> None:
    """What a client that is gone has said is said; a command, however disguised, ends it."""
    world = World(burst=5)
    watcher = world.client()
    gone_with(world, b"hi\n" * 9 + command + b"\n/join lobby\nafter\n" * 3)
    world.wait(60)
    said = watcher.received()
    assert said.count(b"<ghost> HI\n") == 9
    assert b"AFTER" not in said
    assert b"undead" not in said
    watcher.send(b"/list\n")
    assert watcher.received() == b"-> in lobby: 1 without a nick\n"
    assert len(world.factory.hub.sessions) == len(world.factory.protocols) == 1


def test_last_words_have_a_limit() -> None:
    """A client that is gone keeps its name for a minute at most, whatever it had still to say."""
    world = World(burst=5, rate=1)
    watcher = world.client()
    gone_with(world, b"hi\n" * 1000)
    for _ in range(70):
        world.wait(1)
    assert 50 < watcher.received().count(b"<ghost> HI\n") < 80
    assert len(world.factory.protocols) == 1


def test_history_of_one_who_is_gone() -> None:
    """A reader that is behind, asks for history and breaks off is gone, and its name is free."""
    world = World(rate=0, high_water=1)
    ghost, talker = world.named("ghost"), world.client()
    talker.send(b"x" * 1000 + b"\n")
    ghost.stop_reading()
    for _ in range(20):
        talker.send(b"x" * 1000 + b"\n")
    ghost.send(b"/history 1000\n")
    ghost.reset()
    world.turn(20)
    assert len(world.factory.protocols) == 1
    talker.send(b"/nick ghost\n")
    assert talker.received().endswith(b"-> you are now ghost\n")


def test_endless_telnet_commands() -> None:
    """Telnet commands without any line are no way around the limits either."""
    world = World()
    one = world.client()
    for _ in range(64):
        one.send(b"\xff\xf1" * 512)
    assert re.fullmatch(rb"! .+\n", one.received())
    assert not one.is_connected


def test_history_counts_for_the_pace() -> None:
    """Asking for much history takes more of the pace than a line does."""
    world = World(burst=20, rate=10)
    talker, reader = world.client(), world.client()
    for _ in range(10):
        talker.send(b"hi\n" * 20)
        world.wait(10)
    reader.received()
    reader.send(b"/history 200\n" * 5)
    assert reader.received().count(b"-> ") == 2 * 200
    world.wait(10)
    assert reader.received().count(b"-> ") > 0


@pytest.mark.parametrize(
    "request_line",
    [b"foo / HTTP/1.1", b"patch /a HTTP/1.1", b"x-put /a HTTP/1.1", b"A-B  / HTTP/1.0"],
)
def test_any_method_is_a_request(request_line: bytes) -> None:
    """A request with a method of one's own making is a request all the same."""
    world = World()
    watcher, page = world.client(), world.client()
    page.send(request_line + b"\r\nHost: x\r\n\r\nhello\n")
    assert page.received().startswith(b"HTTP/1.1 404 ")
    assert watcher.received() == b""


# Passwords, and coming in.


@pytest.mark.parametrize(
    ("line", "behind"),
    [
        (b" /login alice secret-words", "a space"),
        (b"   /REGISTER secret-words", "a space"),
        (b"//password secret-words new", "two slashes"),
        (b"//unregister secret-words", "two slashes"),
    ],
)
def test_a_password_by_mistake(line: bytes, behind: str) -> None:
    """A command with a password that would be said to everyone is not said, and it is told why."""
    world = World()
    alice, other = world.named("alice"), world.client()
    alice.send(line + b"\n")
    words = f"! this looks like a password behind {behind}: not sent\n"
    assert alice.received() == words.encode()
    assert other.received() == b""
    other.send(b"/history\n/search secret\n")
    assert b"SECRET" not in other.received().upper()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b" /list", b" /LIST"),
        (b"//list", b"/LIST"),
        (b"see /login alice secret", b"SEE /LOGIN ALICE SECRET"),
        (b" login", b" LOGIN"),
    ],
)
def test_what_is_no_password(line: bytes, said: bytes) -> None:
    """What only resembles a command with a password is said as it is."""
    world = World()
    one, other = world.client(), world.client()
    one.send(line + b"\n")
    assert other.received() == said + b"\n"


def test_without_nicknames_every_line_is_data() -> None:
    """Where there are no commands there are no passwords either: nothing is held back."""
    world = World(nicknames="off")
    one, other = world.client(), world.client()
    one.send(b" /login a b\n//login a b\n")
    assert other.received() == b" /LOGIN A B\n//LOGIN A B\n"


def test_a_password_is_in_no_log() -> None:
    """Neither a right nor a wrong password is logged, nor is one sent by mistake."""
    world = World()
    with capturedLogs() as events:
        alice = world.named("alice")
        alice.send(b"/register secret-words\n/login alice secret-words\n//login a secret-words\n")
        alice.send(b"/password secret-words secret-others\n/logout\n/login alice secret-nope\n")
        alice.close()
    assert events
    assert not [event for event in events if "secret" in formatEvent(event) + repr(event)]


def test_the_last_lines_on_coming_in() -> None:
    """With `--replay` who comes in is shown the last lines, before what it has sent counts."""
    world = World(replay=2)
    one = world.client()
    one.send(b"one\ntwo\nthree\n")
    address = IPv4Address("TCP", "127.0.0.1", 40_001)
    late = Client(world, world.factory.buildProtocol(address), address)
    world.clients.append(late)
    late.feed(b"four\n/rooms\n")
    world.turn(20)
    lines = late.received().decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["TWO", "THREE", "(2)"]
    assert one.received() == b"FOUR\n"


def test_an_account_instead_of_a_nick() -> None:
    """Where a nick is required one can come in with an account, and is in the room then."""
    world = World(nicknames="required")
    alice = world.client()
    alice.send(b"alice\n/register secret-words\n/quit\n")
    alice.received()
    again = world.client()
    again.send(b"alice\n")
    assert again.received().decode().splitlines() == [
        "-> what is your nick?",
        "! alice is registered: /login alice PASSWORD if it is yours; what is your nick?",
    ]
    again.send(b"/login alice wrong-words\n")
    assert again.received() == (
        b"! there is no such account, or the password is wrong; what is your nick?\n"
    )
    again.send(b"hello\n")
    again.received()
    other = world.client()
    other.send(b"/login alice secret-words\n")
    lines = other.received().decode().splitlines()
    assert lines[1] == "-> you are logged in as alice"
    assert "-> you are alice, in lobby (2 here)" in lines
    assert other.is_connected
    world.wait(100)
    assert other.is_connected


def test_leaving_while_logging_in() -> None:
    """Where a nick is required and none is chosen in time, tries to log in do not help."""
    world = World(nicknames="required")
    client = world.client()
    for _ in range(3):
        world.wait(19)
        client.send(b"/login alice secret-words\n")
    assert client.is_connected
    world.wait(3)
    assert not client.is_connected


def test_lines_that_come_while_the_past_is_shown() -> None:
    """Who sends and finishes at once is said line by line, whatever is being shown meanwhile."""
    started = World(rate=0, replay=20)
    witness = started.client()
    started.client().send(b"before\n")
    witness.received()
    reading: list[Deferred[None]] = []

    async def held(*cursors: object) -> None:
        reading.append(Deferred())
        await reading[-1]

    started.factory.hub.show_missed = held  # type: ignore[method-assign, assignment]
    client = started.client()
    client.feed(b"one\ntwo\n/away\nthree\n")
    assert client.transport.producerState == "paused"  # so it cannot finish before its turn
    started.turn()
    assert witness.received() == b""
    reading[0].callback(None)
    started.turn()
    assert witness.received() == b"ONE\nTWO\nTHREE\n"
