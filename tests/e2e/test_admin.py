"""chat-admin, beside a server that runs and on its own."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

import chatproto

if TYPE_CHECKING:
    from tests.e2e.conftest import Conn, Run, Server, Start

GOOD = "correct-horse"

ARGV = [sys.executable, "-m", "chatproto.admin"]


class Admin(Protocol):
    """Runs ``chat-admin`` in the folder of the servers."""

    def __call__(self, *argv: str, password: str = "") -> str:
        """Run it to its end; return what it has printed, as it must succeed."""


def environment() -> dict[str, str]:
    """Return what ``chat-admin`` finds around it: no settings, and us."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CHAT_")}
    return {**environ, "PYTHONPATH": str(Path(chatproto.__file__).parents[1])}


@pytest.fixture
def chat_admin(folder: Path) -> Admin:
    """Run ``chat-admin`` where it is to succeed."""

    def run_one(*argv: str, password: str = "") -> str:
        done = subprocess.run(
            [*ARGV, *argv],
            cwd=folder,
            env=environment(),
            input=password,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run_one


def log_in(server: Server, nick: str, password: str = GOOD) -> Conn:
    """Return a new client that has logged in."""
    client = server.connect()
    client.send(f"/login {nick} {password}\n".encode())
    client.until(f"-> you are logged in as {nick}\n".encode())
    return client


def said(path: Path) -> list[str]:
    """Return the lines of the lobby in a store, in their order; it must be sound."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        texts = connection.execute(
            "SELECT text FROM events WHERE kind = 'said' AND room = "
            "(SELECT id FROM rooms WHERE name = 'lobby') ORDER BY seq"
        )
        return [text for (text,) in texts]


class Talk:
    """Lines that one client says without a pause, and another one reads."""

    def __init__(self, server: Server) -> None:
        """Begin."""
        self.sent = 0
        self.read: list[str] = []
        self._sender, self._reader = server.connect(), server.connect()
        self._news = threading.Condition()
        self._over = False
        self._threads = [threading.Thread(target=run) for run in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def wait_for_more(self, count: int = 1) -> None:
        """Wait until `count` more lines have been read."""
        with self._news:
            wanted = len(self.read) + count
            assert self._news.wait_for(lambda: len(self.read) >= wanted, 30)

    def finish(self) -> None:
        """Say no more; wait until everything said was read."""
        self._over = True
        for thread in self._threads:
            thread.join()
        assert self.read == [f"LINE {number}" for number in range(self.sent)]

    def _send(self) -> None:
        while not self._over:
            if self.sent - len(self.read) < 1000:
                lines = "".join(f"line {self.sent + more}\n" for more in range(50))
                self._sender.send(lines.encode())
                self.sent += 50
            else:
                with self._news:
                    self._news.wait(30)

    def _receive(self) -> None:
        while not self._over or len(self.read) < self.sent:
            line = self._reader.line().decode().rstrip("\n")
            with self._news:
                self.read.append(line)
                self._news.notify_all()


@contextmanager
def talking(server: Server) -> Iterator[Talk]:
    """Have lines said all the while; in the end all of them were read, once and in order."""
    talk = Talk(server)
    try:
        talk.wait_for_more()
        yield talk
    finally:
        talk.finish()


def test_before_the_first_start(start: Start, chat_admin: Admin) -> None:
    """An operator's account can be there before there is a server."""
    assert chat_admin("add", "alice", "--operator", password=GOOD)
    server = start()
    alice, bob = log_in(server, "alice"), server.connect()
    alice.send(b"/announce supper\n")
    assert b"supper" in bob.until(b"supper\n")


def test_beside_a_server(start: Start, chat_admin: Admin) -> None:
    """What is done to accounts counts at the next login."""
    server = start()
    alice = server.connect()
    alice.send(b"/nick alice\n/register old-password\n")
    alice.until(b"alice is yours")
    assert "alice" in chat_admin("accounts")

    chat_admin("password", "alice", password=GOOD)
    again = server.connect()
    again.send(b"/login alice old-password\n")
    again.until(b"! there is no such account, or the password is wrong\n")
    again.send(f"/login alice {GOOD}\n".encode())
    again.until(b"-> you are logged in as alice\n")

    again.send(b"/announce one\n")
    again.until(b"! ")
    chat_admin("op", "alice")
    log_in(server, "alice").send(b"/announce two\n")
    bob = server.connect()
    chat_admin("remove", "alice")
    bob.send(f"/login alice {GOOD}\n".encode())
    bob.until(b"! there is no such account, or the password is wrong\n")


def test_written_to_before_the_first_login(start: Start, chat_admin: Admin) -> None:
    """Who got an account, and was written to before coming, reads that on coming."""
    server = start()
    chat_admin("add", "bob", password=GOOD)
    alice = server.connect()
    alice.send(b"/nick alice\n/msg bob welcome\n")
    alice.until(b"welcome")
    server.signal(signal.SIGKILL)
    server.wait_end()
    log_in(start(), "bob").until(b"[alice] welcome\n")


def test_nothing_is_left_of_an_account(start: Start, chat_admin: Admin) -> None:
    """Whoever takes the nick of a removed account reads nothing of what was written to that."""
    server = start()
    chat_admin("add", "bob", password=GOOD)
    alice = server.connect()
    alice.send(b"/nick alice\n/msg bob between us\n")
    alice.until(b"between us")
    chat_admin("remove", "bob")
    chat_admin("add", "bob", password="another-horse")
    alice.send(b"/msg bob welcome\n")
    alice.until(b"welcome")
    bob = log_in(server, "bob", "another-horse")
    assert b"between us" not in bob.until(b"[alice] welcome\n")


def test_backup_under_load(start: Start, chat_admin: Admin, folder: Path) -> None:
    """A copy made while lines are said is sound, and has what was read before it was begun."""
    server = start("--rate", "0")
    with talking(server) as talk:
        copies = []
        for number in range(5):
            before = len(talk.read)
            name = f"copy{number}.db"
            size = chat_admin("backup", name)
            assert size == f"{folder / name}: {(folder / name).stat().st_size:,} bytes\n"
            copies.append((before, said(folder / name)))
            talk.wait_for_more()
    for before, lines in copies:
        assert lines == talk.read[: len(lines)]
        assert len(lines) >= before
    assert "was not checked" not in chat_admin("--store", name, "check")
    server.signal(signal.SIGTERM)
    server.wait_end()
    assert said(folder / "chat.db") == talk.read
    assert "was not checked" not in chat_admin("check")


def test_a_copy_can_be_served(start: Start, chat_admin: Admin) -> None:
    """A server that is started on a copy goes on from there."""
    server = start()
    alice, bob = server.connect(), server.connect()
    alice.send(b"remember this\n")
    assert bob.line() == b"REMEMBER THIS\n"
    chat_admin("backup", "copy.db")
    carol = start("--store", "copy.db").connect()
    carol.send(b"/history\n")
    carol.until(b"REMEMBER THIS\n")


def test_changes_under_load(start: Start, chat_admin: Admin, folder: Path) -> None:
    """Changes beside a busy server do it no harm: every line is read, once, in its order."""
    server = start("--rate", "0")
    with talking(server) as talk:
        for number in range(3):
            chat_admin("add", f"nick{number}", password=GOOD)
            chat_admin("op", f"nick{number}")
            assert "a server is using the store" in chat_admin("check")
            talk.wait_for_more()
        chat_admin("remove", "nick0")
    assert len(chat_admin("accounts", "--json").splitlines()) == 2
    server.signal(signal.SIGKILL)
    server.wait_end()
    assert "no damage was found" in chat_admin("check")
    assert said(folder / "chat.db") == talk.read


def test_on_a_terminal(run: Run, chat_admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password is typed twice and never shown."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    program = run(sys.executable, *ARGV[1:], "add", "alice", terminal=True)
    shown = program.until(b"Password: ")
    program.send(f"{GOOD}\n".encode())
    shown += program.until(b"The same again: ")
    program.send(f"{GOOD}\n".encode())
    shown += program.rest()
    assert b"alice has an account now" in shown
    assert GOOD.encode() not in shown
    assert program.status() == 0
    assert "alice" in chat_admin("accounts")


def closed_pipe() -> int:
    """Return where nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


def full_disk() -> int:
    """Return a file to which nothing can be written."""
    return os.open("/dev/full", os.O_WRONLY)


@pytest.mark.parametrize(
    ("output", "said"),
    [(closed_pipe, ""), (full_disk, "chat-admin: No space left on device\n")],
)
def test_no_output(folder: Path, chat_admin: Admin, output: Callable[[], int], said: str) -> None:
    """Where its output cannot go it ends without a traceback, and what was to be done is done."""
    chat_admin("add", "alice", password=GOOD)
    out = output()
    try:
        done = subprocess.run(
            [*ARGV, "op", "alice"],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(out)
    assert (done.returncode, done.stderr) == (1, said)
    assert '"operator": true' in chat_admin("accounts", "--json")
