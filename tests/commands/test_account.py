"""The commands about accounts: right use, wrong use, not allowed, not logged in."""

from __future__ import annotations

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

from chatproto.commands import COMMANDS, WITH_PASSWORDS, is_secret
from chatproto.testing import Client, World

GOOD = "correct-horse"
OTHER = "battery-staple"

NOT_LOGGED_IN = "! you are not logged in: /login NICK PASSWORD\n"
WRONG = "! there is no such account, or the password is wrong\n"


def ask(client: Client, line: str) -> str:
    """Send one line and return what comes back."""
    client.received()
    client.send(line.encode() + b"\n")
    return client.received().decode()


@pytest.fixture
def world() -> World:
    """A server without limits on lines."""
    return World(rate=0)


def owner(world: World, nick: str = "alice") -> Client:
    """Connect a client that has registered `nick`."""
    client = world.named(nick)
    assert ask(client, f"/register {GOOD}") == (
        f"-> {nick} is yours: /login {nick} PASSWORD brings you back\n"
    )
    return client


@pytest.mark.parametrize(
    ("line", "use"),
    [
        ("/register", "/register PASSWORD"),
        (f"/register {GOOD} {GOOD}", "/register PASSWORD"),
        ("/login", "/login NICK PASSWORD"),
        ("/login alice", "/login NICK PASSWORD"),
        (f"/login alice {GOOD} {GOOD}", "/login NICK PASSWORD"),
        ("/password", "/password OLD NEW"),
        (f"/password {GOOD}", "/password OLD NEW"),
        (f"/password {GOOD} {OTHER} {OTHER}", "/password OLD NEW"),
        ("/logout now", "/logout"),
        ("/unregister", "/unregister PASSWORD"),
        (f"/unregister {GOOD} {GOOD}", "/unregister PASSWORD"),
    ],
)
def test_wrong_use(world: World, line: str, use: str) -> None:
    """The right use is shown, and not what was sent; with an account and without."""
    assert ask(world.client(), line) == f"! use: {use}\n"
    assert ask(owner(world), line) == f"! use: {use}\n"


@pytest.mark.parametrize("line", [f"/password {GOOD} {OTHER}", "/logout", f"/unregister {GOOD}"])
def test_not_logged_in(world: World, line: str) -> None:
    """What is done to an account needs one; a nick alone is none."""
    assert ask(world.client(), line) == NOT_LOGGED_IN
    assert ask(world.named("bob"), line) == NOT_LOGGED_IN


class TestRegister:
    """/register"""

    def test_binds_the_nick(self, world: World) -> None:
        """It is the account's from now on; /whois tells it."""
        alice = owner(world)
        assert "alice, registered is in lobby" in ask(alice, "/whois alice")

    def test_needs_a_nick(self, world: World) -> None:
        """There would be nothing to register."""
        assert ask(world.client(), f"/register {GOOD}") == (
            "! /register needs a nick: choose one with /nick NAME\n"
        )

    def test_once(self, world: World) -> None:
        """Who has an account cannot have it again, nor another password by it."""
        alice = owner(world)
        assert ask(alice, f"/register {OTHER}") == "! alice is registered already\n"
        ask(alice, "/logout")
        assert ask(alice, f"/login alice {OTHER}") == WRONG

    @pytest.mark.parametrize("password", ["short", "1234567", "ångströ"])
    def test_a_password_that_is_too_short(self, world: World, password: str) -> None:
        """It is told why, and nothing was done."""
        alice = world.named("alice")
        assert ask(alice, f"/register {password}") == "! a password has at least 8 characters\n"
        assert ask(alice, "/logout") == NOT_LOGGED_IN

    def test_a_password_that_is_too_long(self, world: World) -> None:
        """The bound is in bytes."""
        alice = world.named("alice")
        assert ask(alice, f"/register {'ä' * 513}") == "! a password has at most 1024 bytes\n"
        assert "is yours" in ask(alice, f"/register {'ä' * 512}")

    def test_elsewhere(self) -> None:
        """Where accounts are kept outside there is nothing to register, change or remove."""
        outside = InMemoryUsernamePasswordDatabaseDontUse(alice=GOOD.encode())
        world = World(rate=0, checkers=[outside])
        refused = "! accounts are kept outside of this server: ask whoever runs it\n"
        assert ask(world.named("bob"), f"/register {GOOD}") == refused
        alice = world.client()
        assert ask(alice, f"/login alice {GOOD}") == "-> you are logged in as alice\n"
        assert ask(alice, f"/password {GOOD} {OTHER}") == refused
        assert ask(alice, f"/unregister {GOOD}") == refused
        assert ask(alice, "/logout") == "-> you are logged out, and have no nick\n"
        assert ask(alice, f"/login alice {OTHER}") == WRONG
        assert ask(alice, f"/login alice {GOOD}") == "-> you are logged in as alice\n"


class TestLogin:
    """/login"""

    @pytest.mark.parametrize("nick", ["alice", "ALICE"])
    def test_gives_the_nick(self, world: World, nick: str) -> None:
        """As its owner writes it, whatever was there before."""
        owner(world).close()
        guest = world.named("guest")
        assert ask(guest, f"/login {nick} {GOOD}") == "-> you are logged in as alice\n"
        assert ask(guest, "/list") == "-> in lobby: alice\n"

    def test_already(self, world: World) -> None:
        """Who is logged in already is told so, before the password is looked at."""
        alice = owner(world)
        assert ask(alice, f"/login ALICE {OTHER}") == "! you are logged in as alice already\n"

    @pytest.mark.parametrize(
        "line",
        [
            f"/login alice {OTHER}",
            f"/login nobody-here {GOOD}",
            f"/login bob {GOOD}",
            f"/login @1 {GOOD}",
            f"/login {'x' * 1000} {GOOD}",
            f"/login älice {GOOD}",
            "/login alice x",
        ],
    )
    def test_one_answer(self, world: World, line: str) -> None:
        """An unknown account, one that is only a nick, and a wrong password sound alike."""
        owner(world)
        world.named("bob")
        client = world.client()
        assert ask(client, line) == WRONG
        assert ask(client, "hello") == ""

    def test_another_form_of_the_same_letters(self, world: World) -> None:
        """A password is the same on every keyboard: composed or not."""
        alice = world.named("alice")
        ask(alice, "/register zw\u00f6lf-b\u00e4ume")
        ask(alice, "/logout")
        assert ask(alice, "/login alice zwo\u0308lf-ba\u0308ume") == (
            "-> you are logged in as alice\n"
        )


class TestPassword:
    """/password"""

    def test_changes_it(self, world: World) -> None:
        """The old one is none any more."""
        alice = owner(world)
        assert ask(alice, f"/password {GOOD} {OTHER}") == "-> your password is changed\n"
        ask(alice, "/logout")
        assert ask(alice, f"/login alice {GOOD}") == WRONG
        assert ask(alice, f"/login alice {OTHER}") == "-> you are logged in as alice\n"

    def test_the_old_one_is_asked_for(self, world: World) -> None:
        """A terminal that was left open is not enough."""
        alice = owner(world)
        assert ask(alice, f"/password {OTHER} {OTHER}2") == WRONG
        assert ask(alice, f"/password {GOOD} short") == "! a password has at least 8 characters\n"
        ask(alice, "/logout")
        assert ask(alice, f"/login alice {GOOD}") == "-> you are logged in as alice\n"


class TestLogout:
    """/logout"""

    def test_leaves_the_account(self, world: World) -> None:
        """The client stays, with no nick."""
        alice = owner(world)
        assert ask(alice, "/logout") == "-> you are logged out, and have no nick\n"
        assert ask(alice, "/logout") == NOT_LOGGED_IN
        assert ask(alice, "/list") == "-> in lobby: 1 without a nick\n"


class TestUnregister:
    """/unregister"""

    def test_removes_the_account(self, world: World) -> None:
        """Nobody can log in to it."""
        alice = owner(world)
        assert ask(alice, f"/unregister {GOOD}") == (
            "-> your account is removed; anyone can have the nick when you leave\n"
        )
        assert ask(alice, f"/unregister {GOOD}") == NOT_LOGGED_IN
        assert ask(world.client(), f"/login alice {GOOD}") == WRONG

    def test_the_password_is_asked_for(self, world: World) -> None:
        """A wrong one removes nothing."""
        alice = owner(world)
        assert ask(alice, f"/unregister {OTHER}") == WRONG
        assert "registered" in ask(alice, "/whois alice")


class TestSecrets:
    """Lines that seem to be a password with something before it."""

    def test_are_those_of_the_commands_with_passwords(self) -> None:
        """Every command with PASSWORD, OLD or NEW in its use is one of them."""
        assert set(COMMANDS) >= WITH_PASSWORDS
        named = {
            name
            for name, command in COMMANDS.items()
            if {"PASSWORD", "OLD"} & {*(command.__doc__ or "").partition("\n")[0].split()}
        }
        assert named == WITH_PASSWORDS

    @pytest.mark.parametrize("name", sorted(WITH_PASSWORDS))
    @pytest.mark.parametrize("form", [" /{} x", "//{} x", " //{} x", "/ {} x", "//{}"])
    def test_are_known(self, form: str, name: str) -> None:
        """Spaces and slashes before the name, which may be in any case."""
        assert is_secret(form.format(name))
        assert is_secret(form.format(name.upper()))

    @pytest.mark.parametrize("line", ["login x", " login x", "hello /login x", " /loginx", "", "/"])
    def test_others_are_not(self, line: str) -> None:
        """What has no slash before it, or is another word."""
        assert not is_secret(line)


@pytest.mark.parametrize("name", [*sorted(WITH_PASSWORDS), "logout"])
def test_help(world: World, name: str) -> None:
    """Every command tells what it does."""
    answer = ask(world.client(), f"/help {name}")
    assert answer.startswith(f"-> /{name}")
    assert answer.count("\n") >= 2
