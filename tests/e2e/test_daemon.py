"""The daemon: its files, and the signals that its operator and logrotate send."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Command, Server, Start

Until = Callable[[Callable[[], Any], str], Any]


def says_hello(server: Server) -> None:
    """Have one client say something to another."""
    alice, bob = server.connect(wait=False), server.connect(wait=False)
    # Who is answered is in the room.
    bob.send(b"/nick bob\n")
    while bob.line() != b"-> you are now bob\n":
        pass
    alice.send(b"hello\n")
    while (line := bob.line()).startswith((b"*", b"->")):
        pass
    assert line == b"HELLO\n"
    for conn in (alice, bob):
        conn.send(b"/quit\n")
        conn.rest()


def test_daemon(start: Start, folder: Path) -> None:
    """It goes to the background, writes its files, serves, and takes the pid file with it."""
    server = start(daemon=True)
    assert os.getsid(server.pid) != os.getsid(0)
    assert int((folder / "chat.pid").read_text()) == server.pid
    says_hello(server)
    server.signal(signal.SIGTERM)
    server.wait_end()
    # The lock stays, so that nobody ever locks a file that somebody else has just removed.
    assert sorted(os.listdir(folder)) == ["chat.db", "chat.db-lock", "chat.log"]
    assert "stopping" in server.text()


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_unix_socket(start: Start, command: Command, folder: Path, daemon: bool) -> None:
    """A socket that is served is not taken over by a second server, and goes with its own."""
    server = start(port="unix:chat.sock", daemon=daemon)
    before = sorted(os.listdir(folder))
    second = ("--logfile=new.log", "-n", "chat", "--port=unix:chat.sock", "--store=memory")
    done = command(*second)
    assert done.returncode == 1
    assert "the port is in use already" in done.stderr
    assert sorted(os.listdir(folder)) == before
    alice, bob = (server.connect_unix(folder / "chat.sock") for _ in range(2))
    alice.send(b"hello\n")
    assert bob.line() == b"HELLO\n"
    server.signal(signal.SIGTERM)
    server.wait_end()
    assert not list(folder.glob("chat.sock*"))


@pytest.mark.parametrize(("flags", "umask"), [((), 0o077), (("--umask=027",), 0o027)])
def test_umask(start: Start, folder: Path, flags: tuple[str, ...], umask: int) -> None:
    """Its files are its own unless --umask says otherwise; a socket has the mode of its port."""
    server = start("--port", "unix:chat.sock:mode=660", daemon=True, twistd=flags)
    assert (folder / "chat.pid").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (folder / "chat.sock").stat().st_mode & 0o777 == 0o660
    server.log.unlink()
    server.signal(signal.SIGHUP)
    server.wait_for_file()
    assert server.log.stat().st_mode & 0o777 == 0o666 & ~umask
    # What was said in private is nobody else's, whatever the umask.
    for path in folder.glob("chat.db*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_rundir(start: Start, folder: Path) -> None:
    """Files named relative to where it was started are found from the folder it runs in."""
    (folder / "elsewhere").mkdir()
    (folder / "motd.txt").write_text("one\n")
    server = start(
        "--motd", "@motd.txt", "--port", "unix:chat.sock", twistd=("--rundir=elsewhere",)
    )
    assert server.connect().line() == b"* one\n"
    (folder / "motd.txt").write_text("two\n")
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded")
    assert server.connect().line() == b"* two\n"
    server.end()
    assert not (folder / "chat.sock").exists()
    assert (folder / "chat.db").exists()
    assert not list((folder / "elsewhere").glob("chat.db*"))


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_hangup(start: Start, folder: Path, daemon: bool) -> None:
    """SIGHUP reads the message of the day again; nobody is disconnected."""
    motd = folder / "motd.txt"
    motd.write_text("one\ntwo\n")
    server = start("--motd", "@motd.txt", daemon=daemon)
    alice = server.connect()
    assert alice.lines(2) == [b"* one\n", b"* two\n"]
    motd.write_text("three\x1b[2J\n")
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded", 1)
    bob = server.connect()
    assert bob.line() == b"* three\n"

    motd.unlink()
    server.expect_error("kept the old message of the day")
    server.signal(signal.SIGHUP)
    assert "motd.txt" in server.wait_for("kept the old message of the day")
    server.wait_for("reloaded", 2)
    carol = server.connect()
    assert carol.line() == b"* three\n"

    bob.send(b"hello\n")
    assert alice.line() == carol.line() == b"HELLO\n"


def test_logrotate(start: Start, folder: Path) -> None:
    """After a rename and SIGHUP it goes on in a new log file; nothing is lost or doubled."""
    server = start(daemon=True)
    server.connect()
    old = folder / "chat.log.1"
    server.log.rename(old)
    server.connect(wait=False).send(b"/quit\n")  # still goes to the old file
    server.signal(signal.SIGHUP)
    server.wait_for_file()
    server.wait_for("reloaded")
    server.connect()
    says_hello(server)
    server.signal(signal.SIGTERM)
    server.wait_end()
    both = old.read_text() + server.text()
    assert "listening on" in old.read_text()
    assert [both.count(f"client {number} accepted") for number in range(1, 6)] == [1] * 5
    assert [both.count(f"client {number} closed") for number in range(1, 6)] == [1] * 5
    assert "Server Shut Down" not in old.read_text()


def test_log_folder_gone(start: Start, folder: Path) -> None:
    """When the new log file cannot be opened it goes on in the old one, and says so."""
    server = start(twistd=("--logfile=logs/chat.log",), before="import os; os.mkdir('logs')")
    (folder / "logs").rename(folder / "old")
    server.log = folder / "old" / "chat.log"
    server.expect_error("cannot be reopened")
    server.signal(signal.SIGHUP)
    server.wait_for("the log file cannot be reopened")
    says_hello(server)


def test_rotate(start: Start, folder: Path, until: Until) -> None:
    """SIGUSR1 puts the log file aside and starts a new one, however often it comes."""
    server = start(daemon=True)
    for _ in range(3):
        server.signal(signal.SIGUSR1)
    until(lambda: len(list(folder.glob("chat.log.*"))) >= 1, "a log file put aside")
    says_hello(server)
    server.signal(signal.SIGTERM)
    server.wait_end()
    everything = "".join(path.read_text() for path in folder.glob("chat.log*"))
    for words in ("listening on", "client 1 accepted", "client 1 closed", "Server Shut Down"):
        assert everything.count(words) == 1, words


def test_truncated_log(start: Start) -> None:
    """A log that is emptied from outside goes on at its beginning, without a hole of NULs."""
    server = start(daemon=True)
    says_hello(server)
    assert server.log.stat().st_size > 0
    os.truncate(server.log, 0)
    server.connect()
    assert server.log.read_bytes().count(b"\0") == 0
    assert "listening" not in server.text()


def test_hangup_while_busy(start: Start, folder: Path) -> None:
    """No number of SIGHUPs and SIGUSR1s hurts a conversation."""
    server = start("--rate", "0", daemon=True)
    alice, bob = server.connect(), server.connect()
    for number in range(200):
        alice.send(b"line %d\n" % number)
        server.signal(signal.SIGHUP if number % 2 else signal.SIGUSR1)
        assert bob.line() == b"LINE %d\n" % number
    assert server.is_running()
