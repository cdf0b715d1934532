"""Moderation: whom a subject means, what is in force, and what is kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from chatproto import moderation
from chatproto.address import LOCAL, Peer, peer
from chatproto.errors import ChatError, CommandError, StoreError
from chatproto.model import Restriction
from chatproto.moderation import BAN, MUTE, Moderation, in_words, subject_of
from chatproto.stores import Store
from chatproto.stores.memory import MemoryDirectory, memory_store
from chatproto.testing import START, Client, World

from .stores.conftest import OpenStore, in_reactor, open_store, sqlite

__all__ = ["open_store"]

GOOD = "correct-horse"


def at(host: str) -> Peer:
    """Return the peer at an address."""
    return peer(IPv4Address("TCP", host, 40_000))


def now(working: Any) -> Any:
    """Return what something that has nothing to wait for comes to."""
    results: list[Any] = []
    waiting = working if isinstance(working, Deferred) else Deferred.fromCoroutine(working)
    waiting.addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def ask(client: Client, line: str) -> str:
    """Send one line and return what comes back."""
    client.received()
    client.send(line.encode() + b"\n")
    return client.received().decode()


class Court:
    """The restrictions of a server, without a server."""

    def __init__(self) -> None:
        """Forbid nothing yet."""
        self.clock = Clock()
        self.clock.rightNow = START
        self.directory = MemoryDirectory()
        self.moderation = Moderation(self.directory, self.clock.seconds)

    def forbid(self, kind: str, whom: str, seconds: float = 0, why: str = "") -> Restriction:
        """Ban or mute somebody."""
        found: Restriction = now(self.moderation.add(kind, subject_of(whom), seconds, "root1", why))
        return found


class TestSubjects:
    """Whom an operator means."""

    @pytest.mark.parametrize(
        ("text", "subject"),
        [
            ("Eve", "eve"),
            ("e", "e"),
            ("cafe", "cafe"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.7/24", "192.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::7", "2001:db8::7/128"),
            ("2001:db8::7/64", "2001:db8::/64"),
            ("cafe::1", "cafe::1/128"),
            ("::/0", "::/0"),
        ],
    )
    def test_of(self, text: str, subject: str) -> None:
        """A network in its own form, or a folded nick."""
        assert subject_of(text) == subject

    @pytest.mark.parametrize("text", ["", "1", "1.2.3", "192.0.2.7/33", ":", "a b", "me", "@7"])
    def test_nothing(self, text: str) -> None:
        """What is neither is refused in words."""
        with pytest.raises(ChatError) as error:
            subject_of(text)
        assert error.value.sentence


class TestInForce:
    """What is forbidden to whom."""

    def test_by_nick(self) -> None:
        """In any case, and each kind for itself."""
        court = Court()
        ban = court.forbid(BAN, "Eve", why="noise")
        assert ban == Restriction(BAN, "eve", 0.0, "root1", "noise", START)
        assert court.moderation.ban_of(nick="EVE") == ban
        assert court.moderation.ban_of(LOCAL, "eve") == ban
        assert court.moderation.ban_of(nick="eva") is None
        assert court.moderation.ban_of() is None
        assert court.moderation.mute_of(LOCAL, "eve") is None

    def test_by_address(self) -> None:
        """The addresses of a network, of its own family."""
        court = Court()
        v4, v6 = court.forbid(MUTE, "192.0.2.0/24"), court.forbid(MUTE, "2001:db8::/64")
        mute_of = court.moderation.mute_of
        assert mute_of(at("192.0.2.255"), "") == v4
        assert mute_of(at("::ffff:192.0.2.1"), "eve") == v4
        assert mute_of(at("2001:db8::ffff"), "") == v6
        assert mute_of(at("192.0.3.0"), "") is None
        assert mute_of(at("2001:db8:0:1::"), "") is None
        assert mute_of(LOCAL, "") is None
        assert court.moderation.ban_of(at("192.0.2.1")) is None

    def test_its_time(self) -> None:
        """To the second; one whose time is over hides no other."""
        court = Court()
        short = court.forbid(BAN, "192.0.2.0/24", 60)
        long = court.forbid(BAN, "192.0.0.0/16", 120)
        assert (short.until, long.until) == (START + 60, START + 120)
        court.clock.advance(59)
        assert court.moderation.ban_of(at("192.0.2.1")) == short
        court.clock.advance(1)
        assert court.moderation.is_over(short)
        assert court.moderation.ban_of(at("192.0.2.1")) == long
        assert [*court.moderation.listed()] == [long]
        court.clock.advance(60)
        assert court.moderation.ban_of(at("192.0.2.1")) is None
        assert [*court.moderation.listed()] == []

    def test_for_ever(self) -> None:
        """It is never over."""
        court = Court()
        ban = court.forbid(BAN, "eve")
        court.clock.advance(1e9)
        assert court.moderation.ban_of(nick="eve") == ban

    def test_lifted(self) -> None:
        """The other kind stays."""
        court = Court()
        court.forbid(BAN, "192.0.2.7")
        mute = court.forbid(MUTE, "192.0.2.7")
        assert now(court.moderation.lift(BAN, "192.0.2.7/32"))
        assert not now(court.moderation.lift(BAN, "192.0.2.7/32"))
        assert court.moderation.ban_of(at("192.0.2.7")) is None
        assert court.moderation.mute_of(at("192.0.2.7"), "") == mute

    def test_read_from_the_directory(self) -> None:
        """What was kept is in force once it is loaded, and what is over is not."""
        court = Court()
        court.forbid(BAN, "eve", 60)
        ban = court.forbid(BAN, "192.0.2.0/24")
        court.clock.advance(61)
        later = Moderation(court.directory, court.clock.seconds)
        assert later.ban_of(at("192.0.2.7")) is None
        now(later.load())
        assert later.ban_of(at("192.0.2.7")) == ban
        assert later.ban_of(nick="eve") is None

    def test_what_cannot_be_kept_is_not_in_force(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or it would be gone with the next start, and nobody would know."""
        court = Court()

        def fails(restriction: Restriction) -> Deferred[None]:
            raise StoreError("the disk is full")

        monkeypatch.setattr(court.directory, "add_restriction", fails)
        with pytest.raises(StoreError):
            court.forbid(BAN, "eve")
        assert court.moderation.ban_of(nick="eve") is None

    def test_what_cannot_be_lifted_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A ban that is still in the file is in force, as it will be after a start."""
        court = Court()
        ban = court.forbid(BAN, "eve")

        def fails(kind: str, subject: str) -> Deferred[bool]:
            raise StoreError("the disk is full")

        monkeypatch.setattr(court.directory, "remove_restriction", fails)
        with pytest.raises(StoreError):
            now(court.moderation.lift(BAN, "eve"))
        assert court.moderation.ban_of(nick="eve") == ban


@pytest.mark.parametrize(
    ("until", "why", "words"),
    [
        (0.0, "", ""),
        (0.0, "too loud", ": too loud"),
        (START, "", " until 2023-11-14 22:13"),
        (START, "too loud", " until 2023-11-14 22:13: too loud"),
    ],
)
def test_in_words(until: float, why: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until when, in the server's own time, and why."""
    monkeypatch.setattr(time, "localtime", time.gmtime)
    assert in_words(Restriction(BAN, "eve", until, "root1", why, START)) == words


@in_reactor
async def test_kept_in_a_file(tmp_path: Path, open_store: OpenStore) -> None:
    """After a restart the same is in force, with who, why and until when."""
    path = tmp_path / "chat.db"
    first = open_store(sqlite(path))
    moderation = Moderation(first.directory, lambda: START)
    ban = await moderation.add(BAN, "2001:db8::/64", 600, "root1", "too {loud}")
    mute = await moderation.add(MUTE, "eve", 0, "root1", "")
    await moderation.add(BAN, "dora", 0, "root1", "")
    assert await moderation.lift(BAN, "dora")
    await first.log.stop()
    second = open_store(sqlite(path))
    again = Moderation(second.directory, lambda: START + 599)
    await again.load()
    assert [*again.listed()] == [ban, mute]
    assert again.ban_of(at("2001:db8::1")) == ban
    over = Moderation(second.directory, lambda: START + 600)
    await over.load()
    assert [*over.listed()] == [mute]


class TestAfterAStart:
    """A server that finds restrictions in its store."""

    def world(self, *restrictions: Restriction) -> World:
        """Return a server whose directory has these."""

        def make_store(clock: Clock, seconds: Any) -> Store:
            store = memory_store(clock, seconds)
            for restriction in restrictions:
                store.directory.add_restriction(restriction)
            return store

        return World(make_store=make_store, rate=0)

    def test_bans(self) -> None:
        """Nobody comes in who is banned, by address or by nick."""
        world = self.world(
            Restriction(BAN, "192.0.2.0/24", 0.0, "root1", "spam", START),
            Restriction(BAN, "eve", START + 60, "root1", "", START),
        )
        late = world.client(host="192.0.2.7")
        assert late.received() == b"! you are banned: spam\n"
        assert not late.is_connected
        bob = world.client()
        assert ask(bob, "/nick eve").startswith("! eve is banned until ")
        world.wait(60)
        assert ask(bob, "/nick eve") == "-> you are now eve\n"

    def test_mutes(self) -> None:
        """Who is muted says nothing."""
        world = self.world(
            Restriction(MUTE, "192.0.2.7/32", 0.0, "root1", "", START),
            Restriction(MUTE, "eve", 0.0, "root1", "noise", START),
        )
        assert ask(world.client(host="192.0.2.7"), "hello") == "! you are muted\n"
        eve = world.client()
        assert ask(eve, "hello") == ""
        ask(eve, "/nick EVE")
        assert ask(eve, "hello") == "! you are muted: noise\n"


def test_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it; what is over, or only takes another's place, does not count."""
    monkeypatch.setattr(moderation, "MOST", 2)
    court = Court()
    court.forbid(BAN, "eve", 60)
    court.forbid(BAN, "192.0.2.7")
    with pytest.raises(CommandError, match=r"^2 bans and mutes are in force: lift some first$"):
        court.forbid(MUTE, "dora")
    court.forbid(BAN, "192.0.2.7", why="another reason")
    court.clock.advance(60)
    court.forbid(MUTE, "dora")
