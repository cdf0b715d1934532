"""Coming back: exactly what was said since, once; in memory, and from a file that survives."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from chatproto.errors import StoreError
from chatproto.factory import ChatFactory
from chatproto.model import Draft
from chatproto.passwords import Hasher
from chatproto.settings import Settings
from chatproto.stores.sqlite import sqlite_store
from chatproto.stores.sqlite.file import StoreFile
from chatproto.stores.sqlite.retention import Keep
from chatproto.testing import START, Client, World
from chatproto.threads import NoThreads

from .stores.conftest import in_reactor, turn

GOOD: Final = "correct-horse"

DONE: Final = b"/done\n"
TOLD: Final = "! there is no command /done: try /help\n"
"""The answer to `DONE`, which comes when the commands before it have finished."""

CLOCK: Final = re.compile(r"(?m)^-> (?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d ")
"""What stands before a line of the past."""


def ask(client: Client, line: str) -> str:
    """Send one line and return what comes back."""
    client.received()
    client.send(line.encode() + b"\n")
    return client.received().decode()


def past(text: str) -> list[str]:
    """Return the lines of the past in what a client was sent, without their times."""
    return [CLOCK.sub("", line) for line in text.splitlines() if CLOCK.match(line)]


def count(text: str) -> list[str]:
    """Return what was said of how much there was."""
    words = "-> while you were away: "
    return [line.removeprefix(words) for line in text.splitlines() if line.startswith(words)]


def owner(world: World, nick: str = "bob") -> Client:
    """Connect a client that has registered `nick`."""
    client = world.client()
    ask(client, f"/nick {nick}")
    assert "is yours" in ask(client, f"/register {GOOD}")
    return client


def back(world: World, nick: str = "bob", client: Client | None = None) -> str:
    """Log in from a new client, or from `client`; return what that is sent."""
    return ask(client or world.client(), f"/login {nick} {GOOD}")


@pytest.fixture
def world() -> World:
    """A server in memory."""
    return World(rate=0)


class TestRoom:
    """What was said in the room."""

    def test_exactly_what_was_missed(self, world: World) -> None:
        """From the line after the last one they were sent to the last one before they came."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "before")
        bob.close()
        for line in ("one", "/me waves", "/topic tea", "two"):
            ask(alice, line)
        again = world.client()
        ask(alice, "seen live")
        assert again.received() == b"<alice> SEEN LIVE\n"
        answer = back(world, client=again)
        assert past(answer) == [
            "<alice> ONE",
            "* alice WAVES",
            "* alice set the topic: tea",
            "<alice> TWO",
        ]
        assert count(answer) == ["4 lines"]
        ask(alice, "after")
        assert again.received() == b"<alice> AFTER\n"

    @pytest.mark.parametrize(("lines", "words"), [(1, "1 line"), (2, "2 lines"), (42, "42 lines")])
    def test_the_count_in_words(self, world: World, lines: int, words: str) -> None:
        """One line is one line."""
        alice = world.named("alice")
        owner(world).close()
        for number in range(lines):
            ask(alice, f"line {number}")
        answer = back(world)
        assert count(answer) == [words]
        assert past(answer) == [f"<alice> LINE {number}" for number in range(lines)]

    @pytest.mark.parametrize("lines", [255, 256, 257, 600])
    def test_many(self, world: World, lines: int) -> None:
        """Read in pages: all of them, in order, and the count is of all."""
        alice = world.named("alice")
        owner(world).close()
        alice.send(b"".join(b"line %d\n" % number for number in range(lines)))
        world.turn(lines)
        answer = back(world)
        assert past(answer) == [f"<alice> LINE {number}" for number in range(lines)]
        assert count(answer) == [f"{lines} lines"]

    def test_nothing(self, world: World) -> None:
        """Nothing is said of nothing; one's own leaving and coming is none."""
        owner(world).close()
        assert back(world) == "-> you are logged in as bob\n"
        assert back(world).count("while you were away") == 0

    def test_nothing_twice(self, world: World) -> None:
        """A second login shows what came after the first one."""
        alice = world.named("alice")
        owner(world).close()
        ask(alice, "one")
        first = world.client()
        assert past(back(world, client=first)) == ["<alice> ONE"]
        ask(alice, "two")
        assert first.received() == b"<alice> TWO\n"
        first.close()
        ask(alice, "three")
        assert past(back(world)) == ["<alice> THREE"]
        assert past(back(world)) == []

    def test_nothing_twice_by_logging_out_and_in(self, world: World) -> None:
        """What a guest has seen live is not shown to the account in the same connection."""
        alice, bob = world.named("alice"), owner(world)
        ask(bob, "/logout")
        ask(alice, "one")
        assert bob.received() == b"<alice> ONE\n"
        assert past(back(world, client=bob)) == []
        bob.close()
        assert past(back(world)) == []

    def test_nothing_twice_by_taking_over(self, world: World) -> None:
        """What the old connection has been sent is not shown to the new one."""
        alice = world.named("alice")
        owner(world)
        ask(alice, "one")
        new = world.client()
        ask(alice, "two")
        assert past(back(world, client=new)) == []
        assert new.received() == b""

    def test_own_lines_and_ignored_ones(self, world: World) -> None:
        """Neither what one said oneself nor what one does not want to hear is shown or counted."""
        alice, eve, bob = world.named("alice"), world.named("eve"), owner(world)
        ask(bob, "mine")
        bob.close()
        ask(eve, "noise")
        ask(alice, "one")
        again = world.client()
        ask(again, "/ignore eve")
        answer = back(world, client=again)
        assert past(answer) == ["<alice> ONE"]
        assert count(answer) == ["1 line"]

    def test_ignored_ones_in_many_pages(self, world: World) -> None:
        """They are not counted in later pages either."""
        alice, eve = world.named("alice"), world.named("eve")
        owner(world).close()
        for client in (alice, eve):
            client.send(b"".join(b"line %d\n" % number for number in range(300)))
            world.turn(300)
        again = world.client()
        ask(again, "/ignore eve")
        answer = back(world, client=again)
        assert len(past(answer)) == 300
        assert count(answer) == ["300 lines"]

    def test_who_comes_and_goes_meanwhile(self, world: World) -> None:
        """Is shown in its order."""
        owner(world).close()
        alice = world.named("alice")
        ask(alice, "hello")
        alice.close()
        assert past(back(world)) == [
            "* alice joined (1 here)",
            "<alice> HELLO",
            "* alice left (0 here)",
        ]

    def test_what_is_said_while_it_is_shown(self, world: World) -> None:
        """Comes after it, once."""
        alice = world.named("alice")
        owner(world).close()
        alice.send(b"".join(b"%d " % number + b"x" * 3000 + b"\n" for number in range(60)))
        world.turn(60)
        again = world.client()
        again.stop_reading()
        again.send(f"/login bob {GOOD}\n".encode())
        ask(alice, "live")
        again.read_on()
        world.turn(30)
        text = again.received().decode()
        assert len(past(text)) == 60
        assert text.count("<alice> LIVE\n") == 1
        assert text.endswith("<alice> LIVE\n")


class TestOtherRooms:
    """Each room has its own read position."""

    def test_join(self, world: World) -> None:
        """An account that comes back to a room is shown what it missed there."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "/join dev")
        ask(bob, "/join dev")
        ask(bob, "/join lobby")
        ask(alice, "one")
        answer = ask(bob, "/join dev")
        assert past(answer) == ["<alice> ONE"]
        assert count(answer) == ["1 line"]
        assert past(ask(bob, "/join lobby")) == []
        assert past(ask(bob, "/join dev")) == []

    def test_a_room_where_they_never_were(self, world: World) -> None:
        """Nothing was missed there."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "/join dev")
        ask(alice, "one")
        assert ask(bob, "/join dev") == "-> you are in dev (2 here)\n"

    def test_the_same_room_again(self, world: World) -> None:
        """Who is there already has missed nothing."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "one")
        assert past(ask(bob, "/join lobby")) == []
        ask(alice, "two")
        assert bob.received() == b"<alice> TWO\n"

    def test_a_guest(self, world: World) -> None:
        """Guests have no read position: they are shown nothing."""
        alice, bob = world.named("alice"), world.named("bob")
        ask(bob, "/join dev")
        ask(alice, "one")
        assert past(ask(bob, "/join lobby")) == []

    def test_put_out(self) -> None:
        """Who is put out of a room comes into the lobby, and misses nothing of that either."""
        world = World(rate=0, operator=("root1",))
        root, bob = owner(world, "root1"), owner(world)
        ask(bob, "/join dev")
        ask(root, "meanwhile")
        bob.received()
        ask(root, "/kick bob")
        world.turn()
        text = bob.received().decode()
        bob.close()
        text += back(world)
        assert past(text).count("<root1> MEANWHILE") == 1


class TestReplay:
    """``--replay N``: the last lines for everyone who comes."""

    def test_on_connecting(self) -> None:
        """The last lines of the lobby, at most N, the oldest first."""
        world = World(rate=0, replay=2)
        alice = world.named("alice")
        for line in ("one", "two", "three"):
            ask(alice, line)
        guest = world.client()
        assert past(guest.received().decode()) == ["<alice> TWO", "<alice> THREE"]
        ask(alice, "four")
        assert guest.received() == b"<alice> FOUR\n"

    def test_on_joining(self) -> None:
        """Of every room, for guests and accounts alike, when they come for the first time."""
        world = World(rate=0, replay=3)
        alice = world.named("alice")
        ask(alice, "/join dev")
        ask(alice, "one")
        for client in (world.named("guest"), owner(world)):
            answer = ask(client, "/join dev")
            assert "<alice> ONE" in past(answer)
            ask(client, "/join lobby")

    def test_where_a_nick_is_required(self) -> None:
        """Not before one is in the room."""
        world = World(rate=0, replay=1, nicknames="required")
        alice = world.client()
        ask(alice, "alice")
        ask(alice, "one")
        bob = world.client()
        assert bob.received() == b"-> what is your nick?\n"
        assert past(ask(bob, "bob")) == ["<alice> ONE"]

    def test_after_being_away(self) -> None:
        """Who comes back is shown all that was missed, not only N."""
        world = World(rate=0, replay=2, nicknames="required")
        alice, bob = world.client(), world.client()
        ask(alice, "alice")
        ask(bob, "bob")
        ask(bob, f"/register {GOOD}")
        bob.close()
        for line in ("one", "two", "three"):
            ask(alice, line)
        again = world.client()
        answer = ask(again, f"/login bob {GOOD}")
        assert past(answer) == ["<alice> ONE", "<alice> TWO", "<alice> THREE"]

    @pytest.mark.parametrize("how", ["/register", "/login"])
    def test_nothing_twice(self, how: str) -> None:
        """Who was shown the last lines as a guest is not shown them again as an account."""
        world = World(rate=0, replay=5)
        alice = world.named("alice")
        if how == "/login":
            owner(world).close()
        ask(alice, "one")
        client = world.client()
        text = client.received().decode()
        if how == "/login":
            text += ask(client, f"/login bob {GOOD}")
        else:
            text += ask(client, "/nick bob") + ask(client, f"/register {GOOD}")
        assert past(text).count("<alice> ONE") == 1

    def test_the_same_room_again(self) -> None:
        """Joining the room one is in shows nothing again."""
        world = World(rate=0, replay=5)
        alice = world.named("alice")
        ask(alice, "one")
        for client in (world.client(), owner(world)):
            client.received()
            assert past(ask(client, "/join lobby")) == []


class TestPrivate:
    """Private messages to an account that is not here."""

    def test_stored_and_said_so(self, world: World) -> None:
        """The sender is told that it will be read later; then it is, once."""
        alice = world.named("alice")
        owner(world).close()
        assert ask(alice, "/msg BOB first").endswith("[to bob] first\n")
        answer = ask(alice, "/msg bob second")
        assert answer == ("-> bob is not here, and will read it on coming back\n[to bob] second\n")
        bob = world.client()
        answer = back(world, client=bob)
        assert past(answer) == ["[alice] first", "[alice] second"]
        assert count(answer) == ["2 private messages"]
        bob.close()
        assert back(world) == "-> you are logged in as bob\n"

    def test_one(self, world: World) -> None:
        """One is one."""
        alice = world.named("alice")
        owner(world).close()
        ask(alice, "/msg bob psst")
        assert count(back(world)) == ["1 private message"]

    def test_the_room_and_the_inbox(self, world: World) -> None:
        """Both are told of, each for itself."""
        alice = world.named("alice")
        owner(world).close()
        ask(alice, "/msg bob psst")
        ask(alice, "aloud")
        assert sorted(count(back(world))) == ["1 line", "1 private message"]

    def test_can_be_answered(self, world: World) -> None:
        """`/reply` goes to whoever wrote last, whether they are here or not."""
        alice = owner(world, "alice")
        owner(world).close()
        ask(alice, "/msg bob psst")
        bob = world.client()
        back(world, client=bob)
        assert ask(bob, "/reply here") == "[to alice] here\n"
        alice.close()
        assert ask(bob, "/reply later").startswith("-> alice is not here, and will read it")
        assert past(back(world, "alice"))[-1] == "[bob] later"

    def test_that_cannot_be_stored(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody is told that a message will be read which the store has refused."""
        alice = world.named("alice")
        owner(world).close()

        def refuse(drafts: Sequence[Draft]) -> None:
            error = StoreError("the disk is full")
            world.clock.callLater(0, world.factory.hub.refused, drafts, error)

        monkeypatch.setattr(world.store.log, "append", refuse)
        assert ask(alice, "/msg bob psst") == "! your line was not sent: the disk is full\n"

    def test_nobody_else_reads_them(self, world: World) -> None:
        """Not in the room, not in its history, not found by searching."""
        alice, eve = world.named("alice"), world.named("eve")
        owner(world).close()
        ask(alice, "/msg bob secretword")
        for line in ("/history 100", "/search secretword", "/join @bob", "/join bob"):
            answer = ask(eve, line)
            assert "[alice]" not in answer
            assert "secretword" not in answer

    def test_to_nobody(self, world: World) -> None:
        """What has no account cannot be kept for it."""
        alice = world.named("alice")
        assert ask(alice, "/msg nobody-x psst") == "! nobody here is called nobody-x\n"

    def test_ignored_ones(self, world: World) -> None:
        """Are not shown."""
        alice, eve = world.named("alice"), world.named("eve")
        owner(world).close()
        ask(eve, "/msg bob noise")
        ask(alice, "/msg bob psst")
        again = world.client()
        ask(again, "/ignore eve")
        answer = back(world, client=again)
        assert [line for line in past(answer) if line.startswith("[")] == ["[alice] psst"]
        assert "1 private message" in count(answer)

    def test_unregistering_removes_them(self, world: World) -> None:
        """A later owner of the nick reads nothing of it, nor what was on its way."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "/msg bob read already")
        ask(bob, "/logout")
        ask(alice, "/msg bob not read yet")
        ask(bob, f"/login bob {GOOD}")
        ask(bob, f"/unregister {GOOD}")
        bob.close()
        later = owner(world)
        text = later.received().decode()
        later.close()
        text += back(world)
        assert "read" not in text

    def test_a_later_guest_has_another_inbox(self, world: World) -> None:
        """What was written to a guest goes with it."""
        alice, guest = world.named("alice"), world.named("guest")
        ask(alice, "/msg guest psst")
        assert guest.received() == b"[alice] psst\n"
        guest.close()
        later = world.named("guest")
        assert "psst" not in ask(later, "/history 100")
        ask(later, f"/register {GOOD}")
        later.close()
        assert "psst" not in back(world, "guest")


class TestStuck:
    """A reader that took nothing any more when it went."""

    def test_gets_all_that_it_had_not_taken(self, world: World) -> None:
        """Everything since its outbox got stuck, never less."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "taken")
        assert b"TAKEN" in bob.received()
        bob.stop_reading()
        for number in range(5):
            ask(alice, f"line {number}")
        ask(alice, "/msg bob psst")
        taken = bob.received()
        bob.reset()
        assert taken == b""
        answer = back(world)
        assert past(answer)[-6:] == [f"<alice> LINE {number}" for number in range(5)] + [
            "[alice] psst"
        ]
        assert "<alice> TAKEN" not in past(answer)

    def test_far_behind(self, world: World) -> None:
        """Also what was never put into its outbox, which catches up from the log."""
        alice, bob = world.named("alice"), owner(world)
        bob.stop_reading()
        alice.send(b"".join(b"%03d " % number + b"x" * 1000 + b"\n" for number in range(200)))
        world.turn(200)
        bob.reset()
        assert [line[:11] for line in past(back(world))] == [
            f"<alice> {number:03d}" for number in range(200)
        ]

    def test_that_goes_on(self, world: World) -> None:
        """One that takes it all after a while is shown nothing again."""
        alice, bob = world.named("alice"), owner(world)
        bob.stop_reading()
        for number in range(5):
            ask(alice, f"line {number}")
        bob.read_on()
        assert bob.received().count(b"<alice> LINE") == 5
        bob.close()
        assert past(back(world)) == []

    def test_when_it_logs_in(self, world: World) -> None:
        """One that was stuck already as a guest, and logs in then, loses nothing either."""
        alice = world.named("alice")
        owner(world).close()
        guest = world.client()
        guest.stop_reading()
        guest.send(f"/login bob {GOOD}\n".encode())
        for number in range(5):
            ask(alice, f"line {number}")
        assert guest.received() == b""
        guest.reset()
        assert past(back(world))[-5:] == [f"<alice> LINE {number}" for number in range(5)]

    def test_when_it_registers(self, world: World) -> None:
        """The same on registering, for the room and for private messages."""
        alice, guest = world.named("alice"), world.named("bob")
        guest.stop_reading()
        guest.send(f"/register {GOOD}\n".encode())
        ask(alice, "hello")
        ask(alice, "/msg bob psst")
        assert guest.received() == b""
        guest.reset()
        assert {"<alice> HELLO", "[alice] psst"} <= {*past(back(world))}

    def test_when_it_joins_a_room(self, world: World) -> None:
        """Nor what is said in a room that it went to while stuck."""
        alice, bob = world.named("alice"), owner(world)
        ask(alice, "/join dev")
        ask(bob, "/join dev")
        ask(bob, "/join lobby")
        bob.received()
        bob.stop_reading()
        bob.send(b"/join dev\n")
        for number in range(5):
            ask(alice, f"line {number}")
        assert bob.received() == b""
        bob.reset()
        again = world.client()
        back(world, client=again)
        answer = ask(again, "/join dev")
        assert [line for line in past(answer) if "LINE" in line] == [
            f"<alice> LINE {number}" for number in range(5)
        ]

    @pytest.mark.parametrize(("some", "again_at_most"), [(1, 600), (500, 345)])
    @pytest.mark.parametrize("end", ["reset", "close"])
    def test_a_replay_that_is_interrupted(
        self,
        world: World,
        monkeypatch: pytest.MonkeyPatch,
        end: str,
        some: int,
        again_at_most: int,
    ) -> None:
        """Who goes while the past is being shown is shown the rest; no line is missing, and no page
        that was wholly taken comes again.
        """
        alice = world.named("alice")
        owner(world).close()
        lines = [f"<alice> {number:04d} " + "X" * 500 for number in range(600)]
        alice.send(b"".join(b"%04d " % number + b"x" * 500 + b"\n" for number in range(600)))
        world.turn(700)
        first = world.client()
        write = first.transport.write

        def write_until_full(data: bytes) -> None:
            write(data)
            first.stop_reading()

        monkeypatch.setattr(first.transport, "write", write_until_full)
        first.send(f"/login bob {GOOD}\n".encode())
        taken = past(first.received().decode())
        while len(taken) < some:
            first.read_on()
            taken += past(first.received().decode())
        assert taken == lines[: len(taken)]
        assert len(taken) < 600
        getattr(first, end)()
        rest = past(back(world))
        assert rest == lines[-len(rest) :]
        assert 600 - len(taken) <= len(rest) <= again_at_most


class TestHistoryOff:
    """``--history off``: nothing is kept, so nothing can be shown."""

    def test_is_told_in_words(self) -> None:
        """`/history` and `/search` are refused, and nobody can be written to who is not here."""
        world = World(rate=0, history="off")
        alice = world.named("alice")
        owner(world).close()
        off = "! history is off on this server: nothing is kept\n"
        assert ask(alice, "/history") == off
        assert ask(alice, "/search hello") == off
        assert ask(alice, "/msg bob psst") == "! bob is not here, and nothing is kept\n"
        ask(alice, "one")
        assert back(world) == "-> you are logged in as bob\n"

    def test_the_rest_works(self) -> None:
        """Rooms, private messages and topics do."""
        world = World(rate=0, history="off")
        alice, bob = world.named("alice"), owner(world)
        assert ask(alice, "/msg bob psst") == "[to bob] psst\n"
        assert bob.received().endswith(b"[alice] psst\n")
        assert ask(bob, "/reply yes") == "[to alice] yes\n"


class Kept(World):
    """A server in memory whose store is a file, on the real reactor."""

    def __init__(self, path: Path, **settings: Any) -> None:
        """Open the store at `path`."""
        self.path = path
        self.clock: Any = reactor
        self.time = START
        self.is_stopped = False
        file = StoreFile(str(path))
        file.prepare()
        chosen = Settings(store=str(path), **{"rate": 0, **settings})
        keep = Keep() if chosen.history == "on" else None
        self.store = sqlite_store(reactor, lambda: self.time, file, keep=keep)
        self.factory = ChatFactory(
            chosen,
            clock=self.clock,
            now=lambda: self.time,
            store=self.store,
            threads=NoThreads(),
            hasher=Hasher(time_cost=1, memory_cost=8),
        )
        self.factory.open()
        self.clients: list[Client] = []

    def turn(self, turns: int = 1) -> None:
        """Let the transports do what they have put off; the reactor turns by itself."""
        for client in self.clients:
            client.pump()
            client.finish_closing()

    async def settle(self) -> None:
        """Wait until all that was published is delivered, and the store has nothing left to do."""
        await self.factory.hub.settled()
        await self.store.directory.topic("lobby")  # comes after all that was asked for before
        self.turn()

    async def ask(self, client: Client, line: str) -> str:
        """Send one line and return what has come when all of it is done."""
        client.received()
        client.send(line.encode() + b"\n" + DONE)
        text = ""
        while client.is_connected and TOLD not in text:  # what others do may come after it
            await turn()
            self.turn()
            text += client.received().decode()
        await self.settle()
        return text.replace(TOLD, "") + client.received().decode()

    async def come(self, nick: str = "", *, registers: bool = False) -> Client:
        """Connect a client, with a nick, or an account of its own."""
        client = self.client()
        await self.ask(client, "/away")
        if nick:
            await self.ask(client, f"/nick {nick}")
        if registers:
            assert "is yours" in await self.ask(client, f"/register {GOOD}")
        return client

    async def back(self, nick: str = "bob", client: Client | None = None) -> str:
        """Log in from a new client, or from `client`."""
        return await self.ask(client or await self.come(), f"/login {nick} {GOOD}")

    async def stop(self) -> None:
        """Stop in order."""
        if self.is_stopped:
            return
        self.is_stopped = True
        draining = self.factory.drain()
        while self.factory.protocols:
            self.turn()
            await turn()
        await draining

    def rows(self, query: str) -> list[Any]:
        """Ask the file, beside the server."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def bytes(self) -> bytes:
        """Return all that is in the files of the store."""
        return b"".join(path.read_bytes() for path in self.path.parent.glob(self.path.name + "*"))


OpenKept = Callable[..., Kept]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[OpenKept]:
    """Give a function that starts a server in a folder; after a first one it finds its store.

    With ``cut_off`` it finds what the disk holds at this moment, as after a `kill -9` of the last.
    """
    servers: list[Kept] = []

    def start(*, cut_off: bool = False, **settings: Any) -> Kept:
        folder = tmp_path / str(len(servers))
        folder.mkdir()
        if servers:
            for path in sorted(servers[-1].path.parent.glob("chat.db*")):
                if path.suffix in (".db", ".db-wal"):
                    shutil.copy(path, folder)
        assert cut_off or all(server.is_stopped for server in servers)
        servers.append(Kept(folder / "chat.db", **settings))
        return servers[-1]

    yield start
    for server in servers:
        pytest_twisted.blockon(Deferred.fromCoroutine(server.stop()))


class TestKept:
    """The same from a file: what was missed is there after the server was cut off."""

    @in_reactor
    async def test_the_count_of_many(self, kept: OpenKept) -> None:
        """It is of all that is shown, and not of one's own coming."""
        world = kept()
        alice = await world.come("alice")
        bob = await world.come("bob", registers=True)
        bob.close()
        await world.settle()
        await world.ask(alice, "\n".join(f"line {number}" for number in range(300)))
        answer = await world.back()
        assert past(answer) == [f"<alice> LINE {number}" for number in range(300)]
        assert count(answer) == ["300 lines"]

    @in_reactor
    async def test_after_a_restart(self, kept: OpenKept) -> None:
        """Exactly what was missed before and after it, once."""
        first = kept()
        alice = await first.come("alice")
        bob = await first.come("bob", registers=True)
        await first.ask(alice, "seen")
        bob.close()
        await first.ask(alice, "one")
        await first.ask(alice, "/msg bob psst")
        alice.close()
        await first.stop()
        second = kept()
        alice = await second.come("alice")
        await second.ask(alice, "two")
        answer = await second.back()
        assert [line for line in past(answer) if line.startswith(("<", "["))] == [
            "<alice> ONE",
            "<alice> TWO",
            "[alice] psst",
        ]
        assert "1 private message" in count(answer)
        for client in second.clients:
            client.close()
        await second.stop()
        third = kept()
        text = await third.back()
        assert "ONE" not in text
        assert "TWO" not in text
        assert "psst" not in text

    @in_reactor
    async def test_cut_off_before_they_come_back(self, kept: OpenKept) -> None:
        """What the sender has been told to be sent is read, exactly once."""
        first = kept()
        alice = await first.come("alice")
        bob = await first.come("bob", registers=True)
        bob.close()
        await first.settle()
        assert (await first.ask(alice, "/msg bob psst")).endswith("[to bob] psst\n")
        second = kept(cut_off=True)
        assert past(await second.back()).count("[alice] psst") == 1
        third = kept(cut_off=True)
        assert "psst" not in await third.back()

    @in_reactor
    async def test_cut_off_while_they_are_here(self, kept: OpenKept) -> None:
        """What was delivered live, and then something else was stored, is not shown again."""
        first = kept()
        alice = await first.come("alice")
        bob = await first.come("bob", registers=True)
        await first.ask(alice, "/msg bob psst")
        await first.ask(alice, "one")
        await first.ask(alice, "/join dev")
        assert b"[alice] psst\n<alice> ONE\n" in bob.received()
        second = kept(cut_off=True)
        answer = await second.back()
        assert "psst" not in answer
        assert "ONE" not in answer

    @in_reactor
    async def test_cut_off_while_stuck(self, kept: OpenKept) -> None:
        """Who had fallen behind when the server was cut off is shown the rest: never less."""
        first = kept(drain=0)
        alice = await first.come("alice")
        bob = await first.come("bob", registers=True)
        await first.ask(alice, "taken")
        bob.received()
        bob.stop_reading()
        for _ in range(3):
            await first.ask(alice, "\n".join(["x" * 1000] * 60))
        await first.ask(alice, "the last one")
        second = kept(cut_off=True)
        shown = past(await second.back())
        lines = [line for line in shown if line.startswith("<alice> X")]
        assert "<alice> THE LAST ONE" in shown
        assert len(lines) == 180

    @in_reactor
    async def test_guests_leave_nothing(self, kept: OpenKept) -> None:
        """Private messages to a guest are not in the file once it has left."""
        world = kept()
        alice, guest = await world.come("alice"), await world.come("guest")
        await world.ask(alice, "/msg guest psst")
        assert world.rows("SELECT text FROM events WHERE kind = 'private'") == [("psst",)]
        guest.close()
        while world.rows("SELECT text FROM events WHERE kind = 'private'"):
            await turn()

    @in_reactor
    async def test_guests_that_leave_while_it_comes(self, kept: OpenKept) -> None:
        """Nor is what was on its way when it left."""
        world = kept()
        alice, guest = await world.come("alice"), await world.come("guest")
        alice.send(b"/msg guest psst\n")
        guest.close()
        await world.settle()
        await world.settle()
        # A room that is to be removed has lost its name.
        assert world.rows("SELECT name FROM rooms WHERE name GLOB '@[0-9]*'") == []

    @in_reactor
    async def test_guests_that_were_cut_off(self, kept: OpenKept) -> None:
        """The server forgets them on its next start; a guest of the same number reads nothing."""
        first = kept()
        alice, guest = await first.come("alice"), await first.come("guest")
        await first.ask(alice, "/msg guest psst")
        number = guest.protocol.session.id
        second = kept(cut_off=True)
        clients = [await second.come(f"guest{index}") for index in range(3)]
        same = next(one for one in clients if one.protocol.session.id == number)
        text = same.received().decode() + await second.ask(same, f"/register {GOOD}")
        await second.ask(same, "/logout")
        text += await second.back(f"guest{number - 1}", same)
        assert "psst" not in text
        # A room that is to be removed has lost its name.
        assert second.rows("SELECT name FROM rooms WHERE name GLOB '@[0-9]*'") == []

    @in_reactor
    async def test_unregistering_removes_them(self, kept: OpenKept) -> None:
        """Private messages are gone from the file, and from a later owner of the nick."""
        world = kept()
        alice, bob = await world.come("alice"), await world.come("bob", registers=True)
        await world.ask(alice, "/msg bob psst")
        assert b"[alice] psst" in bob.received()
        await world.ask(bob, f"/unregister {GOOD}")
        while world.rows("SELECT text FROM events WHERE kind = 'private'"):
            await turn()
        assert world.rows("SELECT * FROM positions WHERE account = 'bob'") == []
        bob.close()
        await world.settle()
        later = await world.come("bob", registers=True)
        later.close()
        await world.settle()
        assert "psst" not in await world.back()

    @in_reactor
    async def test_history_off(self, kept: OpenKept) -> None:
        """Nothing of what is said is in the file, in any way to say it; accounts are."""
        world = kept(history="off")
        alice, bob = await world.come("alice"), await world.come("bob", registers=True)
        for line in ("zebra-one", "/me zebra-two", "/msg bob zebra-three", "/quit zebra-four"):
            await world.ask(alice, line)
        seen = bob.received().lower()
        for word in (b"zebra-one", b"zebra-two", b"zebra-three", b"zebra-four"):
            assert word in seen
        assert b"zebra" not in world.bytes().lower()
        bob.close()
        await world.stop()
        assert b"bob" in world.bytes()
        assert b"zebra" not in world.bytes().lower()
        again = kept(history="off")
        assert await again.back() == "-> you are logged in as bob\n"

    @in_reactor
    async def test_passwords_are_not_in_the_file(self, kept: OpenKept) -> None:
        """Nor anything that was sent with them."""
        world = kept()
        alice = await world.come("alice", registers=True)
        for line in (
            f" /login alice {GOOD}",
            f"//register {GOOD}",
            f"/password {GOOD} {GOOD}-2",
            f"/login bob {GOOD}",
        ):
            await world.ask(alice, line)
        await world.ask(alice, "hello")
        alice.close()
        await world.stop()
        assert b"HELLO" in world.bytes()
        assert GOOD.encode() not in world.bytes().lower()
        assert b"$argon2id$" in world.bytes()
