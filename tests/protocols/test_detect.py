"""What the first bytes of a connection speak; above all, that a browser never chats."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatproto.protocols.detect import REFUSALS, Speaks, detect
from chatproto.testing import World

HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
"""How a TLS client begins."""

BODY = b"/nick evil\r\nhello from a web page\n"


def request(target: bytes = b"/", method: bytes = b"POST") -> bytes:
    """Return the request with which a web page tries to chat."""
    return (
        method + b" " + target + b" HTTP/1.1\r\nHost: chat.example:12345\r\n"
        b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
    )


@pytest.mark.parametrize(
    ("first", "speaks"),
    [
        (HELLO, Speaks.TLS),
        (b"\x16\x03", Speaks.TLS),
        (b"\x16\x03\n", Speaks.TLS),
        (b"GET / HTTP/1.1\r\n", Speaks.HTTP),
        (b"GET / HTTP/1.0\n", Speaks.HTTP),
        (b"POST /a?b=c HTTP/1.1\r\nHost: x\r\n\r\nhello\n", Speaks.HTTP),
        (b"HEAD / HTTP/1.1\r\n", Speaks.HTTP),
        (b"PUT / HTTP/1.1\r\n", Speaks.HTTP),
        (b"OPTIONS * HTTP/1.1\r\n", Speaks.HTTP),
        (b"CONNECT example.org:443 HTTP/1.1\r\n", Speaks.HTTP),
        (b"DELETE / HTTP/1.1\r\n", Speaks.HTTP),
        (b"GET http://example.org/ HTTP/1.1\r\n", Speaks.HTTP),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Speaks.HTTP),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Speaks.SSH),
        (b"CAP LS 302\r\n", Speaks.IRC),
        (b"NICK alice\r\n", Speaks.IRC),
        (b"PASS secret\r\n", Speaks.IRC),
        (b"USER alice 0 * :Alice\r\n", Speaks.IRC),
        (b"hello\n", Speaks.LINE),
        (b"\n", Speaks.LINE),
        (b"\r\n", Speaks.LINE),
        (b"/nick alice\n", Speaks.LINE),
        (b"GET out of here\n", Speaks.LINE),
        (b"GET\n", Speaks.LINE),
        (b"I said GET / HTTP/1.1\n", Speaks.LINE),
        (b"post / http/1.1\n", Speaks.LINE),
        (b"nick alice\n", Speaks.LINE),
        (b"NICKNAMES are fun\n", Speaks.LINE),
        (b"NICK\n", Speaks.LINE),
        (b"ssh-2.0\n", Speaks.LINE),
        (b"SSH is nice\n", Speaks.LINE),
        (b"\x16 hello\n", Speaks.LINE),
        ("grüße\n".encode(), Speaks.LINE),
    ],
)
def test_the_first_line_tells(first: bytes, speaks: Speaks) -> None:
    """TLS, HTTP, IRC and SSH are known by how they begin; everything else is a line."""
    assert detect(first) is speaks


@pytest.mark.parametrize(
    "first", [b"", b"\x16", b"G", b"GET / HTTP/1.1", b"NICK alice\r", b"SSH-2.0", b"hello"]
)
def test_it_waits_for_the_line(first: bytes) -> None:
    """As long as the first bytes may still become something else, nothing is decided."""
    assert detect(first) is None


@settings(deadline=None)
@given(
    st.sampled_from([HELLO, request(), b"SSH-2.0-x\r\nabc\n", b"NICK a\r\nUSER a\r\n", b"hi\nyou"])
)
def test_more_bytes_do_not_change_it(stream: bytes) -> None:
    """Once decided, it is decided: what follows does not matter."""
    answers = [detect(stream[:end]) for end in range(len(stream) + 1)]
    decided = [answer for answer in answers if answer is not None]
    assert len(set(decided)) == 1
    assert answers[-1] is decided[0]
    assert answers == [None] * (len(answers) - len(decided)) + decided


@pytest.mark.parametrize(
    ("begun", "speaks"),
    [
        (b"POST /" + b"x" * 5000, Speaks.HTTP),
        (b"GET http://example.org/" + b"x" * 5000, Speaks.HTTP),
        (b"SSH-2.0-" + b"x" * 5000, Speaks.SSH),
        (b"USER " + b"x" * 5000, Speaks.IRC),
        (HELLO + b"x" * 5000, Speaks.TLS),
        (b"x" * 5000, Speaks.LINE),
        (b"I said POST /" + b"x" * 5000, Speaks.LINE),
    ],
)
def test_a_long_line_is_known_by_its_beginning(begun: bytes, speaks: Speaks) -> None:
    """Of a line that is too long to be kept, its beginning decides."""
    assert detect(begun, cut=True) is speaks


def test_every_stranger_is_refused_in_its_own_language() -> None:
    """A refusal is a TLS alert, an HTTP response, an IRC error, or text that ssh shows."""
    assert set(REFUSALS) == set(Speaks) - {Speaks.LINE}
    kind, *version = REFUSALS[Speaks.TLS][:3]
    assert (kind, version[0], REFUSALS[Speaks.TLS][5]) == (21, 3, 2)  # an alert, fatal
    assert int.from_bytes(REFUSALS[Speaks.TLS][3:5]) == len(REFUSALS[Speaks.TLS]) - 5
    assert REFUSALS[Speaks.IRC].startswith(b"ERROR :")
    assert REFUSALS[Speaks.IRC].endswith(b"\r\n")
    assert REFUSALS[Speaks.SSH].endswith(b"\r\n")
    assert not REFUSALS[Speaks.SSH].startswith(b"SSH-")


def test_the_http_refusal_is_a_whole_response() -> None:
    """A browser can read the refusal: a status that is no success, a length that fits, closed."""
    head, body = REFUSALS[Speaks.HTTP].split(b"\r\n\r\n")
    status, *headers = head.split(b"\r\n")
    assert status.startswith(b"HTTP/1.1 4")
    fields = dict(header.lower().split(b": ") for header in headers)
    assert int(fields[b"content-length"]) == len(body)
    assert fields[b"connection"] == b"close"
    assert fields[b"content-type"].startswith(b"text/plain")
    assert not any(field.startswith(b"access-control") for field in fields)


def sent_by_a_browser(world: World, pieces: Iterable[bytes]) -> bytes:
    """Send the pieces as far as the server takes them; return what it answers."""
    browser = world.client()
    for piece in pieces:
        if browser.is_connected:
            browser.send(piece)
    world.wait(60)  # the longest that the server leaves a connection undecided
    assert not browser.is_connected
    return browser.received()


@pytest.mark.parametrize("nicknames", ["optional", "required", "off"])
@pytest.mark.parametrize(
    ("size", "piece"),
    [(1, 1), (1, 1448), (1000, 1448), (5000, 1448), (5000, 16_384), (20_000, 4096), (70_000, 1448)],
)
def test_a_web_page_cannot_chat(size: int, piece: int, nicknames: str) -> None:
    """Whatever the length of the address and the size of the packets, a request says nothing."""
    world = World(nicknames=nicknames)
    reader = world.client()
    reader.send(b"reader\n")
    reader.received()
    data = request(b"/" + b"x" * size)
    sent_by_a_browser(world, (data[at : at + piece] for at in range(0, len(data), piece)))
    assert reader.received() == b""


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 40), max_size=20), st.sampled_from([b"GET", b"POST", b"PUT"]))
def test_a_web_page_cannot_chat_in_any_pieces(cuts: list[int], method: bytes) -> None:
    """However a request falls into packets, it is refused and nothing is said."""
    world = World()
    reader = world.client()
    data = request(method=method)
    places = [0, *accumulate(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    answer = sent_by_a_browser(world, filter(None, pieces))
    assert answer == REFUSALS[Speaks.HTTP]
    assert reader.received() == b""
