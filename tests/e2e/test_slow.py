"""Who does not read for a while: every line afterwards, at nobody's cost."""

from __future__ import annotations

import resource
import selectors
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Conn, Server, Start

DEADLINE: Final = 15.0

MEGABYTE: Final = 1 << 20

BLOCK: Final = 500
"""Lines that are said in one go."""

READERS: Final = 1000

AT_ONCE: Final = 40
"""Clients that connect at once: more than fit into the kernel's queue wait for a second."""

TURNS: Final = 100
"""How often something is said while they read."""

FILES: Final = 2 * READERS
"""Files that the server and the test may each have open."""

MORE_FILES: Final = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES},) * 2)"


class Busy:
    """A busy room: two who speak in turn, and one who reads it all at once."""

    def __init__(self, server: Server, length: int) -> None:
        """Let them come in; their lines are filled up to `length` bytes."""
        self.said = bytearray()
        """What was said so far."""
        self._speakers = [server.connect(), server.connect()]
        self._reader = server.connect()
        self._length = length
        self._count = 0

    def talk(self, count: int) -> None:
        """Say `count` lines more; everyone here reads what the others say."""
        end = self._count + count
        while self._count < end:
            numbers = range(self._count, min(self._count + BLOCK, end))
            lines = [(b"%d." % number).ljust(self._length, b"X") for number in numbers]
            block = b"".join(line + b"\n" for line in lines)
            self._speakers[0].send(block)
            for other in (self._speakers[1], self._reader):
                assert other.read(len(block)) == block
            self._speakers.reverse()
            self._count = numbers.stop
            self.said += block


def read_all(lazy: Conn, said: bytearray) -> None:
    """Read on after a long while: it must be all that was `said`."""
    for start in range(0, len(said), MEGABYTE):
        piece = said[start : start + MEGABYTE]
        assert lazy.read(len(piece)) == piece


def test_a_stopped_reader(start: Start) -> None:
    """It gets every line, in order, none twice, however many there were; memory stays flat."""
    server = start("--rate", "0")
    lazy = server.connect(receive_buffer=4096)
    room = Busy(server, 500)
    room.talk(20_000)
    memory = server.memory
    room.talk(60_000)
    assert server.memory - memory < 16 * MEGABYTE
    read_all(lazy, room.said)
    assert server.memory - memory < 16 * MEGABYTE
    server.wait_for("client 1 caught up with ")
    room.said.clear()
    room.talk(1000)
    read_all(lazy, room.said)


@pytest.fixture
def files() -> Iterator[None]:
    """Let the test open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_stopped_readers(files: None, start: Start) -> None:
    """So does each of a thousand, while others come and go and are served as before."""
    server = start("--rate", "0", before=MORE_FILES)
    readers: list[socket.socket] = []
    try:
        while len(readers) < READERS:
            readers += [slow(server) for _ in range(AT_ONCE)]
            server.wait_for("accepted", len(readers))
        room = Busy(server, 0)
        room.talk(20_000)
        memory = server.memory
        room.talk(40_000)
        read_together(readers, room)
        assert server.memory - memory < 32 * MEGABYTE
        assert len(server.lines("caught up with ")) >= READERS
    finally:
        for reader in readers:
            reader.close()


def slow(server: Server) -> socket.socket:
    """Return a new client for which neither kernel keeps much."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # The less fits into a segment, the less does a kernel let wait for one that does not read.
    reader.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    reader.settimeout(DEADLINE)
    reader.connect(("127.0.0.1", server.port))
    reader.setblocking(False)
    return reader


def read_together(readers: list[socket.socket], room: Busy) -> None:
    """Let all `readers` read what was said, and what is said meanwhile."""
    places = dict.fromkeys(readers, 0)
    turns = 0
    with selectors.EpollSelector() as selector:
        for reader in readers:
            selector.register(reader, selectors.EVENT_READ)
        while places:
            ready = selector.select(DEADLINE)
            assert ready, f"{len(places)} readers get nothing more"
            for key, _ in ready:
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                data = sock.recv(1 << 16)
                place = places[sock]
                assert data == room.said[place : place + len(data)]
                places[sock] += len(data)
                if turns == TURNS and places[sock] == len(room.said):
                    del places[sock]
                    selector.unregister(sock)
            if turns < TURNS:
                room.talk(10)
                turns += 1
