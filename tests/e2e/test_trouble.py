"""A disk that is full, a file that is locked, gone or not ours: who is told, and what goes on."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Command, Conn, Server, Start

Until = Callable[[Callable[[], Any], str], Any]

DEADLINE: Final = 15.0

FULL: Final = b"the disk is full"
LOCKED: Final = b"the store is locked by another program"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB, in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path))
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def mount(*arguments: str) -> None:
    """Mount something, or skip the test where that is not allowed, except in CI."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"nothing can be mounted: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


class Talk:
    """Alice, who says one line after another, and bob, who reads them."""

    def __init__(self, server: Server) -> None:
        """Let both come in."""
        self.server = server
        self.alice, self.bob = server.connect(), server.connect()
        self.seen: list[bytes] = []
        """What bob has read."""
        self._count = 0

    def say(self) -> bytes:
        """Say the next line; return why it was not sent, nothing when bob has read it.

        It is one or the other: after it was refused bob reads something else next.
        """
        self._count += 1
        line = b"LINE %d\n" % self._count
        self.alice.send(line)
        sockets = [self.alice.socket, self.bob.socket]
        ready = select.select(sockets, [], [], DEADLINE)[0]
        assert ready, "nobody was told anything"
        if self.bob.socket in ready:
            assert self.bob.line() == line
            self.seen.append(line)
            return b""
        told = self.alice.line()
        assert told.startswith(b"! your line was not sent: "), told
        return told.partition(b": ")[2].rstrip(b"\n")

    def is_heard(self) -> bool:
        """Say something, and tell whether bob has read it."""
        return not self.say()

    def say_well(self, count: int) -> None:
        """Say so many lines, which must all be read."""
        for _ in range(count):
            assert self.say() == b""

    def say_at_once(self, count: int) -> int:
        """Say so many lines of which none can be sent; return how often alice was told."""
        self.alice.send(b"TOO MUCH\n" * count)
        times = 0
        while count:
            words = self.alice.line().partition(b" not sent: ")[0].split()
            count -= 1 if words[1] == b"your" else int(words[1])
            times += 1
        return times


def history(conn: Conn) -> list[bytes]:
    """Return what was said in the client's room, less than a page."""
    conn.send(b"/history 1000\n/away\n")
    lines = conn.until(b"-> you are back\n").splitlines(keepends=True)[:-1]
    return [line.split(b" ", 2)[2] for line in lines]


def check(path: Path) -> list[int]:
    """Return the ids in the file of a server that has ended; it must be whole."""
    with closing(sqlite3.connect(path)) as store:
        assert store.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in store.execute("SELECT id FROM events ORDER BY room, seq")]


def end(server: Server, number: signal.Signals = signal.SIGTERM) -> None:
    """End `server`."""
    server.signal(number)
    server.wait_end()


def fill(disk: Path) -> Path:
    """Leave not a byte on `disk`, and return the file that has taken them."""
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


# While it runs.


def test_disk_full(disk: Path, start: Start) -> None:
    """Who speaks is told, nobody reads what was not stored, and it goes on once there is space."""
    server = start("--store", str(disk / "chat.db"), "--rate", "0")
    server.expect_error("nothing can be stored: the disk is full")
    talk = Talk(server)
    for _ in range(2):
        talk.say_well(10)
        ballast = fill(disk)
        while not (why := talk.say()):
            pass
        assert why == FULL
        assert talk.say_at_once(500) < 100
        assert talk.say() == FULL
        assert history(talk.bob) == talk.seen
        ballast.unlink()
        talk.say_well(10)
    assert len(server.lines("nothing can be stored")) == 2
    assert len(server.lines("the store works again")) == 2
    end(server, signal.SIGKILL)
    server = start("--store", str(disk / "chat.db"))
    assert history(server.connect()) == talk.seen
    end(server)
    check(disk / "chat.db")


def test_disk_full_and_somebody_away(disk: Path, start: Start) -> None:
    """Who writes to somebody who is not here is told that it was not sent, and nothing else."""
    server = start("--store", str(disk / "chat.db"))
    server.expect_error("nothing can be stored: the disk is full")
    talk, carol = Talk(server), server.connect()
    carol.send(b"/nick carol\n/register correct-horse\n/quit\n")
    assert b"carol is yours" in carol.rest()
    for client in (talk.alice, talk.bob):
        client.until(b"* carol left (2 here)\n")
    talk.alice.send(b"/nick alice\n")
    assert talk.alice.line() == b"-> you are now alice\n"
    assert talk.bob.line() == b"* alice joined (2 here)\n"
    fill(disk)
    talk.alice, talk.bob = talk.bob, talk.alice
    while talk.is_heard():
        pass
    talk.alice, talk.bob = talk.bob, talk.alice
    talk.alice.send(b"/msg carol call me\n")
    assert talk.alice.until(b"! your line was not sent: the disk is full\n").count(b"\n") == 1


def test_disk_full_at_the_end(disk: Path, start: Start) -> None:
    """A server whose disk is full can be ended, and has all that was read when it starts again."""
    server = start("--store", str(disk / "chat.db"))
    server.expect_error("nothing can be stored: the disk is full")
    talk = Talk(server)
    talk.say_well(10)
    ballast = fill(disk)
    while not talk.say():
        pass
    end(server)
    ballast.unlink()
    assert history(start("--store", str(disk / "chat.db")).connect()) == talk.seen


def test_locked(start: Start, folder: Path) -> None:
    """While another program has the file locked, who speaks is told; others are served."""
    server = start()
    server.expect_error("nothing can be stored: " + LOCKED.decode())
    talk = Talk(server)
    talk.say_well(5)
    with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert talk.say() == LOCKED
        talk.alice.send(b"one more\n")
        talk.bob.send(b"/list\n")
        assert talk.bob.line() == b"-> in lobby: 2 without a nick\n"
        assert talk.alice.line() == b"! your line was not sent: " + LOCKED + b"\n"
        other.execute("ROLLBACK")
    talk.say_well(5)
    server.wait_for("the store works again")
    end(server, signal.SIGKILL)
    assert history(start().connect()) == talk.seen


def test_locked_and_freed(start: Start, folder: Path) -> None:
    """A lock that is soon gone only holds up what is said."""
    talk = Talk(start())
    with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        talk.alice.send(b"hello\n")
        talk.bob.send(b"/list\n")
        assert talk.bob.line() == b"-> in lobby: 2 without a nick\n"
        other.execute("ROLLBACK")
    assert talk.bob.line() == b"HELLO\n"
    talk.say_well(1)


DELETED: Final = {
    "the file": ("chat.db",),
    "all": ("chat.db", "chat.db-wal", "chat.db-shm"),
    "the write-ahead log": ("chat.db-wal",),
    "what is beside it": ("chat.db-wal", "chat.db-shm"),
    "the lock": ("chat.db-lock",),
}


@pytest.mark.parametrize("names", DELETED.values(), ids=DELETED)
def test_deleted(start: Start, folder: Path, until: Until, names: tuple[str, ...]) -> None:
    """When somebody deletes the file it is written again, with all that anyone has read."""
    server = start("--rate", "0")
    server.expect_error("nothing can be stored")
    talk = Talk(server)
    for _ in range(3):
        talk.say_well(20)
        for name in names:
            (folder / name).unlink(missing_ok=True)  # the lock is not made again
        until(talk.is_heard, "the store works again")
    end(server, signal.SIGKILL)
    server = start()
    assert history(server.connect()) == talk.seen
    end(server)
    ids = check(folder / "chat.db")
    assert ids == sorted({*ids})


@pytest.mark.parametrize("is_back", [True, False], ids=["renamed", "deleted"])
def test_folder_gone(start: Start, folder: Path, until: Until, is_back: bool) -> None:
    """While the folder is gone who speaks is told; when there is one again all is in it."""
    home, away = folder / "home", folder / "away"
    home.mkdir()
    server = start("--store", "home/chat.db", "--rate", "0")
    server.expect_error("nothing can be stored")
    talk = Talk(server)
    talk.say_well(20)
    home.rename(away)
    assert talk.say()
    assert talk.say()
    if is_back:
        away.rename(home)
    else:
        shutil.rmtree(away)
        assert talk.say()
        home.mkdir()
    until(talk.is_heard, "the store works again")
    talk.say_well(5)
    end(server, signal.SIGKILL)
    server = start("--store", "home/chat.db")
    assert history(server.connect()) == talk.seen
    end(server)
    check(home / "chat.db")


@pytest.mark.parametrize("extra", ["kept", "removed"])
def test_replaced_by_an_older_copy(start: Start, folder: Path, until: Until, extra: str) -> None:
    """With an older copy under its name it goes on from there; what was given as id stays given."""
    server = start("--rate", "0")
    server.expect_error("nothing can be stored")
    talk = Talk(server)
    talk.say_well(20)
    with (
        closing(sqlite3.connect(folder / "chat.db")) as store,
        closing(sqlite3.connect(folder / "older.db")) as older,
    ):
        store.backup(older)
        older.execute("PRAGMA journal_mode = DELETE")
    before = len(talk.seen)
    talk.say_well(20)
    with closing(sqlite3.connect(folder / "chat.db")) as store:
        (given,) = store.execute("SELECT max(id) FROM events").fetchone()
    if extra == "removed":
        (folder / "chat.db-wal").unlink()
        (folder / "chat.db-shm").unlink()
    (folder / "older.db").rename(folder / "chat.db")
    again = len(talk.seen)
    until(talk.is_heard, "the store works again")
    talk.say_well(5)
    end(server, signal.SIGKILL)
    server = start()
    assert history(server.connect()) == talk.seen[:before] + talk.seen[again:]
    end(server)
    ids = check(folder / "chat.db")
    assert ids == sorted({*ids})
    assert all(one > given for one in ids[before:])


# At the start.


def not_ours(path: Path, statement: str) -> None:
    """Make a database in which only `statement` was done."""
    with closing(sqlite3.connect(path)) as store:
        store.execute(statement)
        store.commit()


def newer(path: Path) -> None:
    """Make a store of a version that is not known yet."""
    not_ours(path, "PRAGMA application_id = 0x43484154")
    not_ours(path, "PRAGMA user_version = 1000")


def file_as_folder(path: Path) -> None:
    """Put a file where the folder of the store was."""
    path.parent.rmdir()
    path.parent.touch()


WRONG: Final[dict[str, tuple[Callable[[Path], object], str]]] = {
    "a folder": (Path.mkdir, "Is a directory|cannot be opened"),
    "no folder": (lambda path: path.parent.rmdir(), "No such file or directory"),
    "a file as folder": (file_as_folder, "Not a directory"),
    "foreign": (lambda path: not_ours(path, "CREATE TABLE a (b)"), "another program"),
    "newer": (newer, "newer chatproto"),
    "no database": (lambda path: path.write_text("dear diary\n" * 1000), "not a database"),
}


@pytest.fixture
def fails(command: Command, folder: Path) -> Callable[[str, bool], str]:
    """Start a server that cannot start; return what it says."""

    def fail(store: str, daemon: bool) -> str:
        twistd = ["--logfile=new.log", "--pidfile=new.pid", *([] if daemon else ["-n"])]
        done = command(*twistd, "chat", "--port", "unix:chat.sock", "--store", store)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("twistd chat: --store ")
        assert done.stderr.count("\n") == 1
        assert done.stderr[:-1].isprintable()
        for name in ("new.log", "new.pid", "chat.sock", "chat.sock.lock"):
            assert not os.path.lexists(folder / name), name
        return done.stderr

    return fail


Fails = Callable[[str, bool], str]
both_ways = pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])


@both_ways
@pytest.mark.parametrize("case", WRONG)
def test_no_start(fails: Fails, folder: Path, case: str, daemon: bool) -> None:
    """A store that cannot be used ends the start with one line, and stays as it is."""
    make, words = WRONG[case]
    store = folder / "home" / "chat.db"
    store.parent.mkdir()
    make(store)
    before = store.read_bytes() if store.is_file() else None
    told = fails("home/chat.db", daemon)
    assert before is None or store.read_bytes() == before
    assert any(word in told for word in words.split("|")), told


@both_ways
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
def test_no_start_on_a_read_only_disk(
    disk: Path, start: Start, fails: Fails, is_new: bool, daemon: bool
) -> None:
    """Where nothing can be written the start ends with one line, be there a store or not."""
    if not is_new:
        end(start("--store", str(disk / "chat.db")))
    mount("-o", "remount,ro", str(disk))
    assert "Read-only file system" in fails(str(disk / "chat.db"), daemon)


@both_ways
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "old"])
def test_no_start_on_a_full_disk(
    disk: Path, folder: Path, start: Start, fails: Fails, is_new: bool, daemon: bool
) -> None:
    """A disk without a byte left ends the start with one line, which says so."""
    if not is_new:
        end(start())
        shutil.copyfile(folder / "chat.db", disk / "chat.db")
    fill(disk)
    told = fails(str(disk / "chat.db"), daemon)
    assert FULL.decode() in told or "No space left" in told


@both_ways
def test_no_start_while_locked(fails: Fails, start: Start, folder: Path, daemon: bool) -> None:
    """A store that another program does not let go of ends the start with one line."""
    end(start())
    with closing(sqlite3.connect(folder / "chat.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert LOCKED.decode() in fails("chat.db", daemon)


@both_ways
def test_no_second_server(start: Start, fails: Fails, daemon: bool) -> None:
    """A store has one server: the second one says so, and the first one goes on."""
    talk = Talk(start(daemon=daemon))
    talk.say_well(5)
    assert "another server is using it" in fails("chat.db", daemon)
    talk.say_well(5)
    assert history(talk.bob) == talk.seen
