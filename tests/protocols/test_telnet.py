"""Telnet's negotiation is taken out wherever it stands."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatproto.errors import StreamError
from chatproto.protocols.telnet import Telnet

IAC, DONT, DO, WONT, WILL, SB, SE = (bytes([code]) for code in (255, 254, 253, 252, 251, 250, 240))

ENDLESS = 4 * 1024
"""Bytes of one subnegotiation that end a connection."""

COMMANDS = [
    *(IAC + verb + option for verb in (DO, DONT, WILL, WONT) for option in (b"\x01", b"\x00", IAC)),
    *(IAC + bytes([code]) for code in range(0xF1, 0xFA)),  # NOP, DM, BRK, IP, AO, AYT, EC, EL, GA
    IAC + SE,
    IAC + SB + b"\x18\x00xterm" + IAC + SE,
    IAC + SB + IAC + SE,
    IAC + SB + b"\x1f\x00\x50\n\r" + IAC + SE,
    IAC + SB + b"\x1f" + IAC + IAC + b"\x00" + IAC + SE,
    IAC + SB + b"\x18" + SE + IAC + WILL + SB + IAC + SE,
]

Feed = Callable[[bytes], bytes]
"""Gives a stream to a new `Telnet` in some way, and returns what is left."""

plain = st.one_of(
    st.sampled_from([b"", b"hello\r\n", b"\n", SE, "grüße".encode()]),
    st.binary(max_size=8).map(lambda data: data.replace(IAC, b"")),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` in pieces of these lengths, and the rest."""
    parts = []
    for cut in cuts:
        parts.append(data[:cut])
        data = data[cut:]
    return [*parts, data]


def feed_all(telnet: Telnet, parts: Iterable[bytes]) -> bytes:
    """Return what is left of all parts."""
    return b"".join(map(telnet.feed, parts))


def whole(data: bytes) -> bytes:
    """Return what is left of `data` when it comes in one piece."""
    return Telnet().feed(data)


def by_bytes(data: bytes) -> bytes:
    """Return what is left of `data` when each byte comes alone."""
    return feed_all(Telnet(), (data[at : at + 1] for at in range(len(data))))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("feed", [whole, by_bytes])
def test_a_command_is_taken_out(feed: Feed, command: bytes) -> None:
    """Each command goes with all its bytes, before, in and after a line, and twice in a row."""
    assert feed(command) == b""
    assert feed(command + b"hello\n") == b"hello\n"
    assert feed(b"hel" + command + command + b"lo\n") == b"hello\n"
    assert feed(b"hello\n" + command) == b"hello\n"


@pytest.mark.parametrize("feed", [whole, by_bytes])
def test_an_escaped_byte_is_data(feed: Feed) -> None:
    """IAC IAC is the data byte 255."""
    assert feed(b"a" + IAC + IAC + b"b") == b"a\xffb"


@pytest.mark.parametrize("code", [0x00, 0x0A, 0x41, 0x80, 0xEF])
@pytest.mark.parametrize("feed", [whole, by_bytes])
def test_what_is_no_command_stays(feed: Feed, code: int) -> None:
    """A byte 255 before anything that is no telnet command is left with it: a line end counts."""
    data = b"a" + IAC + bytes([code]) + b"b"
    assert feed(data) == data


@settings(deadline=None)
@given(
    st.lists(st.tuples(plain, st.sampled_from(COMMANDS))),
    plain,
    st.lists(st.integers(1, 6), max_size=40),
)
def test_commands_anywhere_in_any_pieces(
    parts: list[tuple[bytes, bytes]], last: bytes, cuts: list[int]
) -> None:
    """With commands anywhere, and cut anywhere, exactly the text between them is left."""
    stream = b"".join(text + command for text, command in parts) + last
    left = feed_all(Telnet(), pieces(stream, cuts))
    assert left == b"".join(text for text, _ in parts) + last


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([IAC, SB, SE, WILL, DO, b"\n", b"a", b"\xf1", b"\x00"])).map(b"".join),
    st.lists(st.integers(1, 6), max_size=40),
)
def test_pieces_do_not_matter(stream: bytes, cuts: list[int]) -> None:
    """Any stream, also a broken one, leaves the same however it comes."""
    assert feed_all(Telnet(), pieces(stream, cuts)) == whole(stream)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 3000), max_size=8), st.sampled_from([b"x", b"\n", IAC + IAC, IAC + DO])
)
def test_an_endless_subnegotiation_is_an_error(cuts: list[int], filler: bytes) -> None:
    """A subnegotiation of more than 4 KiB is given up, whatever is in it and however it comes."""
    telnet = Telnet()
    with pytest.raises(StreamError, match="telnet"):
        feed_all(telnet, pieces(IAC + SB + filler * (ENDLESS + 8), cuts))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 3000), max_size=8))
def test_a_long_subnegotiation_may_end(cuts: list[int]) -> None:
    """Up to 4 KiB are taken out like a short one, each time: the count starts anew."""
    one = IAC + SB + b"x" * (ENDLESS - 8) + IAC + SE
    assert feed_all(Telnet(), pieces(one + b"a" + one + b"b", cuts)) == b"ab"


def test_endless_after_a_while_is_an_error_all_the_same() -> None:
    """Text and commands before it do not help an endless subnegotiation."""
    telnet = Telnet()
    telnet.feed(b"hello\n" + IAC + SB + b"x" * 3000 + IAC + SE + b"hello\n" + IAC + SB)
    with pytest.raises(StreamError):
        feed_all(telnet, [b"x"] * (ENDLESS + 1))
