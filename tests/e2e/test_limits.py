"""Limits and pace: what too much of anything gets, and that nobody else is hurt by it."""

from __future__ import annotations

import contextlib
import resource
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Conn, Run, Server, Start

Until = Callable[[Callable[[], Any], str], Any]

MEGABYTE = 1 << 20


def own_address() -> str:
    """Return an address of this machine that is not loopback, empty when it has none."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe,
        contextlib.suppress(OSError),
    ):
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks for the route
        address: str = probe.getsockname()[0]
        return "" if address.startswith("127.") else address
    return ""


def chat_works(server: Server) -> None:
    """Two new clients understand each other."""
    alice, bob = server.connect(), server.connect()
    alice.send(b"does it work\n")
    assert bob.line() == b"DOES IT WORK\n"
    for client in (alice, bob):
        client.send(b"/quit\n")
        client.rest()


# Clients.


def test_max_clients(start: Start, tls_port: str) -> None:
    """The client above the limit is told why and closed; there is room when another leaves."""
    server = start("--max-clients", "2", "--port", tls_port)
    alice, bob = server.connect(), server.connect(server.ports[1], tls=True)
    full = b"! the server is full (2 clients): try again later\n"
    for number, tls in zip(server.ports, (False, True), strict=True):
        third = server.connect(number, tls=tls, wait=False)
        assert third.rest() == full
    eager = server.connect(wait=False)
    eager.send(b"hello\n" * 10)
    assert eager.rest() == full
    server.wait_for("refused", 3)
    alice.send(b"/quit\n")
    alice.rest()
    server.wait_for("client 1 closed")
    carol = server.connect()
    carol.send(b"hello\n")
    assert bob.line() == b"HELLO\n"


def test_max_per_address(start: Start) -> None:
    """The client above the limit of its address is told why and closed; loopback is exempt."""
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback")
    server = start("--max-per-address", "2", port="tcp:0")
    first, _ = server.connect(host=address), server.connect(host=address)
    third = server.connect(host=address, wait=False)
    assert third.rest() == b"! your address has 2 connections already: close one first\n"
    for _ in range(5):
        server.connect()
    first.close()
    server.wait_for("client 1 closed")
    server.connect(host=address)


def test_file_limit_at_the_start(start: Start) -> None:
    """The limit of open files, less 64, limits the clients as well, and the log says so."""
    before = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (67, 67))"
    server = start(before=before)
    assert "3 clients, not 10000" in server.wait_for("the limit of open files allows")
    clients = [server.connect() for _ in range(3)]
    assert server.connect(wait=False).rest().startswith(b"! the server is full (3 clients)")
    clients.pop().close()
    server.wait_for("client 3 closed")
    clients.append(server.connect())
    clients[0].send(b"hello\n")
    assert clients[1].line() == clients[2].line() == b"HELLO\n"


@pytest.mark.parametrize("port", ["tcp:0:interface=127.0.0.1", "0"], ids=["tcp", "number"])
def test_out_of_files(start: Start, port: str) -> None:
    """Out of file descriptors it says so, goes on serving, and accepts again afterwards."""
    server = start(port=port)
    alice, bob = server.connect(), server.connect()
    soft, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (server.open_files, hard))
    lost = [server.connect(wait=False) for _ in range(5)]
    server.wait_for("EMFILE")
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (soft, hard))
    for client in lost:
        client.close()
    chat_works(server)


def test_connect_and_reset(start: Start, until: Until) -> None:
    """Thousands of connections that are reset at once leave no descriptor and no memory."""
    server = start(port="0")

    def come_and_go(count: int) -> None:
        for number in range(count):
            conn = server.connect(wait=False)
            if number % 2:
                conn.send(b"/away\nhello")  # no nick: events of its coming would be remembered
            conn.reset()
            if number % 200 == 199:
                # Connections are accepted in order: when this has its answer all are known, and
                # the kernel has room for the next ones.
                last = server.connect(wait=False)
                last.send(b"/list\n")
                last.until(b"-> in lobby: ")
                last.send(b"/quit\n")
                last.rest()

    files = server.open_files
    come_and_go(3000)  # until what is kept for the next ones is there
    until(lambda: server.open_files == files, "all descriptors are closed")
    memory = server.memory
    come_and_go(3000)
    until(lambda: server.open_files == files, "all descriptors are closed")
    assert server.memory - memory < 4 * MEGABYTE
    alone = server.connect()
    alone.send(b"/list\n")
    assert alone.line() == b"-> in lobby: 1 without a nick\n"


# Pace.


def block(count: int) -> bytes:
    """Return a block of numbered lines, as it would be pasted."""
    return b"".join(b"line %d\n" % number for number in range(count))


def test_burst(start: Start) -> None:
    """A pasted block of 100 lines arrives whole at once, and its sender hears nothing."""
    # With next to no rate, what arrives has come with the burst.
    server = start("--rate", "0.001")
    speaker, reader = server.connect(), server.connect()
    speaker.send(block(100))
    assert b"".join(reader.lines(100)) == block(100).upper()
    server.signal(signal.SIGTERM)
    assert speaker.rest() == reader.rest() == b"* the server is stopping\n"


def test_above_the_burst(start: Start) -> None:
    """A longer block arrives whole, in order; the rest is paced and its sender is told once."""
    server = start()
    speaker, reader = server.connect(), server.connect()
    speaker.send(block(130))
    assert b"".join(reader.lines(130)) == block(130).upper()
    told = b"! more than 100 lines at once: the rest follows at 10 lines a second\n"
    speaker.send(b"/quit\n")
    assert speaker.rest() == told + b"-> bye\n"


def test_paced_and_others(start: Start) -> None:
    """Who is paced holds up nobody else, and no line of his is said before its time."""
    server = start("--rate", "0.001")
    speaker, reader, other = (server.connect() for _ in range(3))
    speaker.send(block(130))
    assert b"".join(reader.lines(100)) == block(100).upper()
    speaker.line()
    other.send(b"hello\n")
    assert reader.line() == b"HELLO\n"
    server.signal(signal.SIGTERM)
    assert speaker.until(b"sent\n").endswith(b"! 30 of your lines were not sent\n")


def test_nc_with_half_close(start: Start, run: Run) -> None:
    """All lines of a file given to nc are said, although nc has sent its end long before."""
    server = start("--rate", "200")
    reader = server.connect()
    nc = run("nc", "-N", "127.0.0.1", server.port)
    nc.send(block(200))
    nc.finish()
    assert b"".join(reader.lines(200)) == block(200).upper()
    assert nc.rest() == b"! more than 100 lines at once: the rest follows at 200 lines a second\n"


def test_all_at_once_and_gone(start: Start) -> None:
    """All lines are said of a client that sends them in one go and closes."""
    server = start("--rate", "200")
    reader = server.connect()
    sender = server.connect()
    sender.send(block(130))
    sender.close()
    assert b"".join(reader.lines(130)) == block(130).upper()
    assert "in 130 lines" in server.wait_for("client 2 closed")


def test_too_long(start: Start) -> None:
    """A line that is too long is refused and the session goes on; one without end is closed."""
    server = start()
    reader, speaker = server.connect(), server.connect()
    speaker.send(b"a" * 4096 + b"\n" + b"b" * 4097 + b"\n" + b"c\n")
    assert reader.lines(2) == [b"A" * 4096 + b"\n", b"C\n"]
    assert speaker.line().startswith(b"! this line has 4097 bytes, at most 4096")
    speaker.send(b"x" * 70_000)
    assert speaker.rest().startswith(b"! 65536 bytes without a line end")
    speaker.close()
    server.wait_for("65536 bytes without a line end")


# Readers.


def say(speaker: Conn, reader: Conn, first: int, count: int) -> list[bytes]:
    """Have `speaker` say numbered long lines, all read by `reader`; return them."""
    said = []
    for start in range(first, first + count, 100):
        lines = [b"%08d" % number + b"X" * 3900 + b"\n" for number in range(start, start + 100)]
        speaker.send(b"".join(lines))
        assert reader.lines(100) == lines
        said += lines
    return said


def test_reader_that_comes_back(start: Start) -> None:
    """A client that has not read for a while gets every line, in order, once it reads on."""
    server = start("--rate", "0")
    speaker, reader = server.connect(), server.connect()
    lazy = server.connect(receive_buffer=4096)
    said = say(speaker, reader, 0, 900)
    assert lazy.lines(900) == said
    assert "caught up" in server.wait_for("client 3 caught up")
    said = say(speaker, reader, 900, 100)
    assert lazy.lines(100) == said


@pytest.mark.parametrize("store", ["chat.db", "memory"])
def test_reader_that_never_reads(start: Start, store: str) -> None:
    """It costs bounded memory and harms nobody; it loses nothing that is in a file, and of what it
    lost from memory it is told how much.
    """
    server = start("--rate", "0", "--store", store)
    speaker, reader = server.connect(), server.connect()
    lazy = [server.connect(receive_buffer=4096) for _ in range(3)]
    say(speaker, reader, 0, 2000)
    memory = server.memory
    say(speaker, reader, 2000, 10_000)
    assert server.memory - memory < 16 * MEGABYTE
    for client in lazy:
        number = missed = 0
        while number < 12_000:
            line = client.line()
            if line.endswith(b" lines missed\n"):
                lost = int(line.split()[1])
                missed += lost
                number += lost
            else:
                assert int(line[:8]) == number
                number += 1
        assert bool(missed) == (store == "memory")


def test_stalled_reader(start: Start) -> None:
    """A reader that takes not one byte for the stall time is closed, and the log says why."""
    server = start("--rate", "0", "--stall", "1")
    speaker, reader = server.connect(), server.connect()
    lazy = server.connect(receive_buffer=4096)
    said = say(speaker, reader, 0, 1500)
    assert "accepted nothing for 1 s" in server.wait_for("client 3 closed")
    assert len(lazy.rest()) < len(b"".join(said))
    speaker.send(b"/list\n")
    assert speaker.line() == b"-> in lobby: 2 without a nick\n"


def test_quit_without_reading(start: Start) -> None:
    """A client that leaves and does not read its last lines is out at once and gone in 5 s."""
    server = start("--rate", "0")
    speaker, reader = server.connect(), server.connect()
    lazy = server.connect(receive_buffer=4096)
    say(speaker, reader, 0, 1500)
    lazy.send(b"/nick lazy\n/quit bye\n")
    assert reader.line() == b"* lazy joined (3 here)\n"
    assert reader.line() == b"* lazy left (2 here): bye\n"
    speaker.send(b"/list\n")
    while (line := speaker.line()).startswith(b"*"):
        pass
    assert line == b"-> in lobby: 2 without a nick\n"
    assert "quit" in server.wait_for("client 3 closed")


# TLS.


def test_tls_deadlines(start: Start, tls_port: str) -> None:
    """A peer that begins no handshake, or never answers the end of the stream, is soon gone."""
    server = start(port=tls_port)
    silent, client = server.connect(), server.connect(tls=True)
    client.send(b"/list\n/quit\n")
    assert client.lines(2) == [b"-> in lobby: 1 without a nick\n", b"-> bye\n"]
    # From here on the client does nothing: neither read the close_notify nor send its own.
    assert "quit" in server.wait_for("client 2 closed")
    assert silent.rest() == b""
    assert "no TLS handshake" in server.wait_for("client 1 closed")


def test_plain_text_on_tls(start: Start, tls_port: str) -> None:
    """Who speaks lines to a TLS port is closed, and nothing is said."""
    server = start(port=tls_port)
    reader, plain = server.connect(tls=True), server.connect()
    plain.send(b"hello\n")
    plain.rest()
    server.wait_for("client 2 closed")
    other = server.connect(tls=True)
    other.send(b"first\n")
    assert reader.line() == b"FIRST\n"
