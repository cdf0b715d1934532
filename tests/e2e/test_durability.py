"""What anyone saw is stored: a server that is killed, again and again, and what it knows then."""

from __future__ import annotations

import itertools
import os
import random
import re
import selectors
import shutil
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tests.e2e.conftest import Again, Conn, Server

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "100"))
"""How often the server is killed."""

SAID: Final = 1500
"""Lines that each speaker has to say in a round, more than it comes to."""

READ: Final = 5000
"""Lines that all clients together have read, at most, when the server is killed."""

SPEAKERS: Final = {"lobby": ("anna", "bert"), "red": ("carl", "dora"), "blue": ("emil", "fred")}
"""Who speaks in which room: the first with a nick, the second without."""

DEADLINE: Final = 15.0

Row = tuple[Any, ...]


class Client:
    """One of the crowd: what it still has to say, and what it has read."""

    def __init__(self, conn: Conn, name: str, room: str, words: bytes = b"") -> None:
        """Say `words` over `conn` in `room`; `name` is in every line that comes of that."""
        self.conn = conn
        self.name = name.encode()
        self.room = room
        self.unsaid = memoryview(words)
        self.read = bytearray()

    def say(self) -> None:
        """Say as much as the connection takes now."""
        self.unsaid = self.unsaid[self.conn.socket.send(self.unsaid) :]

    def hear(self) -> int:
        """Read what has come, and count the lines."""
        data = self.conn.socket.recv(1 << 16)
        assert data, "the server has closed the connection"
        self.read += data
        return data.count(b"\n")

    def end(self) -> None:
        """Read all that the server has still sent before its end."""
        self.read += self.conn.rest()
        self.conn.close()

    def heard(self) -> list[bytes]:
        """Return the whole lines of the room that it has read."""
        lines = bytes(self.read).split(b"\n")[:-1]
        return [line for line in lines if not line.startswith(b"-> ")]

    def others(self, lines: Sequence[bytes]) -> list[bytes]:
        """Return those of the `lines` of the room that are not its own."""
        return [line for line in lines if self.name not in line.lower()]


def crowd(server: Server, number: int) -> list[Client]:
    """Return speakers and readers in every room; one reader only begins when all is over."""
    clients = []
    for room, names in SPEAKERS.items():
        for index, name in enumerate((*names, f"{room} reader")):
            lines = [f"{number} {name} {count}\n" for count in range(SAID if index < 2 else 0)]
            nick = [f"/nick {name}\n"] if index == 0 else []
            words = "".join(nick + lines).encode()
            clients.append(Client(server.connect(wait=False), name, room, words))
    clients.append(Client(server.connect(wait=False, receive_buffer=4096), "late reader", "red"))
    for client in clients:
        if client.room != "lobby":
            enter(client.conn, client.room)
    return clients


def enter(conn: Conn, room: str) -> None:
    """Bring a client without a nick into `room`."""
    conn.send(f"/join {room}\n".encode())
    assert conn.line().startswith(f"-> you are in {room} (".encode())


def talk(clients: Sequence[Client], count: int) -> None:
    """Let all talk at once until they have read `count` lines."""
    with selectors.DefaultSelector() as selector:
        for client in clients:
            if client.name != b"late reader":
                client.conn.socket.setblocking(False)
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsaid else 0)
                selector.register(client.conn.socket, events, client)
        while count > 0:
            ready = selector.select(DEADLINE)
            assert ready, "nothing is said any more"
            for key, events in ready:
                if events & selectors.EVENT_READ:
                    count -= key.data.hear()
                if events & selectors.EVENT_WRITE:
                    key.data.say()
                    if not key.data.unsaid:
                        selector.modify(key.fileobj, selectors.EVENT_READ, key.data)


def history(conn: Conn, since: int = 0) -> list[bytes]:
    """Return what the client's room has seen after the line with the id `since`, page by page."""
    lines: list[bytes] = []
    more = since
    while more >= 0:
        conn.send(b"/history since %d\n/away\n" % more)
        more = -1
        answer = conn.until(b"-> you are back\n").splitlines()[:-1]
        if answer == [b"-> nothing has been said here"]:
            break
        for line in answer:
            if next_page := re.fullmatch(rb"-> \d+ more: /history since (\d+)", line):
                more = int(next_page[1])
            else:
                shown = re.fullmatch(rb"-> (?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d (.*)", line)
                assert shown, line
                lines.append(shown[1])
    return lines


def copied(folder: Path) -> Path:
    """Return a copy of the store that a killed server has left; to open it would change it."""
    copy = folder / "copy.db"
    for extra in ("", "-wal"):
        shutil.copyfile(folder / f"chat.db{extra}", f"{copy}{extra}")
    return copy


def events(path: Path) -> list[Row]:
    """Return all that has happened, in the order of the ids, out of a file that is whole."""
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        query = "SELECT id, room, seq, kind, sender, text FROM events ORDER BY id"
        rows = store.execute(query).fetchall()
        (last_id,) = store.execute("SELECT last_id FROM state").fetchone()
    assert all(row[0] < other[0] for row, other in itertools.pairwise(rows))
    assert last_id == max((row[0] for row in rows), default=0)
    return rows


def test_killed_under_load(again: Again, folder: Path) -> None:
    """Killed at any moment, all that anyone has read is stored: once, and in that order.

    Ids only grow, over all rounds, and nothing that was stored changes.
    """
    server = again("--rate", "0")
    stored: list[Row] = []
    seen: dict[str, list[bytes]] = {room: [] for room in SPEAKERS}
    for number in range(ROUNDS):
        clients = crowd(server, number)
        talk(clients, int(READ ** random.random()))
        server.signal(signal.SIGKILL)
        server.wait_end()
        for client in clients:
            client.end()
        copy = copied(folder)
        server = again("--rate", "0")
        last_id = stored[-1][0] if stored else 0
        before, stored = stored, events(copy)
        assert stored[: len(before)] == before
        conn = server.connect(wait=False)
        for room, known in seen.items():
            enter(conn, room)
            lines = history(conn, last_id)
            assert len({*lines}) == len(lines)
            for client in clients:
                if client.room == room and (heard := client.heard()):
                    others = client.others(lines)
                    assert heard[0] in others, (number, client.name)
                    begin = others.index(heard[0])
                    assert others[begin : begin + len(heard)] == heard, (number, client.name)
            known += lines
        conn.close()
    conn = server.connect(wait=False)
    for room, known in seen.items():
        enter(conn, room)
        assert history(conn) == known
    assert sum(map(len, seen.values())) == len(stored)


PASSWORD: Final = b"correct-horse"


def killed(server: Server) -> None:
    """End `server` in the middle of whatever it does."""
    server.signal(signal.SIGKILL)
    server.wait_end()


def missed(server: Server) -> list[bytes]:
    """Return what alice is shown on logging in, without the times."""
    alice = server.connect()
    alice.send(b"/login alice %s\n/away\n" % PASSWORD)
    assert alice.line() == b"-> you are logged in as alice\n"
    shown = alice.until(b"-> you are back\n").splitlines()[:-1]
    return [re.sub(rb"^-> \d\d:\d\d:\d\d ", b"", line) for line in shown]


def account(server: Server) -> None:
    """Make an account for alice, who leaves."""
    alice = server.connect()
    alice.send(b"/nick alice\n/register %s\n/quit\n" % PASSWORD)
    assert b"alice is yours" in alice.rest()


def bob_of(server: Server) -> Conn:
    """Return the connection of one with the nick bob."""
    bob = server.connect()
    bob.send(b"/nick bob\n")
    bob.until(b"-> you are now bob\n")
    return bob


def test_tour(again: Again) -> None:
    """Start, chat, kill, start: the history shows everything."""
    server = again()
    alice, bob = server.connect(), bob_of(server)
    alice.send(b"/nick alice\nhello\n/me waves\n")
    bob.until(b"* alice WAVES\n")
    bob.send(b"how are you\n")
    alice.until(b"<bob> HOW ARE YOU\n")
    killed(server)
    assert history(again().connect()) == [
        b"* bob joined (2 here)",
        b"* alice joined (2 here)",
        b"<alice> HELLO",
        b"* alice WAVES",
        b"<bob> HOW ARE YOU",
    ]


def test_tour_with_an_account(again: Again) -> None:
    """Register, leave, be written to, come back, and read it: once, whatever happens between."""
    server = again()
    account(server)
    bob = bob_of(server)
    bob.send(b"where is she\n/msg alice call me\n")
    bob.until(b"[to alice] call me\n")
    killed(server)
    server = again()
    assert missed(server) == [
        b"-> while you were away: 2 lines",
        b"* bob joined (1 here)",
        b"<bob> WHERE IS SHE",
        b"-> while you were away: 1 private message",
        b"[bob] call me",
    ]
    server.signal(signal.SIGTERM)
    server.wait_end()
    assert missed(again()) == []


def test_killed_after_the_answer(again: Again) -> None:
    """Who has been told that somebody will read it later can rely on that."""
    server = again()
    account(server)
    bob = bob_of(server)
    bob.send(b"/msg alice call me\n")
    bob.until(b"-> alice is not here, and will read it on coming back\n")
    killed(server)
    assert missed(again())[-1:] == [b"[bob] call me"]


def test_killed_after_reading(again: Again) -> None:
    """What was shown on coming back is not shown again after the server was killed."""
    server = again()
    account(server)
    bob = bob_of(server)
    bob.send(b"/msg alice call me\n")
    bob.until(b"[to alice] call me\n")
    assert missed(server)[-1:] == [b"[bob] call me"]
    killed(server)
    assert b"[bob] call me" not in missed(again())
