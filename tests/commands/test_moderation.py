"""The commands of operators: right use, wrong use, not allowed; each is logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from chatproto import moderation as rules
from chatproto.testing import Client, World

GOOD = "correct-horse"

OPERATORS = ["op", "deop", "kick", "ban", "unban", "bans", "mute", "unmute", "announce"]


def ask(client: Client, line: str) -> str:
    """Send one line and return what comes back."""
    client.received()
    client.send(line.encode() + b"\n")
    return client.received().decode()


class People:
    """A world with an operator, a user with an account, and two guests."""

    def __init__(self) -> None:
        """Let all of them in; nothing is left to read."""
        self.world = World(rate=0, operator=("root1",), plaintext_login=True)
        self.root, self.alice = self.named("root1"), self.named("alice")
        for client in (self.root, self.alice):
            assert "is yours" in ask(client, f"/register {GOOD}")
        self.bob, self.eve = self.named("bob"), self.named("eve", "192.0.2.7")
        self.forget()

    def named(self, nick: str, host: str = "127.0.0.1") -> Client:
        """Connect a client with a nick."""
        client = self.world.client(host=host)
        assert ask(client, f"/nick {nick}") == f"-> you are now {nick}\n"
        return client

    def forget(self) -> None:
        """Leave nothing to read."""
        for client in self.world.clients:
            client.received()


@pytest.fixture
def people() -> People:
    """An operator, alice with an account, bob and eve."""
    return People()


@pytest.fixture
def notes() -> Iterator[Callable[[], list[str]]]:
    """Give a function that returns what was logged of operators."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if event.get("event") == "moderation":
            events.append(event)

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield lambda: [formatEvent(event) for event in events]
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))


# All of them.

RIGHT_USES = [
    ("/op alice", "-> alice is an operator now\n", "made alice an operator"),
    ("/deop alice", "-> alice is no operator now\n", "made alice no operator"),
    ("/kick eve too loud", "-> eve is put out\n", "put eve out of lobby: too loud"),
    ("/ban eve", "-> eve is banned\n", "banned eve"),
    ("/mute eve forever noise", "-> eve is muted\n", "muted eve: noise"),
    ("/announce tea is ready", "-> announced in 1 room\n", "announced something"),
    ("/bans", "-> nobody is banned or muted\n", ""),
]


@pytest.mark.parametrize(("line", "answer", "note"), RIGHT_USES)
def test_right_use(
    people: People, notes: Callable[[], list[str]], line: str, answer: str, note: str
) -> None:
    """An operator is answered, and it is noted who did what."""
    assert answer in ask(people.root, line)
    assert notes() == ([f"operator root1 {note}"] if note else [])


@pytest.mark.parametrize("name", ["unban", "unmute"])
def test_lifting(people: People, notes: Callable[[], list[str]], name: str) -> None:
    """What was forbidden is allowed again, and it is noted."""
    kind = name.removeprefix("un")
    participle = "banned" if kind == "ban" else "muted"
    ask(people.root, f"/{kind} eve")
    assert ask(people.root, f"/{name} EVE") == f"-> eve is no longer {participle}\n"
    assert ask(people.root, f"/{name} eve") == f"! eve is not {participle}\n"
    assert ask(people.root, "/bans") == "-> nobody is banned or muted\n"
    assert len(notes()) == 2
    assert notes()[1].startswith("operator root1 ")
    assert "eve" in notes()[1]


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("/op", "/op NICK"),
        ("/op alice bob", "/op NICK"),
        ("/deop", "/deop NICK"),
        ("/deop alice bob", "/deop NICK"),
        ("/kick", "/kick NICK [WHY]"),
        ("/ban", "/ban NICK|ADDRESS[/PREFIX] [10m|forever] [WHY]"),
        ("/mute", "/mute NICK|ADDRESS[/PREFIX] [10m|forever] [WHY]"),
        ("/unban", "/unban NICK|ADDRESS[/PREFIX]"),
        ("/unban eve bob", "/unban NICK|ADDRESS[/PREFIX]"),
        ("/unmute", "/unmute NICK|ADDRESS[/PREFIX]"),
        ("/unmute eve bob", "/unmute NICK|ADDRESS[/PREFIX]"),
        ("/bans eve", "/bans"),
        ("/announce", "/announce WORDS"),
    ],
)
def test_wrong_use(people: People, notes: Callable[[], list[str]], line: str, use: str) -> None:
    """The right use is shown, and nothing was done."""
    assert ask(people.root, line) == f"! use: {use}\n"
    assert notes() == []


@pytest.mark.parametrize(
    "line",
    [
        *("/op bob", "/deop root1", "/kick bob", "/ban bob", "/unban bob", "/bans"),
        *("/mute bob 10m", "/unmute bob", "/announce hello", "/ban 192.0.2.7", "/kick nobody"),
    ],
)
def test_not_allowed(people: People, notes: Callable[[], list[str]], line: str) -> None:
    """Guests, users and who has no nick are told whose command that is; nothing happens."""
    name = line.split()[0]
    for client in (people.bob, people.alice, people.world.client()):
        assert ask(client, line) == f"! {name} is for operators\n"
    people.root.received()
    assert ask(people.root, "/bans") == "-> nobody is banned or muted\n"
    assert notes() == []
    assert people.bob.is_connected
    assert b"announces" not in people.bob.received()


@pytest.mark.parametrize("name", OPERATORS)
def test_help(people: People, name: str) -> None:
    """Every command tells what it does."""
    assert ask(people.bob, f"/help {name}").startswith(f"-> /{name}")


@pytest.mark.parametrize("line", ["/kick eve", "/ban eve", "/mute eve", "/ban eve 10m"])
def test_a_reason_has_a_bound(people: People, line: str) -> None:
    """It has to fit into a line; nothing is done with one that does not."""
    assert ask(people.root, f"{line} {'x' * 391}") == (
        "! a reason has at most 390 characters, this has 391\n"
    )
    assert people.eve.is_connected
    assert ask(people.root, "/bans") == "-> nobody is banned or muted\n"
    assert "! " not in ask(people.root, f"{line} {'x' * 390}")


def test_a_reason_that_is_a_trap(people: People, notes: Callable[[], list[str]]) -> None:
    """Escape sequences are taken out, and what means something to a formatter is a text."""
    why = "\x1b[31m{by} %s \x07{what!r}"
    ask(people.root, f"/kick eve {why}")
    assert notes() == ["operator root1 put eve out of lobby: {by} %s {what!r}"]
    assert people.eve.received() == b"! you were put out by root1: {by} %s {what!r}\n"


class TestOperators:
    """/op and /deop"""

    def test_at_once(self, people: People) -> None:
        """Who is here is told, and may from now on."""
        ask(people.root, "/op ALICE")
        assert people.alice.received() == b"-> you are an operator now (root1)\n"
        assert ask(people.alice, "/bans") == "-> nobody is banned or muted\n"
        assert "alice, operator is in lobby" in ask(people.bob, "/whois alice")
        ask(people.root, "/deop alice")
        assert people.alice.received() == b"-> you are no operator any more (root1)\n"
        assert ask(people.alice, "/bans") == "! /bans is for operators\n"

    def test_when_they_come_back(self, people: People) -> None:
        """It is the account that is an operator's."""
        people.alice.close()
        ask(people.root, "/op alice")
        alice = people.world.client()
        ask(alice, f"/login alice {GOOD}")
        assert ask(alice, "/bans") == "-> nobody is banned or muted\n"

    def test_by_one_who_was_made_one(self, people: People) -> None:
        """Operators make operators."""
        bob = people.bob
        ask(bob, f"/register {GOOD}")
        ask(people.root, "/op alice")
        assert ask(people.alice, "/op bob") == "-> bob is an operator now\n"
        assert ask(people.alice, "/deop alice") == "-> alice is no operator now\n"
        assert ask(people.alice, "/op alice") == "! /op is for operators\n"

    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("/op bob", "bob has no account"),
            ("/op nobody", "nobody has no account"),
            ("/deop bob", "bob has no account"),
            ("/deop root1", "root1 is an operator by the server's settings"),
        ],
    )
    def test_cannot_be(self, people: People, line: str, error: str) -> None:
        """Only accounts can be, and those of the settings stay."""
        assert ask(people.root, line) == f"! {error}\n"


class TestKick:
    """/kick"""

    def test_from_the_lobby(self, people: People) -> None:
        """It is the end of the connection."""
        assert ask(people.root, "/kick EVE too loud") == (
            "-> eve is put out\n* eve was put out by root1 (3 here): too loud\n"
        )
        assert people.eve.received() == b"! you were put out by root1: too loud\n"
        assert not people.eve.is_connected
        assert people.bob.received() == b"* eve was put out by root1 (3 here): too loud\n"
        assert "eve" not in ask(people.bob, "/list")
        assert people.named("eve").is_connected  # it is no ban

    def test_from_a_room(self, people: People) -> None:
        """They are in the lobby then."""
        ask(people.eve, "/join dev")
        ask(people.bob, "/join dev")
        people.forget()
        ask(people.root, "/kick eve")
        assert people.bob.received() == b"* eve was put out by root1 (1 here)\n"
        assert people.alice.received() == b"* eve joined (3 here)\n"
        assert people.eve.received() == b"! you were put out by root1\n"
        assert ask(people.eve, "hello") == ""
        assert people.alice.received() == b"<eve> HELLO\n"
        assert people.bob.received() == b""

    def test_an_account_may_come_back(self, people: People) -> None:
        """Who has an account reads then what happened, once."""
        ask(people.root, "/kick alice")
        again = people.world.client()
        answer = ask(again, f"/login alice {GOOD}")
        assert answer.count("* alice was put out by root1 (3 here)\n") == 1

    @pytest.mark.parametrize(
        ("line", "error"),
        [
            ("/kick nobody", "nobody here is called nobody"),
            ("/kick root1", "that is you: /quit ends your connection"),
            ("/kick ROOT1 why", "that is you: /quit ends your connection"),
        ],
    )
    def test_cannot_be(self, people: People, line: str, error: str) -> None:
        """Nobody, and oneself."""
        assert ask(people.root, line) == f"! {error}\n"


class TestBan:
    """/ban and /unban"""

    def test_a_nick(self, people: People) -> None:
        """Who has it is out, and nobody gets it, in any case and with any time."""
        assert ask(people.root, "/ban EVE forever too loud").startswith("-> eve is banned\n")
        assert people.eve.received() == b"! you are banned: too loud\n"
        assert not people.eve.is_connected
        assert people.bob.received() == b"* eve left (3 here)\n"
        assert ask(people.bob, "/nick Eve") == "! Eve is banned: too loud\n"
        assert ask(people.root, "/unban eve") == "-> eve is no longer banned\n"
        assert ask(people.bob, "/nick Eve") == "-> you are now Eve\n"

    def test_an_account(self, people: People) -> None:
        """Its owner cannot log in, whatever nick they came with."""
        ask(people.root, "/ban alice")
        assert not people.alice.is_connected
        bob = people.bob
        assert ask(bob, f"/login alice {GOOD}") == "! alice is banned\n"
        assert bob.is_connected
        assert ask(people.world.client(), f"/login ALICE {GOOD}") == "! alice is banned\n"

    @pytest.mark.parametrize(
        ("subject", "hosts", "others"),
        [
            ("192.0.2.7", ["192.0.2.7"], ["192.0.2.8", "2001:db8::7"]),
            ("192.0.2.0/24", ["192.0.2.1", "192.0.2.255"], ["192.0.3.1"]),
            ("192.0.2.77/24", ["192.0.2.1"], ["192.0.3.1"]),
            ("2001:db8::7", ["2001:db8::7"], ["2001:db8::8", "192.0.2.7"]),
            ("2001:db8:1::/48", ["2001:db8:1:2::3"], ["2001:db8:2::1"]),
            ("192.0.2.7", ["::ffff:192.0.2.7"], ["::ffff:192.0.2.8"]),
            ("::ffff:192.0.2.7", ["192.0.2.7", "::ffff:192.0.2.7"], ["192.0.2.8"]),
        ],
    )
    def test_an_address(
        self, people: People, subject: str, hosts: list[str], others: list[str]
    ) -> None:
        """Those who are here from there are out at once, and new ones are told why at the door."""
        world = people.world
        here = [world.client(host=host) for host in hosts]
        there = [world.client(host=host) for host in others]
        assert " is banned\n" in ask(people.root, f"/ban {subject} 10m spam")
        until = rules.in_words(next(iter(world.factory.hub.moderation.listed())))
        for client in here:
            assert client.received().decode() == f"! you are banned{until}\n"
            assert not client.is_connected
        for host in hosts:
            late = world.client(host=host)
            assert late.received().decode() == f"! you are banned{until}\n"
            assert not late.is_connected
        assert all(client.is_connected for client in there)
        assert all(world.client(host=host).is_connected for host in others)
        world.wait(601)
        assert all(world.client(host=host).is_connected for host in hosts)

    def test_lifted(self, people: People) -> None:
        """A network is lifted by its name, whatever address of it is given."""
        ask(people.root, "/ban 192.0.2.0/24")
        assert ask(people.root, "/unban 192.0.2.7") == "! 192.0.2.7/32 is not banned\n"
        assert ask(people.root, "/unban 192.0.2.9/24") == "-> 192.0.2.0/24 is no longer banned\n"
        assert people.world.client(host="192.0.2.7").is_connected

    @pytest.mark.parametrize(
        ("time", "seconds"), [("1m", 60), ("10m", 600), ("2h", 7200), ("7d", 604800)]
    )
    def test_for_a_time(self, people: People, time: str, seconds: int) -> None:
        """It ends by itself, by the clock."""
        ask(people.root, f"/ban eve {time}")
        people.world.wait(seconds - 1)
        assert ask(people.bob, "/nick eve").startswith("! eve is banned until ")
        assert " until " in ask(people.root, "/bans")
        people.world.wait(1)
        assert ask(people.bob, "/nick eve") == "-> you are now eve\n"
        assert ask(people.root, "/bans") == "-> nobody is banned or muted\n"

    @pytest.mark.parametrize("time", ["", " forever"])
    def test_for_ever(self, people: People, time: str) -> None:
        """No time ends it."""
        ask(people.root, f"/ban eve{time}")
        people.world.wait(10 * 365 * 86400)
        assert ask(people.root, "/bans") == "-> banned: eve by root1\n"

    @pytest.mark.parametrize(
        ("rest", "why"),
        [
            ("too loud", "too loud"),
            ("10 minutes", "10 minutes"),
            ("0m", "0m"),
            ("forever and a day", "and a day"),
            ("10m  too  loud ", "too  loud"),
        ],
    )
    def test_why(self, people: People, rest: str, why: str) -> None:
        """What is no time is the reason."""
        ask(people.root, f"/ban eve {rest}")
        assert people.eve.received().decode().endswith(f": {why}\n")
        assert ask(people.root, "/bans").endswith(f": {why}\n")

    @pytest.mark.parametrize(("time", "words"), [("90m", "90 minutes"), ("36h", "36 hours")])
    def test_the_time_is_told_as_it_is(
        self, people: People, notes: Callable[[], list[str]], time: str, words: str
    ) -> None:
        """Neither the answer nor the log says that a ban is shorter than it is."""
        answer = ask(people.root, f"/ban eve {time}")
        assert words in answer
        assert words in notes()[0]

    @pytest.mark.parametrize(
        "subject", ["root1", "ROOT1", "127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "127.0.0.1/1"]
    )
    @pytest.mark.parametrize("name", ["ban", "mute"])
    def test_not_oneself(self, people: People, name: str, subject: str) -> None:
        """Nor an address that one comes from."""
        assert ask(people.root, f"/{name} {subject}") == "! that concerns you yourself\n"
        assert people.root.is_connected

    @pytest.mark.parametrize(
        "subject", ["192.0.2", "192.0.2.300", "192.0.2.0/33", "1x", "::1::", "fe80:", "1" * 400]
    )
    def test_no_address(self, people: People, subject: str) -> None:
        """What begins like an address and is none is refused in a short sentence."""
        answer = ask(people.root, f"/ban {subject}")
        assert answer.endswith("is no address, and no network\n")
        assert len(answer) < 100

    @pytest.mark.parametrize("subject", ["not.a.nick", "me", "@1", "ä"])
    def test_no_nick(self, people: People, subject: str) -> None:
        """What nobody can be called needs no ban."""
        assert ask(people.root, f"/ban {subject}").startswith("! ")
        assert ask(people.root, "/bans") == "-> nobody is banned or muted\n"

    def test_again(self, people: People) -> None:
        """The last word counts."""
        ask(people.root, "/ban eve 10m first")
        ask(people.root, "/ban Eve second")
        assert ask(people.root, "/bans") == "-> banned: eve by root1: second\n"

    def test_where_a_nick_is_required(self) -> None:
        """At the prompt as well."""
        world = World(nicknames="required", operator=("root1",), rate=0)
        root, eve = world.client(), world.client()
        ask(root, "root1")
        ask(root, f"/register {GOOD}")
        ask(eve, "bob")
        ask(root, "/ban eve")
        late = world.client()
        assert ask(late, "eve") == "! eve is banned\n"
        assert ask(late, "dora").startswith("-> you are dora")

    def test_the_bound(self, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
        """Only so many are in force at once; those whose time is over make room."""
        monkeypatch.setattr(rules, "MOST", 2)
        ask(people.root, "/ban dora 1m")
        ask(people.root, "/ban carl 1m")
        assert ask(people.root, "/ban eve") == (
            "! 2 bans and mutes are in force: lift some first\n"
        )
        people.world.wait(61)
        assert ask(people.root, "/bans") == "-> nobody is banned or muted\n"
        assert ask(people.root, "/ban eve").startswith("-> eve is banned\n")

    def test_listed(self, people: People) -> None:
        """In order, with who and why; those of one subject side by side."""
        for line in ("/ban eve noise", "/mute dora", "/mute eve", "/ban 192.0.2.0/24 spam"):
            ask(people.root, line)
        assert ask(people.root, "/bans").splitlines() == [
            "-> banned: 192.0.2.0/24 by root1: spam",
            "-> muted: dora by root1",
            "-> banned: eve by root1: noise",
            "-> muted: eve by root1",
        ]


class TestMute:
    """/mute and /unmute"""

    @pytest.mark.parametrize(
        "line",
        [
            "hello",
            "//hello",
            "/me waves",
            "/msg bob hello",
            "/msg alice hello",
            "/reply hello",
            "/topic hello",
            "/quit hello",
        ],
    )
    def test_every_way_to_speak(self, people: People, line: str) -> None:
        """Whoever is muted can say nothing to anybody, and is told why."""
        ask(people.bob, "/msg eve first")
        ask(people.root, "/mute eve 10m too loud")
        people.forget()
        answer = ask(people.eve, line)
        for other in (people.bob, people.alice, people.root):
            assert "hello" not in other.received().decode().lower()
        assert answer.startswith(("! you are muted until ", "-> bye"))
        assert ask(people.alice, "/topic") == "-> lobby has no topic\n"

    def test_waving_is_not_said(self, people: People) -> None:
        """What somebody does is said as well."""
        ask(people.root, "/mute eve")
        people.forget()
        assert ask(people.eve, "/me waves") == "! you are muted\n"
        assert people.bob.received() == b""

    def test_they_may_read_and_ask(self, people: People) -> None:
        """Everything else is as before."""
        ask(people.root, "/mute eve")
        ask(people.bob, "hello")
        assert b"<bob> HELLO\n" in people.eve.received()
        assert ask(people.eve, "/list").startswith("-> in lobby: ")
        assert ask(people.eve, "/join dev").startswith("-> you are in dev")

    def test_ends_by_the_clock(self, people: People) -> None:
        """With its time."""
        ask(people.root, "/mute eve 10m")
        people.world.wait(599)
        assert ask(people.eve, "hello").startswith("! you are muted until ")
        people.world.wait(1)
        people.forget()
        assert ask(people.eve, "hello") == ""
        assert people.bob.received() == b"<eve> HELLO\n"

    def test_lifted(self, people: People) -> None:
        """At once."""
        ask(people.root, "/mute eve")
        ask(people.root, "/unmute eve")
        assert ask(people.eve, "hello") == ""

    def test_one_that_replaces_another(self, people: People) -> None:
        """The newest time counts for those who are here, too."""
        ask(people.root, "/mute eve forever")
        ask(people.root, "/mute eve 1m")
        people.world.wait(61)
        assert ask(people.eve, "hello") == ""

    def test_an_address(self, people: People) -> None:
        """Those who come from there later as well, with any nick or none."""
        ask(people.root, "/mute 192.0.2.0/24")
        assert ask(people.eve, "hello") == "! you are muted\n"
        late = people.world.client(host="192.0.2.99")
        assert ask(late, "hello") == "! you are muted\n"
        ask(late, "/nick dora")
        assert ask(late, "hello") == "! you are muted\n"
        assert ask(people.bob, "hello") == ""

    def test_an_account_that_comes_back(self, people: People) -> None:
        """It is muted wherever it comes from."""
        ask(people.root, "/mute alice")
        people.alice.close()
        alice = people.world.client(host="198.51.100.9")
        ask(alice, f"/login alice {GOOD}")
        assert ask(alice, "hello") == "! you are muted\n"

    def test_another_nick_does_not_help(self, people: People) -> None:
        """Who is muted stays so under another nick of the same connection."""
        ask(people.root, "/mute eve")
        ask(people.eve, "/nick dora")
        assert ask(people.eve, "hello") == "! you are muted\n"

    def test_without_a_nick(self) -> None:
        """Where nobody has one, an address can be muted before it connects."""
        world = World(rate=0, operator=("root1",))
        root = world.client()
        ask(root, "/nick root1")
        ask(root, f"/register {GOOD}")
        ask(root, "/mute 192.0.2.7")
        assert ask(world.client(host="192.0.2.7"), "hello") == "! you are muted\n"


class TestAnnounce:
    """/announce"""

    def test_in_every_room(self, people: People) -> None:
        """Whoever is in any room reads it once; the operator is told how many rooms there are."""
        ask(people.eve, "/join dev")
        ask(people.bob, "/join ops")
        people.forget()
        assert ask(people.root, "/announce tea is ready") == "-> announced in 3 rooms\n"
        for client in (people.alice, people.eve, people.bob):
            assert client.received() == b"* root1 announces: tea is ready\n"

    def test_is_in_the_history(self, people: People) -> None:
        """Of each room."""
        ask(people.eve, "/join dev")
        ask(people.root, "/announce tea is ready")
        for client in (people.alice, people.eve):
            assert "* root1 announces: tea is ready\n" in ask(client, "/history 5")
            assert "announces: tea is ready" in ask(client, "/search ready")

    def test_to_those_who_are_away(self, people: People) -> None:
        """They read it when they come back."""
        people.alice.close()
        ask(people.root, "/announce tea is ready")
        alice = people.world.client()
        assert "* root1 announces: tea is ready\n" in ask(alice, f"/login alice {GOOD}")


def test_a_mute_that_is_renewed(people: People) -> None:
    """It holds also for one who has tried another nick in between; nor is a nick a way to speak."""
    ask(people.root, "/mute eve 10m")
    assert ask(people.eve, "/nick still-here").startswith("! you are muted")
    ask(people.root, "/mute eve forever again")
    assert ask(people.eve, "hello") == "! you are muted: again\n"
