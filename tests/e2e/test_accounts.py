"""Accounts, coming back and moderation on a real server, which is killed in between."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from .conftest import DEADLINE, Conn

if TYPE_CHECKING:
    from .conftest import Server, Start

Until = Callable[[Callable[[], Any], str], Any]

GOOD: Final = "correct-horse"

CLOCK: Final = re.compile(r"(?m)^-> (?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d ")
"""What stands before a line of the past."""

FAST: Final = ("--rate", "0")

DONE: Final = b"/done\n"
TOLD: Final = b"! there is no command /done: try /help\n"
"""The answer to `DONE`, which comes when the commands before it have finished."""


def ask(client: Conn, line: str) -> str:
    """Send one line and return what comes until all of it is done."""
    client.send(line.encode() + b"\n" + DONE)
    return client.until(TOLD).removesuffix(TOLD).decode()


def past(text: str) -> list[str]:
    """Return the lines of the past in what a client was sent, without their times."""
    return [CLOCK.sub("", line) for line in text.splitlines() if CLOCK.match(line)]


def guest(server: Server, nick: str) -> Conn:
    """Connect a client with a nick."""
    client = server.connect()
    assert f"-> you are now {nick}\n" in ask(client, f"/nick {nick}")
    return client


def owner(server: Server, nick: str) -> Conn:
    """Connect a client that has registered `nick`."""
    client = guest(server, nick)
    assert f"-> {nick} is yours" in ask(client, f"/register {GOOD}")
    return client


def back(server: Server, nick: str, password: str = GOOD) -> tuple[Conn, str]:
    """Connect a client that logs in, and what it was sent."""
    client = server.connect()
    answer = ask(client, f"/login {nick} {password}")
    assert f"-> you are logged in as {nick}\n" in answer
    return client, answer


def leave(server: Server, client: Conn) -> None:
    """Close a client, and wait until the server has seen it."""
    address = client.address
    number = len(server.lines("closed after"))
    client.close()
    server.wait_for("closed after", number + 1)
    assert server.lines(f"accepted from {address}")


def told(client: Conn, line: str, sign: str) -> None:
    """Send a line, and wait until it is confirmed by `sign`."""
    client.send(line.encode() + b"\n")
    client.until(sign.encode())


def kill(server: Server) -> None:
    """End the server as a crash would."""
    server.signal(signal.SIGKILL)
    server.wait_end()


def from_host(server: Server, host: str) -> Conn:
    """Connect a client from another address of this machine."""
    return Conn(
        socket.create_connection(("127.0.0.1", server.port), DEADLINE, source_address=(host, 0))
    )


def kept(folder: Path) -> bytes:
    """Return all bytes of the store."""
    return b"".join(path.read_bytes() for path in folder.glob("chat.db*"))


def test_a_day(start: Start, folder: Path) -> None:
    """Somebody registers, leaves, is written to while the server is killed twice, and reads it."""
    server = start(*FAST)
    alice, bob = guest(server, "alice"), owner(server, "bob")
    alice.send(b"before\n")
    bob.until(b"<alice> BEFORE\n")
    leave(server, bob)
    alice.send(b"one\n/me waves\n")
    told(alice, "/msg bob psst", "[to bob] psst\n")
    kill(server)

    server = start(*FAST)
    alice = guest(server, "alice")
    history = past(ask(alice, "/history 100"))
    assert [line for line in history if "alice>" in line or "WAVES" in line] == [
        "<alice> BEFORE",
        "<alice> ONE",
        "* alice WAVES",
    ]
    told(alice, "/msg bob again", "[to bob] again\n")
    kill(server)

    server = start(*FAST)
    bob, answer = back(server, "bob")
    shown = past(answer)
    assert [line for line in shown if "joined" not in line] == [
        "<alice> ONE",
        "* alice WAVES",
        "[alice] psst",
        "[alice] again",
    ]
    assert "-> while you were away: 2 private messages\n" in answer
    server.signal(signal.SIGTERM)
    server.wait_end()

    server = start(*FAST)
    _, answer = back(server, "bob")
    assert past(answer) == []
    with closing(sqlite3.connect(folder / "chat.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_private_messages_exactly_once(start: Start) -> None:
    """Whatever was confirmed to its sender is read once, though the server is killed between
    sending and coming back, and between coming back and the next visit.
    """
    server = start(*FAST)
    leave(server, owner(server, "bob"))
    confirmed: list[str] = []
    read: list[str] = []
    for number in range(4):
        alice = guest(server, "alice")
        sent = [f"message-{number}-{index}" for index in range(50)]
        alice.send("".join(f"/msg bob {text}\n" for text in sent).encode())
        for _ in range(15 * number):
            alice.until(b"[to bob] ")
            confirmed.append(alice.line().decode().strip())
        kill(server)
        # What was written and not read by alice any more may be kept as well.
        confirmed += re.findall(r"(?m)^\[to bob\] (\S+)$", alice.rest().decode())
        server = start(*FAST)
        bob, answer = back(server, "bob")
        read += [line.removeprefix("[alice] ") for line in past(answer) if line.startswith("[")]
        told(bob, "/topic", "topic\n")  # comes after what was asked of the store before
        kill(server)
        server = start(*FAST)
    _, answer = back(server, "bob")
    read += [line.removeprefix("[alice] ") for line in past(answer) if line.startswith("[")]
    assert len(read) == len({*read}), "read twice"
    assert {*confirmed} <= {*read}, "confirmed and not read"
    assert read == sorted(read, key=lambda text: [int(part) for part in text.split("-")[1:]])


def test_killed_while_they_are_here(start: Start) -> None:
    """A private message that was read live does not come again once something else was stored."""
    server = start(*FAST)
    alice, bob = guest(server, "alice"), owner(server, "bob")
    told(alice, "/msg bob psst", "[to bob] psst\n")
    bob.until(b"[alice] psst\n")
    alice.send(b"one\n")
    bob.until(b"<alice> ONE\n")
    kill(server)
    server = start(*FAST)
    _, answer = back(server, "bob")
    assert "psst" not in answer


def test_lines_since_leaving(start: Start) -> None:
    """Hundreds of lines, exactly those, and their number in words."""
    server = start(*FAST)
    alice, bob = guest(server, "alice"), owner(server, "bob")
    witness = guest(server, "witness")
    alice.send(b"seen\n")
    bob.until(b"<alice> SEEN\n")
    leave(server, bob)
    alice.send("".join(f"line {number}\n" for number in range(700)).encode())
    witness.until(b"<alice> LINE 699\n")
    bob, answer = back(server, "bob")
    assert past(answer) == [f"<alice> LINE {number}" for number in range(700)]
    assert "-> while you were away: 700 lines\n" in answer
    alice.send(b"live\n")
    bob.until(b"<alice> LIVE\n")
    leave(server, bob)
    _, answer = back(server, "bob")
    assert "LINE" not in answer
    assert "LIVE" not in answer


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_reader_that_was_stuck(start: Start, end: str) -> None:
    """What was not sent when it went is shown when it comes back: never less.

    What the kernel had taken counts as sent, which is all that a server can know of a line client.
    """
    server = start(*FAST)
    witness, alice = server.connect(), guest(server, "alice")
    bob = server.connect(receive_buffer=4096)
    ask(bob, "/nick bob")
    ask(bob, f"/register {GOOD}")
    lines = [f"<alice> {number:05d} " + "X" * 1000 for number in range(8000)]
    for begin in range(0, len(lines), 200):
        said = (f"{number:05d} {'x' * 1000}\n" for number in range(begin, begin + 200))
        alice.send("".join(said).encode())
        witness.until(f"{begin + 199:05d} {'X' * 1000}\n".encode())
    count = len(server.lines("closed after"))
    getattr(bob, end)()
    closed = server.wait_for("closed after", count + 1)
    sent = int(re.findall(r"(\d+) bytes$", closed)[0])
    assert sent < 8000 * 1000
    _, answer = back(server, "bob")
    shown = [line for line in past(answer) if line.startswith("<alice>")]
    assert shown == lines[-len(shown) :]
    assert (len(lines) - len(shown)) * len(lines[0] + "\n") <= sent


def test_taking_over(start: Start) -> None:
    """From a connection that is not read any more: it is gone at once, and nobody else notices."""
    server = start(*FAST)
    witness, dead = guest(server, "witness"), owner(server, "alice")
    witness.until(b"* alice joined (2 here)\n")
    ask(dead, "/away")
    alice, answer = back(server, "alice")
    assert answer.startswith("-> you are already connected: taking over\n")
    assert ask(witness, "/list") == "-> in lobby: witness, alice\n"
    alice.send(b"hello\n")
    assert witness.line() == b"<alice> HELLO\n"
    assert dead.rest() == b"! alice is taken over by another connection\n"
    assert "closed after" in server.wait_for("taken over; in")


def test_taking_over_from_a_dead_connection(start: Start) -> None:
    """One whose outbox is full, as that of a machine without power: it is no ghost either."""
    server = start(*FAST)
    witness, other = guest(server, "witness"), server.connect()
    dead = server.connect(receive_buffer=4096)
    ask(dead, "/nick alice")
    ask(dead, f"/register {GOOD}")
    witness.until(b"* alice joined (3 here)\n")
    for number in range(8000):
        other.send(b"%05d " % number + b"x" * 1000 + b"\n")
        if number % 200 == 199:
            witness.until(b"%05d " % number + b"X" * 1000 + b"\n")
    alice, answer = back(server, "alice")
    assert answer.startswith("-> you are already connected: taking over\n")
    assert ask(witness, "/list") == "-> in lobby: witness, alice, 1 without a nick\n"
    server.wait_for("taken over; in")
    assert ask(witness, "/list") == "-> in lobby: witness, alice, 1 without a nick\n"
    alice.send(b"hello\n")
    assert witness.line() == b"<alice> HELLO\n"


def test_a_nick_is_kept(start: Start) -> None:
    """After a kill, in any case, also at the prompt for a nick, which takes a login."""
    server = start(*FAST)
    owner(server, "alice")
    kill(server)
    server = start("--nicknames", "required", *FAST)
    eve = server.connect()
    assert eve.line() == b"-> what is your nick?\n"
    eve.send(b"ALICE\n")
    assert eve.line() == (
        b"! ALICE is registered: /login ALICE PASSWORD if it is yours; what is your nick?\n"
    )
    eve.send(b"/login alice wrong-horse\n")
    assert eve.line() == (
        b"! there is no such account, or the password is wrong; what is your nick?\n"
    )
    eve.send(f"/login Alice {GOOD}\n".encode())
    assert eve.lines(2) == [
        b"-> you are logged in as alice\n",
        b"-> you are alice, in lobby (1 here)\n",
    ]


def test_passwords_are_nowhere(start: Start, folder: Path, tls_port: str) -> None:
    """Not in the log, nor in the file, whatever was done with them, through TLS as well."""
    server = start("--port", tls_port, *FAST)
    alice = server.connect(server.ports[1], tls=True)
    witness = guest(server, "witness")
    ask(alice, "/nick alice")
    for line in (
        f"/register {GOOD}",
        f" /login alice {GOOD}",
        f"//login alice {GOOD}",
        f"/password {GOOD} {GOOD}-2",
        f"/password wrong-horse {GOOD}",
        "/logout",
        f"/login alice {GOOD}-2",
        f"/login nobody-x {GOOD}",
        f"/unregister {GOOD}-2",
    ):
        ask(alice, line)
    alice.send(b"hello\n")
    witness.until(b"<alice> HELLO\n")
    seen = ask(witness, "/history 1000")
    kill(server)
    for text in (seen.encode(), server.log.read_bytes(), kept(folder)):
        assert b"horse" not in text.lower()
    assert "wrong password for alice from" in server.text()
    assert "wrong password for an unknown account from" in server.text()


class TestOutsideCheckers:
    """``--auth``: passwords that somebody else keeps."""

    def check(self, start: Start, flag: str) -> None:
        """Log in, be written to, and find it after a kill; what is done here is refused."""
        server = start("--auth", flag, "--operator", "alice", *FAST)
        bob = guest(server, "bob")
        alice, _ = back(server, "alice", "secretpw")
        assert ask(alice, "/bans") == "-> nobody is banned or muted\n"
        for line in (f"/password secretpw {GOOD}", "/unregister secretpw"):
            assert ask(alice, line).startswith("! accounts are kept outside of this server")
        assert "! accounts are kept outside" in ask(bob, f"/register {GOOD}")
        leave(server, alice)
        told(bob, "/msg alice psst", "[to alice] psst\n")
        kill(server)
        server = start("--auth", flag, *FAST)
        eve = server.connect()
        assert ask(eve, "/nick alice").startswith("! alice is registered")
        wrong = "! there is no such account, or the password is wrong\n"
        assert ask(eve, "/login alice secretpw2") == wrong
        assert ask(eve, "/login eve secretpw") == wrong
        _, answer = back(server, "alice", "secretpw")
        assert past(answer).count("[alice] psst") + past(answer).count("[bob] psst") == 1
        assert "secretpw" not in server.text()

    def test_file(self, start: Start, folder: Path) -> None:
        """Users in a file."""
        (folder / "passwords").write_text("alice:secretpw\nbob:other\n")
        self.check(start, "file:passwords")


def test_history_off(start: Start, folder: Path) -> None:
    """Nothing of what is said is in the file, also after a kill; accounts and bans are."""
    server = start("--history", "off", "--operator", "alice", *FAST)
    alice, bob = owner(server, "alice"), owner(server, "bob")
    for line in ("zebra-one", "/me zebra-two", "/msg bob zebra-three", "/topic zebra-four"):
        ask(alice, line)
    assert len(re.findall(rb"zebra-(?:one|two|three)", bob.until(b"zebra-three\n").lower())) == 3
    off = "! history is off on this server: nothing is kept\n"
    assert off in ask(alice, "/history")
    assert off in ask(alice, "/search zebra")
    leave(server, bob)
    assert "! bob is not here, and nothing is kept\n" in ask(alice, "/msg bob zebra-four")
    assert "-> eve is banned\n" in ask(alice, "/ban eve")
    kill(server)
    assert b"zebra" not in kept(folder).lower()
    server = start("--history", "off", *FAST)
    _, answer = back(server, "bob")
    assert past(answer) == []
    assert ask(server.connect(), "/nick eve").startswith("! eve is banned")
    server.signal(signal.SIGTERM)
    server.wait_end()
    assert b"zebra" not in kept(folder).lower()


class TestModeration:
    """Operators, on a server that is killed."""

    def test_in_force_at_once_and_after_a_kill(self, start: Start, until: Until) -> None:
        """By nick, address and prefix, for those who are here, new ones, and after a restart."""
        server = start("--operator", "root1", *FAST)
        root, eve = owner(server, "root1"), guest(server, "eve")
        here = from_host(server, "127.0.2.2")
        server.wait_for("accepted from 127.0.2.2")
        assert "-> eve is banned\n" in ask(root, "/ban eve forever too loud")
        assert eve.rest().endswith(b"! you are banned: too loud\n")
        assert "127.0.2.0/24" in ask(root, "/ban 127.0.2.0/24 2h spam")
        assert b"! you are banned until" in here.rest()
        ask(root, "/mute dora")
        ask(root, "/ban carl")
        assert "-> carl is no longer banned\n" in ask(root, "/unban carl")
        kill(server)

        server = start(*FAST)
        late = from_host(server, "127.0.2.77")
        words = late.rest()
        assert words.startswith(b"! you are banned until ")
        assert words.endswith(b": spam\n")
        server.wait_for("refused 127.0.2.77")
        dora = server.connect()
        assert ask(dora, "/nick EVE") == "! EVE is banned: too loud\n"
        ask(dora, "/nick carl")
        ask(dora, "/nick dora")
        assert "! you are muted\n" in ask(dora, "hello")
        for client in (here, late):
            client.close()

    def test_operators_are_kept(self, start: Start) -> None:
        """One who was made an operator is one after a kill; one of the settings only with them."""
        server = start("--operator", "root1", *FAST)
        root, alice = owner(server, "root1"), owner(server, "alice")
        assert "-> alice is an operator now\n" in ask(root, "/op alice")
        alice.until(b"-> you are an operator now (root1)\n")
        kill(server)
        server = start(*FAST)
        alice, _ = back(server, "alice")
        assert "-> nobody is banned or muted\n" in ask(alice, "/bans")
        root, _ = back(server, "root1")
        assert "! /bans is for operators\n" in ask(root, "/bans")

    def test_is_logged(self, start: Start) -> None:
        """With who did what; nothing in a reason can forge a line of the log."""
        server = start("--operator", "root1", *FAST)
        root, eve = owner(server, "root1"), guest(server, "eve")
        alice = owner(server, "alice")
        why = "a\x1b[31mb\rc\u2028d {by} %s"
        for line in (
            "/op alice",
            "/deop alice",
            f"/mute eve 10m {why}",
            "/unmute eve",
            f"/kick eve {why}",
            f"/ban 192.0.2.0/24 2h {why}",
            "/unban 192.0.2.0/24",
            "/announce tea",
        ):
            ask(root, line)
        eve.rest()
        alice.until(b"* root1 announces: tea\n")
        notes = [line.partition("operator root1 ")[2] for line in server.lines("operator root1 ")]
        assert len(notes) == 8
        assert notes[0] == "made alice an operator"
        assert notes[1] == "made alice no operator"
        assert notes[2].endswith(": abcd {by} %s")
        assert notes[4] == "put eve out of lobby: abcd {by} %s"
        assert "192.0.2.0/24" in notes[5]
        assert "\x1b" not in server.text()
        assert "\u2028" not in server.text()

    def test_announce(self, start: Start) -> None:
        """In every room."""
        server = start("--operator", "root1", *FAST)
        root, eve = owner(server, "root1"), guest(server, "eve")
        ask(eve, "/join dev")
        assert "-> announced in 2 rooms\n" in ask(root, "/announce tea is ready")
        eve.until(b"* root1 announces: tea is ready\n")
