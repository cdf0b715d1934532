"""All the clients of one server: their sockets, and how many bytes each has received.

The load generator has to be cheaper than the server that it loads. So there are no objects per
client and no lines either: everything that one case delivers is equally long, and a client's
position in the room is the number of bytes that it has received. Only a few clients, the sample,
keep what they got.

How far everybody has come is kept up while reading, without looking at all the clients again:
`goal` is the next position, in bytes, that matters, and `waiting` says how many listeners have
not reached it yet.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from collections.abc import Callable
from types import TracebackType

from benchmarks import BenchmarkError
from benchmarks.server import RunningServer

_BUFFER_BYTES = 1 << 18
_CONNECT_SECONDS = 20.0
_JOIN_SECONDS = 60.0

_ACCEPT_GROUP = 500
"""After so many connects we wait for the server to accept: half of the backlog of 1024."""

_CLIENTS_PER_ADDRESS = 5000
"""An address has about 28,000 ephemeral ports; some may still be in TIME_WAIT."""

_BIND_ADDRESS_NO_PORT = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)

QUIET_SECONDS = 0.6
"""Silence that long means that nothing is under way: longer than the 0.4 s after which the
chat server takes a client that has said nothing for a line client."""


class Crowd:
    """The connected clients of a running server; a context manager that closes them.

    `heard` counts, for every listener, the bytes received since `reset`; `heard_by_speakers` does
    the same for the others. Both are keyed by file descriptor, in the order of joining. `kept`
    holds the received bytes of those clients that somebody asked to keep.
    """

    def __init__(self, server: RunningServer) -> None:
        self.server = server

        self.heard: dict[int, int] = {}
        self.heard_by_speakers: dict[int, int] = {}
        self.kept: dict[int, bytearray] = {}
        self.numbers: dict[int, int] = {}
        self.ignored = b""
        self.goal = 1
        self.waiting = 0

        self._tls = server.contender.tls(server.folder)
        self._sockets: dict[int, socket.socket] = {}
        self._read: dict[int, Callable[[bytearray], int]] = {}
        self._write: dict[int, Callable[[bytes], int]] = {}
        self._epoll = select.epoll()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._files_before = server.open_files()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def speakers(self) -> list[int]:
        """The file descriptors of those who joined to speak."""
        return list(self.heard_by_speakers)

    def close(self) -> None:
        """Closes all connections."""
        for opened in self._sockets.values():
            with contextlib.suppress(OSError):
                opened.close()
        self._sockets.clear()
        self._epoll.close()

    def join(self, count: int, *, speaks: bool = False) -> None:
        """Connects clients, lets each say its first bytes, and waits until all are accepted."""
        contender = self.server.contender
        for _ in range(count):
            number = len(self._sockets)
            greeting = contender.enter(number) if speaks else contender.join(number)
            opened = self._connect(number)
            fd = opened.fileno()
            self._sockets[fd] = opened
            self.numbers[fd] = number
            self._read[fd] = opened.recv_into
            self._write[fd] = opened.send
            (self.heard_by_speakers if speaks else self.heard)[fd] = 0
            self._epoll.register(fd, select.EPOLLIN)
            if greeting:
                self.write(fd, greeting)
            if len(self._sockets) % _ACCEPT_GROUP == 0:
                self._wait_until_accepted()
                self.receive(0)
        self._wait_until_accepted()

    def reset(self) -> None:
        """Forgets what has been received; from now on positions count from zero."""
        self.heard = dict.fromkeys(self.heard, 0)
        self.heard_by_speakers = dict.fromkeys(self.heard_by_speakers, 0)
        self.kept = {fd: bytearray() for fd in self.kept}
        self.aim(1)

    def keep(self, fds: list[int]) -> None:
        """From now on the bytes of these clients are kept."""
        self.kept = {fd: bytearray() for fd in fds}

    def aim(self, goal: int) -> None:
        """Sets the next position to wait for, in bytes, and counts who is still before it."""
        self.goal = goal
        self.waiting = sum(map(goal.__gt__, self.heard.values()))

    def write(self, fd: int, data: bytes) -> None:
        """Sends a few bytes at once; that they do not fit means that the server reads no more."""
        try:
            sent = self._write[fd](data)
        except OSError as error:
            raise BenchmarkError(f"A client could not send to the server: {error}.") from None
        if sent != len(data):
            raise BenchmarkError("A client could not send a line: the server stopped reading.")

    def write_some(self, fd: int, data: bytes) -> int:
        """Sends as much as the kernel takes now and says how much that was."""
        try:
            return self._write[fd](data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise BenchmarkError(f"A client could not send to the server: {error}.") from None

    def receive(self, timeout: float) -> int:
        """Reads once from every client that has something, and returns the number of bytes.

        `timeout` is in seconds; the kernel rounds it up to milliseconds.
        """
        buffer, view = self._buffer, memoryview(self._buffer)
        read, heard, kept, ignored = self._read, self.heard, self.kept, self.ignored
        goal, waiting, total = self.goal, self.waiting, 0
        for fd, _ in self._epoll.poll(timeout, len(read) or 1):
            try:
                count = read[fd](buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except OSError as error:
                raise BenchmarkError(f"A client lost its connection: {error}.") from None
            if not count:
                raise BenchmarkError("The server closed a client's connection.")
            total += count
            if ignored:
                useful = bytes(view[:count]).translate(None, ignored)
                count = len(useful)
                if fd in kept:
                    kept[fd] += useful
            elif fd in kept:
                kept[fd] += view[:count]
            if fd in heard:
                before = heard[fd]
                heard[fd] = after = before + count
                if before < goal <= after:
                    waiting -= 1
            else:
                self.heard_by_speakers[fd] += count
        self.waiting = waiting
        return total

    def receive_until(self, due: float) -> int:
        """Like `receive`, but waits no longer than until `due` on the clock of `perf_counter`.

        `select` on the epoll descriptor is exact to microseconds, where epoll itself is not.
        """
        select.select([self._epoll.fileno()], [], [], max(0.0, due - time.perf_counter()))
        return self.receive(0)

    def wait_for_quiet(self, quiet: float = QUIET_SECONDS) -> None:
        """Reads until nothing has arrived for `quiet` seconds."""
        now = time.monotonic()
        deadline = now + _JOIN_SECONDS
        silent_since = now
        while now - silent_since < quiet:
            if self.receive(quiet / 4):
                silent_since = time.monotonic()
            now = time.monotonic()
            if now > deadline:
                raise BenchmarkError(f"The room was not quiet after {_JOIN_SECONDS:.0f} s.")

    def _connect(self, number: int) -> socket.socket:
        opened = socket.socket()
        try:
            opened.settimeout(_CONNECT_SECONDS)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if number >= _CLIENTS_PER_ADDRESS:
                # The kernel chooses the port at connect, when it knows both ends.
                opened.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
                opened.bind((f"127.0.0.{1 + number // _CLIENTS_PER_ADDRESS}", 0))
            opened.connect(("127.0.0.1", self.server.port))
            if self._tls is not None:
                opened = self._tls.wrap_socket(opened, server_hostname="127.0.0.1")
            opened.setblocking(False)
        except OSError as error:
            opened.close()
            raise BenchmarkError(f"Client {number + 1} could not connect: {error}.") from None
        return opened

    def _wait_until_accepted(self) -> None:
        """The server may open files of its own meanwhile, but has closed none of ours."""
        expected = self._files_before + len(self._sockets)
        self.server.wait_for_open_files(lambda now: now >= expected, _CONNECT_SECONDS)
