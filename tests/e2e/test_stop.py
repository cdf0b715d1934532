"""The end: everyone is told, what is queued is sent, and nobody can hold it up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Conn, Server, Start

Until = Callable[[Callable[[], Any], str], Any]

LINE = b"x" * 4000


def say_much(server: Server, *, lines: int) -> list[bytes]:
    """Have a client say so many long lines; return them as others see them."""
    speaker, witness = server.connect(), server.connect()
    said = []
    for number in range(lines):
        said.append(b"%06d" % number + LINE.upper() + b"\n")
        speaker.send(b"%06d" % number + LINE + b"\n")
        assert witness.line() == said[-1]
    speaker.close()
    witness.close()
    return said


@pytest.fixture
def slow(start: Start) -> Callable[..., tuple[Server, Conn]]:
    """Start a server and connect a client that is not reading and has small buffers."""

    def start_with(*flags: str, daemon: bool = False) -> tuple[Server, Conn]:
        server = start("--rate", "0", *flags, daemon=daemon)
        return server, server.connect(receive_buffer=4096)

    return start_with


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_everyone_is_told(
    start: Start, folder: Path, certificate: Path, tls_port: str, number: signal.Signals
) -> None:
    """A signal to stop gives everyone a notice, whatever he came through, and then the end."""
    # Nobody here makes it wait, so the drain time must not matter.
    server = start("--drain=3600", "--port", tls_port, "--port", "unix:chat.sock", daemon=True)
    alice = server.connect()
    alice.send(b"/nick alice\r\n")
    clients = [
        alice,
        server.connect(),
        server.connect(server.ports[1], tls=True),
        server.connect_unix(folder / "chat.sock"),
    ]
    assert alice.line() == b"-> you are now alice\r\n"
    server.signal(number)
    assert alice.rest() == b"* the server is stopping\r\n"
    for client in clients[1:]:
        assert client.rest().endswith(b"* the server is stopping\n")
    for client in clients:
        client.close()
    server.wait_end()
    assert not (folder / "chat.pid").exists()
    assert not (folder / "chat.sock").exists()
    assert "4 clients connected" in server.wait_for("stopping")


def test_what_was_said_is_delivered(start: Start) -> None:
    """Lines that were sent before the signal, and read, come before the notice."""
    server = start("--rate", "0")
    speaker, reader = server.connect(), server.connect()
    speaker.send(b"".join(b"%d\n" % number for number in range(2000)))
    assert reader.line() == b"0\n"
    server.signal(signal.SIGTERM)
    *said, notice = reader.rest().splitlines()
    assert notice == b"* the server is stopping"
    assert said == [b"%d" % number for number in range(1, len(said) + 1)]
    unsent = 2000 - 1 - len(said)
    *told, notice = speaker.rest().splitlines()
    assert notice == b"* the server is stopping"
    # Whoever has not been heard in full is told of the lines that had come.
    assert bool(told) <= bool(unsent)
    server.wait_end()


def test_no_new_clients(
    slow: Callable[..., tuple[Server, Conn]], until: Until, folder: Path
) -> None:
    """While it waits for a slow reader it takes nobody new; the reader gets all, and it ends."""
    server, reader = slow("--drain", "3600", "--high-water", "65536", daemon=True)
    said = say_much(server, lines=1000)
    server.signal(signal.SIGTERM)
    server.wait_for("stopping")

    def is_closed() -> bool:
        try:
            server.connect(wait=False).rest()
        except ConnectionRefusedError:
            return True
        return False

    until(is_closed, "the port is closed")
    assert server.is_running()
    assert reader.lines(len(said)) == said
    assert reader.rest() == b"* the server is stopping\n"
    reader.close()
    server.wait_end()
    assert sorted(os.listdir(folder)) == ["chat.db", "chat.db-lock", "chat.log"]


def test_drain_is_as_long_as_told(slow: Callable[..., tuple[Server, Conn]]) -> None:
    """A reader that begins only after a while still gets what is queued for it."""
    server, reader = slow("--drain", "3600", "--high-water", "65536")
    said = say_much(server, lines=1000)
    server.signal(signal.SIGTERM)
    server.wait_for("stopping")
    assert not server.ends_within(6.0), "it did not wait for the drain time"
    assert reader.lines(len(said)) == said
    assert reader.rest() == b"* the server is stopping\n"
    reader.close()
    server.wait_end()


def test_catching_up_when_it_stops(slow: Callable[..., tuple[Server, Conn]]) -> None:
    """A reader that was behind gets what it has missed, or is told how much that is."""
    server, reader = slow("--drain", "3600")
    said = say_much(server, lines=1000)
    server.signal(signal.SIGTERM)
    server.wait_for("stopping")
    *got, notice = reader.rest().splitlines(keepends=True)
    assert notice == b"* the server is stopping\n"
    missed = [int(line.split()[1]) for line in got if line.endswith(b" lines missed\n")]
    lines = [line for line in got if not line.startswith(b"! ")]
    assert lines == said[: len(lines)]
    assert len(lines) + sum(missed) == len(said)
    reader.close()
    server.wait_end()


def test_drain_deadline(slow: Callable[..., tuple[Server, Conn]]) -> None:
    """A client that never reads is cut when the drain time is over."""
    server, reader = slow("--drain", "0.5")
    said = say_much(server, lines=1000)
    server.signal(signal.SIGTERM)
    server.wait_for("cutting off 1 clients")
    server.wait_end()
    assert len(reader.rest()) < len(b"".join(said))


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)]
)
def test_second_signal(
    slow: Callable[..., tuple[Server, Conn]], numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    """A second signal ends it at once, though a client never reads."""
    server, reader = slow("--drain", "3600")
    say_much(server, lines=1000)
    server.signal(numbers[0])
    server.wait_for("stopping")
    server.signal(numbers[1])
    server.wait_for("cutting off 1 clients")
    server.wait_end()
    assert b"stopping" not in reader.rest()


def test_closing_client_does_not_hold_it_up(start: Start) -> None:
    """A client that was refused and then closed is no reason to wait."""
    server = start("--drain", "3600")
    client = server.connect()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.until(b"no web page here.\n")
    server.signal(signal.SIGTERM)
    server.wait_for("stopping")
    client.close()
    # Its own deadline would end it after five seconds as well.
    assert server.ends_within(4.0)
