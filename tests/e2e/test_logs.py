"""What the operator reads: plain words or JSON, and never a byte that a client chose."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server, Start

HOSTILE = "\x1b[2Jred\x1b]52;c;ZXZpbA==\x07 \x9b31m a\rb \x00\x08\x7f \u202eeval\u2066 \u2028 end"


def attack(server: Server) -> None:
    """Send control characters wherever a client can send anything."""
    words = HOSTILE.encode()
    witness = server.connect()
    with_nick = server.connect()
    with_nick.send(b"/nick mallory\n")
    with_nick.until(b"mallory\n")
    fields = (b"", b"/me ", b"/topic ", b"/away ", b"/msg mallory ", b"/reply ", b"/nick ")
    others = (b"/join ", b"/whois ", b"/ignore ", b"/unignore ", b"/help ", b"/history ", b"/")
    for field in (*fields, *others):
        with_nick.send(field + words + b"\n")
    with_nick.send(b"/quit " + words + b"\n")
    assert b"\x1b" not in with_nick.rest()
    for first in (
        b"GET /" + words.replace(b"\r", b"") + b" HTTP/1.1\r\nHost: " + words + b"\r\n\r\n",
        b"SSH-2.0-" + words + b"\r\n",
        b"NICK " + words + b"\r\n",
        b"\x16\x03\x01" + words,
        b"\xff\xfa" + words * 100,
        words * 1000,
        b"\xff\xfe\x9b\x1b\n",
    ):
        client = server.connect()
        client.send(first)
        client.finish()
        client.rest()
    witness.finish()
    seen = witness.rest()
    for byte in (b"\x1b", b"\x00", b"\x07", b"\x08", b"\r", b"\x7f", b"\x9b31m"):
        assert byte not in seen
    for mark in "\x9b\u202e\u2066\u2028":
        assert mark not in seen.decode()


@pytest.mark.parametrize("form", ["text", "json"])
def test_nothing_unescaped(start: Start, form: str) -> None:
    """No control character of a client reaches the log, whatever it puts them into."""
    server = start("--log-format", form, "--rate", "0")
    attack(server)
    server.wait_for("closed after", 9)
    text = server.text()
    bad = {char for char in text if char != "\n" and not char.isprintable()}
    assert not bad
    for line in text.splitlines():
        assert json.loads(line) if form == "json" else line[:2] == "20"


def events(server: Server) -> list[dict[str, Any]]:
    """Return the log as objects."""
    return [json.loads(line) for line in server.text().splitlines()]


def test_json(start: Start) -> None:
    """Each event is one object on one line: what it is, when, how grave, and of which client."""
    server = start("--log-format", "json", "--max-clients", "2")
    alice, bob = server.connect(), server.connect()
    address, other = alice.address, bob.address
    assert b"full" in server.connect(wait=False).rest()
    alice.send("hello\nyou €\n".encode())
    assert bob.lines(2) == [b"HELLO\n", "YOU €\n".encode()]
    alice.finish()
    alice.rest()
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded")
    server.signal(signal.SIGTERM)
    server.wait_end()
    every = events(server)
    assert all({"time", "level", "message"} <= event.keys() for event in every)
    assert [event["time"] for event in every] == sorted(event["time"] for event in every)
    assert {event["level"] for event in every} == {"info"}
    by_name = [event for event in every if "event" in event]
    assert [event["event"] for event in by_name] == [
        *("listening", "accepted", "accepted", "refused", "closed", "reloaded", "stopping"),
        "closed",
    ]
    listening, first, second, refused, closed, _, stopping, last = by_name
    assert listening["place"] == f"127.0.0.1:{server.port}"
    assert (first["client"], first["address"], first["count"]) == (1, address, 1)
    assert (second["client"], second["address"], second["count"]) == (2, other, 2)
    assert "full" in refused["reason"]
    assert (closed["client"], closed["address"]) == (1, first["address"])
    assert (closed["lines_in"], closed["bytes_in"]) == (2, 14)
    assert (closed["lines_out"], closed["bytes_out"]) == (0, 0)
    assert closed["seconds"] >= 0
    assert stopping["count"] == 1
    assert (last["client"], last["lines_out"]) == (2, 3)


def test_text(start: Start) -> None:
    """In words: where it listens, who came, who went, why, and how much was sent."""
    server = start()
    alice, bob = server.connect(), server.connect()
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
    address = bob.address
    alice.reset()
    bob.send(b"/quit\n")
    assert bob.rest() == b"-> bye\n"
    server.wait_for("closed", 2)
    assert f"listening on 127.0.0.1:{server.port}" in server.text()
    assert f"from {address}: 2 connected" in server.wait_for("client 2 accepted")
    first, second = server.wait_for("client 1 closed"), server.wait_for("client 2 closed")
    assert "lost: " in first
    assert first.endswith("in 1 lines, 6 bytes; out 0 lines, 0 bytes")
    assert ": quit; " in second
    assert second.endswith("in 1 lines, 6 bytes; out 2 lines, 13 bytes")
