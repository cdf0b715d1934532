"""Accounts: whose nick it is, who may try how often, and what nobody else ever sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from twisted.cred.checkers import (
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from chatproto import accounts
from chatproto.accounts import NEXT_TRY, REMEMBERED, TRIES, Accounts, Tries
from chatproto.address import Peer
from chatproto.errors import ChatError, CommandError, LoginFailed, NameTaken, NotAllowed, StoreError
from chatproto.model import Account
from chatproto.passwords import Hasher
from chatproto.stores.memory import MemoryDirectory
from chatproto.testing import START, Client, World
from chatproto.threads import NoThreads

GOOD = "correct-horse"
BAD = "wrong-horse-1"

HERE = Peer("127.0.0.1:40000", None)
HOME = Peer("192.0.2.7:40000", "192.0.2.7")
AWAY = Peer("198.51.100.9:40000", "198.51.100.9")

WRONG = "! there is no such account, or the password is wrong\n"


class CountingHasher(Hasher):
    """A hasher that remembers what it was asked to compare."""

    def __init__(self) -> None:
        """Be as cheap as can be."""
        super().__init__(time_cost=1, memory_cost=8)
        self.verified: list[tuple[bool, str]] = []

    def verify(self, secret: str, password: str) -> bool:
        """Compare as ever."""
        self.verified.append((bool(secret), password))
        return super().verify(secret, password)


class BrokenChecker(InMemoryUsernamePasswordDatabaseDontUse):
    """A checker whose own server cannot be reached."""

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        """Fail as no checker should."""
        raise ConnectionRefusedError("secret address")


@implementer(ICredentialsChecker)
class LateChecker:
    """A checker that answers when it is told to."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        """Let nobody wait yet."""
        self.answer: Deferred[bytes] = Deferred()

    def requestAvatarId(self, credentials: Any) -> Any:
        """Answer later."""
        return self.answer


class Office:
    """The accounts of a server, without a server."""

    def __init__(self, *, operators: Sequence[str] = (), checkers: Sequence[Any] = ()) -> None:
        """Know nobody yet."""
        self.clock = Clock()
        self.clock.rightNow = START
        self.directory = MemoryDirectory()
        self.hasher = CountingHasher()
        self.accounts = Accounts(
            self.directory,
            NoThreads(),
            self.clock.seconds,
            self.clock.seconds,
            hasher=self.hasher,
            operators=operators,
            checkers=checkers,
        )

    def register(self, nick: str = "alice", peer: Peer = HERE) -> Account:
        """Make an account."""
        made: Account = now(self.accounts.register(nick, GOOD, peer))
        return made

    def check(self, nick: str, password: str, peer: Peer = HERE) -> Account:
        """Check a password."""
        found: Account = now(self.accounts.check(nick, password, peer))
        return found


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


def owner(world: World, nick: str = "alice", room: str = "") -> Client:
    """Connect a client that has registered `nick`."""
    client = world.client()
    assert ask(client, f"/nick {nick}") == f"-> you are now {nick}\n"
    assert "is yours" in ask(client, f"/register {GOOD}")
    if room:
        ask(client, f"/join {room}")
    return client


def checker(**passwords: str) -> InMemoryUsernamePasswordDatabaseDontUse:
    """Return Twisted's own checker with these users."""
    return InMemoryUsernamePasswordDatabaseDontUse(
        **{name: word.encode() for name, word in passwords.items()}
    )


@pytest.fixture
def logged() -> Iterator[Callable[[], str]]:
    """Give a function that returns all that was logged, every field of it."""
    events: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        events.append(dict(event))

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    yield lambda: "\n".join(map(repr, events))
    globalLogPublisher.removeObserver(cast(ILogObserver, observe))


class TestTries:
    """How often one may try."""

    def test_a_few_at_once_then_one_at_a_time(self) -> None:
        """After the first ones there is one more each time that `NEXT_TRY` has passed."""
        clock = Clock()
        tries = Tries(clock.seconds)
        for _ in range(TRIES):
            tries.take(("address", "192.0.2.7"))
        with pytest.raises(LoginFailed, match=r"^too many tries: the next one is in 20 s$"):
            tries.take(("address", "192.0.2.7"))
        clock.advance(NEXT_TRY)
        tries.take(("address", "192.0.2.7"))
        with pytest.raises(LoginFailed):
            tries.take(("address", "192.0.2.7"))

    def test_keys_are_counted_apart(self) -> None:
        """One that has none left stops a try, another one alone does not."""
        tries = Tries(Clock().seconds)
        for _ in range(TRIES):
            tries.take(("a",), ("b",))
        with pytest.raises(LoginFailed):
            tries.take(("a",), ("c",))
        tries.take(("c",), ("d",))

    def test_what_was_right_is_not_counted(self) -> None:
        """Who knows the password can log in as often as they like."""
        tries = Tries(Clock().seconds)
        for _ in range(3 * TRIES):
            tries.take(("a",))
            tries.give_back(("a",))

    def test_is_bounded(self) -> None:
        """The oldest keys are forgotten: what is remembered has a bound."""
        tries = Tries(Clock().seconds)
        for _ in range(TRIES):
            tries.take(("first",))
        for number in range(REMEMBERED):
            tries.take((str(number),))
        tries.take(("first",))
        for _ in range(TRIES - 1):
            tries.take((str(REMEMBERED - 1),))
        with pytest.raises(LoginFailed):
            tries.take((str(REMEMBERED - 1),))


class TestRegistering:
    """An account is made once, for what folds to the same nick."""

    def test_keeps_no_password(self) -> None:
        """What is kept is an Argon2id hash, of no two accounts the same."""
        office = Office()
        alice, bob = office.register("alice"), office.register("bob")
        assert alice.secret.startswith("$argon2id$")
        assert alice.secret != bob.secret
        assert alice == Account("alice", alice.secret, False, START, "local")
        assert GOOD not in repr(now(office.directory.accounts()))

    def test_once_for_all_cases(self) -> None:
        """Another case of the nick is the same account."""
        office = Office()
        office.register("Alice")
        with pytest.raises(NameTaken, match=r"^ALICE is registered already$"):
            office.register("ALICE")
        assert now(office.accounts.find("aLICE")).nick == "Alice"

    def test_an_operators_nick_from_here_only(self) -> None:
        """Who comes from elsewhere cannot become the operator of the settings by being first."""
        office = Office(operators=["Root-1"])
        with pytest.raises(NotAllowed, match=r"^root-1 is an operator's: register it from"):
            office.register("root-1", HOME)
        assert office.accounts.may_moderate(office.register("root-1", HERE))
        assert not office.accounts.may_moderate(office.register("alice", HOME))


class TestChecking:
    """A nick and a password."""

    def test_right(self) -> None:
        """The account comes back, as its owner writes it, and where they are now is kept."""
        office = Office()
        made = office.register("Alice", HERE)
        assert office.check("aLiCe", GOOD, HOME) == made._replace(address="192.0.2.7")
        assert now(office.accounts.find("alice")).address == "192.0.2.7"

    @pytest.mark.parametrize(("nick", "known"), [("alice", True), ("nobody-here", False)])
    def test_a_hash_is_computed_whether_there_is_an_account(self, nick: str, known: bool) -> None:
        """An unknown account and a wrong password cost the same work and have the same answer."""
        office = Office()
        office.register("alice")
        with pytest.raises(LoginFailed, match=r"^there is no such account, or the password is wr"):
            office.check(nick, BAD)
        assert office.hasher.verified == [(known, BAD)]

    def test_old_hashes_are_renewed(self) -> None:
        """A secret made with other costs is made again when its owner logs in."""
        office = Office()
        old = Hasher(time_cost=2, memory_cost=8).hash(GOOD)
        now(office.directory.add_account(Account("alice", old, True, START, "local")))
        office.check("alice", GOOD)
        fresh = now(office.accounts.find("alice"))
        assert "t=1" in fresh.secret
        assert fresh.is_operator
        office.check("alice", GOOD)
        assert now(office.accounts.find("alice")).secret == fresh.secret

    def test_a_failing_store_is_told_as_what_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A store that cannot be read is not taken for a wrong password."""
        office = Office()
        office.register("alice")

        def fails(name: str) -> Deferred[None]:
            raise StoreError("the disk is gone")

        monkeypatch.setattr(office.directory, "account", fails)
        with pytest.raises(StoreError, match=r"^the disk is gone$"):
            office.check("alice", GOOD)


class TestLimits:
    """Tries are counted per address and per account."""

    def guess(self, office: Office, nick: str, peer: Peer, times: int = TRIES) -> None:
        """Give wrong passwords that are all looked at."""
        for _ in range(times):
            with pytest.raises(LoginFailed, match=r"^there is no such account"):
                office.check(nick, BAD, peer)

    def test_per_address(self) -> None:
        """One address has its tries for all accounts together, also for the right password."""
        office = Office()
        office.register("alice", HOME)
        for number in range(TRIES):
            self.guess(office, f"nick{number}", AWAY, 1)
        with pytest.raises(LoginFailed, match=r"^too many tries"):
            office.check("alice", GOOD, AWAY)
        office.clock.advance(NEXT_TRY)
        assert office.check("alice", GOOD, AWAY).nick == "alice"

    def test_per_account(self) -> None:
        """Many addresses together have the tries of one account, in any case of its nick."""
        office = Office()
        office.register("alice", HOME)
        for number in range(TRIES):
            nick = "alice" if number % 2 else "ALICE"
            self.guess(office, nick, Peer("", f"198.51.100.{number}"), 1)
        with pytest.raises(LoginFailed, match=r"^too many tries"):
            office.check("alice", GOOD, Peer("", "198.51.100.99"))

    def test_an_unknown_account_is_limited_just_so(self) -> None:
        """The limit tells nothing of whether there is an account."""
        office = Office()
        for number in range(TRIES):
            self.guess(office, "nobody-here", Peer("", f"198.51.100.{number}"), 1)
        with pytest.raises(LoginFailed, match=r"^too many tries"):
            office.check("nobody-here", BAD, Peer("", "198.51.100.99"))

    def test_the_owner_is_not_locked_out_by_others(self) -> None:
        """From where they were before, the owner has tries that nobody else can use up."""
        office = Office()
        office.register("alice", HOME)
        for number in range(200):
            with pytest.raises(LoginFailed):
                office.check("alice", BAD, Peer("", f"198.51.100.{number}"))
        assert office.check("alice", GOOD, HOME).nick == "alice"

    def test_right_ones_are_not_counted(self) -> None:
        """Coming back often is no guessing."""
        office = Office()
        office.register("alice", HOME)
        for _ in range(3 * TRIES):
            office.check("alice", GOOD, HOME)
            office.check("alice", GOOD, AWAY)

    def test_a_hash_is_not_computed_beyond_the_limit(self) -> None:
        """What is refused costs nothing."""
        office = Office()
        self.guess(office, "alice", AWAY)
        assert len(office.hasher.verified) == TRIES
        with pytest.raises(LoginFailed, match=r"^too many"):
            office.check("alice", BAD, AWAY)
        assert len(office.hasher.verified) == TRIES

    def test_other_commands_count_as_well(self) -> None:
        """A password is not guessed through /password or /unregister either."""
        office = Office()
        office.register("alice", HOME)
        change, remove = office.accounts.change_password, office.accounts.check_own
        for number in range(TRIES):
            guess = change("alice", BAD, GOOD, AWAY) if number % 2 else remove("alice", BAD, AWAY)
            with pytest.raises(LoginFailed, match=r"^there is no such"):
                now(guess)
        with pytest.raises(LoginFailed, match=r"^too many"):
            now(remove("alice", GOOD, AWAY))


class TestChanging:
    """Other passwords, and none."""

    def test_password(self) -> None:
        """Only the new one counts from now on."""
        office = Office()
        office.register("alice")
        now(office.accounts.change_password("ALICE", GOOD, "battery-staple", HERE))
        with pytest.raises(LoginFailed):
            office.check("alice", GOOD)
        assert office.check("alice", "battery-staple").nick == "alice"

    def test_a_password_that_is_none_changes_nothing(self) -> None:
        """The old one counts."""
        office = Office()
        office.register("alice")
        with pytest.raises(CommandError, match="at least 8"):
            now(office.accounts.change_password("alice", GOOD, "short", HERE))
        office.check("alice", GOOD)

    def test_unregister(self) -> None:
        """The account is gone; the nick can be registered again, and the old password is none."""
        office = Office()
        office.register("alice")
        now(office.accounts.check_own("ALICE", GOOD, HERE))
        assert now(office.accounts.remove("ALICE"))
        assert not now(office.accounts.remove("ALICE"))
        assert now(office.accounts.find("alice")) is None
        with pytest.raises(LoginFailed):
            office.check("alice", GOOD)
        office.register("alice")

    def test_operators(self) -> None:
        """An account can be made an operator's; one of the settings stays one."""
        office = Office(operators=["root-1"])
        office.register("alice")
        office.register("root-1")
        assert office.accounts.may_moderate(now(office.accounts.set_operator("ALICE", True)))
        assert not office.accounts.may_moderate(now(office.accounts.set_operator("alice", False)))
        with pytest.raises(CommandError, match=r"^root-1 is an operator by the server's settings$"):
            now(office.accounts.set_operator("root-1", False))
        with pytest.raises(CommandError, match=r"^bob has no account$"):
            now(office.accounts.set_operator("bob", True))


class TestOutsideCheckers:
    """Passwords that somebody else keeps."""

    def test_an_account_is_made_by_the_first_login(self) -> None:
        """Read positions and moderation need one; it has no secret."""
        office = Office(checkers=[checker(alice=GOOD)])
        assert office.check("alice", GOOD, HOME) == Account("alice", "", False, START, "192.0.2.7")
        assert office.check("alice", GOOD, HOME).address == "192.0.2.7"
        with pytest.raises(LoginFailed, match=r"^there is no such account"):
            office.check("alice", BAD, HOME)
        with pytest.raises(LoginFailed, match=r"^there is no such account"):
            office.check("bob", GOOD, HOME)
        assert [account.nick for account in now(office.directory.accounts())] == ["alice"]

    def test_each_is_asked(self) -> None:
        """One that knows somebody is enough."""
        office = Office(checkers=[checker(alice=GOOD), checker(bob=GOOD)])
        assert office.check("alice", GOOD).nick == "alice"
        assert office.check("bob", GOOD).nick == "bob"

    def test_our_own_passwords_do_not_count(self) -> None:
        """With an outside checker only that decides."""
        office = Office(checkers=[checker(bob=GOOD)])
        secret = office.hasher.hash(GOOD)
        now(office.directory.add_account(Account("alice", secret, False, START, "local")))
        with pytest.raises(LoginFailed):
            office.check("alice", GOOD)

    def test_a_checker_that_fails(self, logged_errors: Any) -> None:
        """It is told that passwords cannot be checked, in the log why."""
        office = Office(checkers=[BrokenChecker()])
        with pytest.raises(CommandError, match=r"^passwords cannot be checked now: try again"):
            office.check("alice", GOOD)
        event = logged_errors.take("a password cannot be checked")
        assert GOOD not in repr({**event, "log_failure": event["log_failure"].getTraceback()})

    @pytest.mark.parametrize("what", ["register", "change", "unregister"])
    def test_nothing_is_changed_here(self, what: str) -> None:
        """Who has an account elsewhere changes it there."""
        office = Office(checkers=[checker(alice=GOOD)])
        change = {
            "register": lambda: office.accounts.register("bob", GOOD, HERE),
            "change": lambda: office.accounts.change_password("alice", GOOD, GOOD + "2", HERE),
            "unregister": lambda: office.accounts.check_own("alice", GOOD, HERE),
        }[what]
        with pytest.raises(NotAllowed, match=r"^accounts are kept outside of this server"):
            now(change())

    def test_operators_of_the_settings(self) -> None:
        """They are operators wherever their password is kept."""
        office = Office(operators=["alice"], checkers=[checker(alice=GOOD, bob=GOOD)])
        assert office.accounts.may_moderate(office.check("alice", GOOD))
        assert not office.accounts.may_moderate(office.check("bob", GOOD))

    @pytest.mark.parametrize("name", ["5", "1234567", "root", "two.words", "~7", "x" * 33])
    def test_a_user_whose_name_can_be_no_nick(self, name: str) -> None:
        """A name that no nick can be is refused in words: it would be taken for something else.

        One of digits would share its inbox with the session of that number.
        """
        world = World(checkers=[checker(**{name: GOOD})])
        guests = [world.client() for _ in range(5)]
        answer = ask(guests[0], f"/login {name} {GOOD}")
        assert answer.startswith("! ")
        assert ask(guests[0], "/list") == "-> in lobby: 5 without a nick\n"


class TestNicks:
    """A registered nick is kept for its owner."""

    @pytest.mark.parametrize("nick", ["alice", "ALICE", "Alice"])
    def test_nobody_else_gets_it(self, nick: str) -> None:
        """In whatever case it is asked for, and whether its owner is here."""
        world = World(rate=0)
        alice, eve = owner(world), world.client()
        ask(alice, "/logout")
        alice.close()
        refused = f"! {nick} is registered: /login {nick} PASSWORD if it is yours\n"
        assert ask(eve, f"/nick {nick}") == refused
        world.clients[1].send(b"hello\n")
        again = world.client()
        assert "you are logged in as alice" in ask(again, f"/login {nick} {GOOD}")
        assert ask(eve, f"/nick {nick}") == refused

    def test_nor_where_a_nick_is_required(self) -> None:
        """The prompt refuses it, asks again, and takes a login."""
        world = World(nicknames="required", rate=0)
        alice = world.client()
        assert ask(alice, "alice") == "-> you are alice, in lobby (1 here)\n"
        assert "is yours" in ask(alice, f"/register {GOOD}")
        alice.close()
        eve = world.client()
        for given, shown in (("alice", "alice"), ("/nick ALICE", "ALICE")):
            assert ask(eve, given) == (
                f"! {shown} is registered: /login {shown} PASSWORD if it is yours; "
                "what is your nick?\n"
            )
        asked_again = WRONG.replace("\n", "; what is your nick?\n")
        assert ask(eve, "/login alice " + BAD) == asked_again
        assert ask(eve, "hello").startswith("-> you are hello, in lobby")
        again = world.client()
        assert ask(again, "/login") == "! use: /login NICK PASSWORD\n"
        answer = ask(again, f"/login Alice {GOOD}")
        assert answer.startswith(
            "-> you are logged in as alice\n-> you are alice, in lobby (2 here)\n"
            "-> while you were away: 1 line\n"
        )

    def test_a_secret_at_the_prompt_is_not_told(self) -> None:
        """What looks like a password with something before it is no nick."""
        world = World(nicknames="required")
        alice = world.client()
        answer = ask(alice, f" /login alice {GOOD}") + ask(alice, f"//login alice {GOOD}")
        assert GOOD not in answer
        assert answer.count("! a nick starts with a letter") == 2

    def test_its_owner_may_write_it_otherwise(self) -> None:
        """Another case is a new form of the same name."""
        world = World()
        alice = owner(world)
        assert ask(alice, "/nick ALICE") == "-> you are now ALICE\n"
        assert ask(alice, "/nick bob") == "! you are logged in as ALICE: /logout first\n"

    def test_a_guest_who_has_it_already(self) -> None:
        """Its owner takes it over from whoever was first: here a guest that came in between."""
        late = LateChecker()
        world = World(checkers=[late])
        alice, guest = world.client(), world.client()
        ask(alice, f"/login alice {GOOD}")
        assert ask(guest, "/nick alice") == "-> you are now alice\n"
        late.answer.callback(b"alice")
        world.turn()
        assert "you are logged in as alice" in alice.received().decode()
        assert guest.received() == b"! alice is taken over by another connection\n"
        assert not guest.is_connected

    def test_who_is_put_out_takes_nothing_over(self) -> None:
        """One who is banned while a password is still being checked does not come in by it, and the
        one who has the nick stays.
        """
        late = LateChecker()
        world = World(
            checkers=[checker(root1=GOOD), late], operator=("root1",), plaintext_login=True
        )
        root, alice, gone = world.client(), world.named("alice"), world.client(host="192.0.2.7")
        ask(root, f"/login root1 {GOOD}")
        ask(gone, f"/login alice {GOOD}")
        assert ask(root, "/ban 192.0.2.7").startswith("-> 192.0.2.7/32 is banned")
        assert not gone.is_connected
        late.answer.callback(b"alice")
        world.turn()
        assert b"taken over" not in alice.received()
        assert alice.is_connected


class TestTakingOver:
    """Logging in while one is here already."""

    def test_from_a_live_connection(self) -> None:
        """The old one is told and closed; to the others in the room nothing happens."""
        world = World(rate=0)
        bob = world.named("bob")
        old = owner(world)
        new = world.client()
        bob.received()
        assert ask(new, f"/login alice {GOOD}") == (
            "-> you are already connected: taking over\n-> you are logged in as alice\n"
        )
        assert old.received() == b"! alice is taken over by another connection\n"
        assert not old.is_connected
        assert bob.received() == b""
        assert ask(bob, "/list") == "-> in lobby: bob, alice\n"
        assert ask(new, "hello") == ""
        assert bob.received() == b"<alice> HELLO\n"
        assert ask(bob, "/msg alice psst") == "[to alice] psst\n"
        assert new.received() == b"[bob] psst\n"

    def test_from_a_dead_connection(self) -> None:
        """One that takes nothing any more leaves no ghost: it is cut when its time is over."""
        world = World(rate=0)
        bob = world.named("bob")
        dead = owner(world)
        dead.stop_reading()
        bob.received()
        new = world.client()
        assert "taking over" in ask(new, f"/login alice {GOOD}")
        assert bob.received() == b""
        assert ask(bob, "/list") == "-> in lobby: bob, alice\n"
        world.wait(10)
        assert not dead.is_connected
        assert dead.transport.aborted
        assert bob.received() == b""
        assert ask(bob, "/list") == "-> in lobby: bob, alice\n"
        assert len(world.factory.protocols) == 2

    def test_from_another_room(self) -> None:
        """The old one's room sees it leave, the new one's sees it come."""
        world = World(rate=0)
        bob, eve = world.named("bob"), world.named("eve")
        ask(eve, "/join dev")
        owner(world, room="dev")
        new = world.client()
        bob.received()
        eve.received()
        ask(new, f"/login alice {GOOD}")
        assert bob.received() == b"* alice joined (2 here)\n"
        assert eve.received() == b"* alice left (1 here): taken over\n"

    def test_at_the_prompt_for_a_nick(self) -> None:
        """Where a nick is required as well: the owner is there once, and nobody else notices."""
        world = World(nicknames="required", rate=0)
        bob = world.client()
        ask(bob, "bob")
        old = world.client()
        ask(old, "alice")
        ask(old, f"/register {GOOD}")
        new = world.client()
        bob.received()
        answer = ask(new, f"/login alice {GOOD}")
        assert answer.startswith("-> you are already connected: taking over\n")
        assert not old.is_connected
        assert bob.received() == b""
        assert ask(bob, "/list").endswith("in lobby: bob, alice\n")

    def test_by_a_guest_with_a_nick(self) -> None:
        """To the room it is a guest who gets another name."""
        world = World(rate=0)
        bob = world.named("bob")
        owner(world)
        guest = world.named("guest")
        assert "taking over" in ask(guest, f"/login alice {GOOD}")
        assert bob.received() == (b"* alice left (2 here): taken over\n* guest is now alice\n")

    def test_a_private_message_goes_to_the_new_one(self) -> None:
        """What was on its way when the owner changed the connection arrives, once."""
        world = World(rate=0)
        bob = world.named("bob")
        old = owner(world)
        new = world.client()
        bob.feed(b"/msg alice psst\n")
        new.feed(f"/login alice {GOOD}\n".encode())
        world.turn()
        seen = old.received() + new.received()
        assert seen.count(b"[bob] psst\n") == 1
        assert bob.received().endswith(b"[to alice] psst\n")

    def test_a_private_message_to_a_guest_who_registers(self) -> None:
        """What was on its way when a guest got an account arrives, once, as its sender was told."""
        world = World(rate=0)
        bob, guest = world.named("bob"), world.named("guest")
        bob.feed(b"/msg guest psst\n")
        guest.feed(f"/register {GOOD}\n".encode())
        world.turn()
        assert bob.received() == b"[to guest] psst\n"
        assert guest.received().count(b"[bob] psst\n") == 1

    def test_a_private_message_to_a_guest_who_logs_in(self) -> None:
        """The same when the guest had an account before."""
        world = World(rate=0)
        bob = world.named("bob")
        owner(world).close()
        guest = world.named("guest")
        bob.received()
        bob.feed(b"/msg guest psst\n")
        guest.feed(f"/login alice {GOOD}\n".encode())
        world.turn()
        assert b"[to guest] psst\n" in bob.received()
        assert guest.received().count(b"psst\n") == 1


class TestSecrecy:
    """Passwords are seen by nobody."""

    COMMANDS = (
        f"/register {GOOD}",
        f"/login alice {GOOD}",
        f"/password {GOOD} {GOOD}-2",
        f"/unregister {GOOD}",
    )

    def test_only_the_one_who_sends_them(self, logged: Callable[[], str]) -> None:
        """Not in the log of the server, nor in the history, nor with other clients."""
        world = World(rate=0)
        witness = world.named("witness")
        alice = world.named("alice")
        for line in (
            *self.COMMANDS[:1],
            *self.COMMANDS,
            f"/login alice {GOOD} {GOOD}",
            f"/password {GOOD}",
            f"/login witness {GOOD}",
            f"/register {GOOD} {GOOD}",
        ):
            alice.send(line.encode() + b"\n")
        alice.send(b"hello\n")
        alice.feed(f"/login alice {GOOD}".encode())  # without an end
        alice.close()
        history = ask(witness, "/history 1000")
        seen = [alice.received().decode(), witness.received().decode(), history, logged()]
        assert "HELLO" in history
        for text in seen:
            assert GOOD not in text
            assert GOOD.upper() not in text

    @pytest.mark.parametrize("before", [" ", "  ", "\t", "/", " /", "  //", "/ ", "// "])
    @pytest.mark.parametrize("line", COMMANDS)
    def test_something_before_the_command(self, before: str, line: str) -> None:
        """A slip of the finger does not say a password: the line is refused."""
        world = World(rate=0)
        bob, alice = world.named("bob"), world.named("alice")
        bob.received()
        for written in (before + line, before + line.upper()):
            answer = ask(alice, written)
            assert answer.startswith("! ")
            assert "correct" not in answer.lower()
        assert bob.received() == b""
        assert "CORRECT" not in ask(bob, "/history 1000").upper()

    @pytest.mark.parametrize("line", [" hello", "//hello", "//log in", " register me", "//logins"])
    def test_other_lines_are_said(self, line: str) -> None:
        """What only begins alike is not held back."""
        world = World(rate=0)
        bob, alice = world.named("bob"), world.named("alice")
        bob.received()
        assert ask(alice, line) == ""
        assert bob.received().decode() == f"<alice> {line.replace('//', '/').upper()}\n"

    def test_as_the_last_words_of_a_client_that_is_gone(self) -> None:
        """Lines that are still read after the connection is closed are no exception."""
        world = World(rate=0)
        bob, alice = world.named("bob"), world.named("alice")
        bob.received()
        alice.feed(f" /login alice {GOOD}\n//login alice {GOOD}\n /login alice {GOOD}".encode())
        alice.close()
        assert bob.received() == b"* alice left (1 here)\n"

    def test_nobody_reads_along(self) -> None:
        """From another machine they are refused where others could read them, with the reason."""
        world = World(rate=0)
        alice = world.client(host="192.0.2.7")
        ask(alice, "/nick alice")
        for line in self.COMMANDS:
            assert ask(alice, line) == (
                "! this connection is not encrypted, so others could read your password: "
                "connect with TLS, or ask for --plaintext-login\n"
            )
        assert ask(alice, "/logout") == "! you are not logged in: /login NICK PASSWORD\n"

    def test_nor_at_the_prompt_for_a_nick(self) -> None:
        """The same where a nick is required; one can still come in as a guest."""
        world = World(nicknames="required")
        alice = world.client(host="192.0.2.7")
        assert "not encrypted" in ask(alice, f"/login alice {GOOD}")
        assert ask(alice, "alice") == "-> you are alice, in lobby (1 here)\n"

    @pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.8.0.1"])
    def test_from_this_machine(self, host: str) -> None:
        """Nobody is between."""
        world = World()
        alice = world.client(host=host)
        ask(alice, "/nick alice")
        assert "alice is yours" in ask(alice, f"/register {GOOD}")

    def test_allowed(self) -> None:
        """``--plaintext-login`` lets them pass."""
        world = World(plaintext_login=True, operator=("root-1",))
        alice = world.client(host="192.0.2.7")
        ask(alice, "/nick alice")
        assert ask(alice, self.COMMANDS[0]) == (
            "-> alice is yours: /login alice PASSWORD brings you back\n"
        )
        assert ask(alice, self.COMMANDS[2]) == "-> your password is changed\n"
        ask(alice, "/logout")
        assert "you are logged in as alice" in ask(alice, f"/login alice {GOOD}-2")
        ask(alice, "/logout")
        ask(alice, "/nick root-1")
        assert ask(alice, self.COMMANDS[0]).startswith("! root-1 is an operator's")

    def test_where_every_line_is_data(self) -> None:
        """Without commands a line that looks like one is said, as every other."""
        world = World(nicknames="off")
        alice, bob = world.client(), world.client()
        alice.send(b"/login alice x\n")
        assert bob.received() == b"/LOGIN ALICE X\n"


class TestLeavingAnAccount:
    """Logging out, and having no account any more."""

    def test_log_out(self) -> None:
        """The session stays, without the nick, which is kept for its owner."""
        world = World(rate=0)
        bob, alice = world.named("bob"), owner(world)
        bob.received()
        assert ask(alice, "/logout") == "-> you are logged out, and have no nick\n"
        assert bob.received() == b"* alice left (2 here): logged out\n"
        assert ask(alice, "hello") == ""
        assert bob.received() == b"HELLO\n"
        assert ask(bob, "/msg alice psst") == (
            "-> alice is not here, and will read it on coming back\n[to alice] psst\n"
        )
        assert alice.received() == b""
        assert ask(alice, "/nick alice").startswith("! alice is registered")
        assert "[bob] psst\n" in ask(alice, f"/login alice {GOOD}")

    def test_log_out_where_a_nick_is_required(self) -> None:
        """Nobody is there without one: the connection ends."""
        world = World(nicknames="required")
        alice = world.client()
        ask(alice, "alice")
        ask(alice, f"/register {GOOD}")
        assert ask(alice, "/logout") == "-> you are logged out, and have no nick\n"
        assert not alice.is_connected
        assert not world.factory.hub.sessions

    def test_an_operator_who_logs_out_is_none(self) -> None:
        """The right goes with the account."""
        world = World(operator=("alice",), rate=0)
        alice = owner(world)
        assert ask(alice, "/bans") == "-> nobody is banned or muted\n"
        ask(alice, "/logout")
        assert ask(alice, "/bans") == "! /bans is for operators\n"

    def test_from_one_account_to_another(self) -> None:
        """Nothing of the first one stays."""
        world = World(operator=("alice",), rate=0)
        owner(world, "bob").close()
        alice, eve = owner(world), world.named("eve")
        eve.received()
        assert "you are logged in as bob" in ask(alice, f"/login bob {GOOD}")
        assert eve.received() == b"* alice left (2 here): logged out\n* bob joined (2 here)\n"
        assert ask(alice, "/bans") == "! /bans is for operators\n"
        assert ask(eve, "/msg alice psst").startswith("-> alice is not here")
        assert alice.received() == b""

    def test_unregister(self) -> None:
        """The nick stays until they leave, as a guest's; what was written before is gone."""
        world = World(operator=("alice",), rate=0)
        alice, bob = owner(world), world.named("bob")
        ask(alice, "/join dev")
        assert ask(alice, f"/unregister {GOOD}") == (
            "-> your account is removed; anyone can have the nick when you leave\n"
        )
        assert ask(alice, "/bans") == "! /bans is for operators\n"
        assert ask(bob, "/nick alice") == "! alice is taken\n"
        assert ask(bob, "/msg alice psst") == "[to alice] psst\n"
        assert alice.received() == b"[bob] psst\n"
        alice.close()
        assert ask(bob, "/nick alice") == "-> you are now alice\n"
        assert ask(bob, f"/register {GOOD}") == (
            "-> alice is yours: /login alice PASSWORD brings you back\n"
        )

    def test_an_operator_again_only_by_an_operator(self) -> None:
        """Who is given the nick of a former operator is none."""
        world = World(operator=("root-1",), rate=0)
        root, alice = owner(world, "root-1"), owner(world)
        assert ask(root, "/op alice") == "-> alice is an operator now\n"
        ask(alice, f"/unregister {GOOD}")
        assert "is yours" in ask(alice, f"/register {GOOD}")
        assert ask(alice, "/bans") == "! /bans is for operators\n"


def test_tries_are_made_by_commands_as_well() -> None:
    """Five wrong ones, then a wait; who is at the owner's own address has tries of its own."""
    world = World(plaintext_login=True, rate=0)
    alice = world.client(host="192.0.2.7")
    ask(alice, "/nick alice")
    ask(alice, f"/register {GOOD}")
    alice.close()
    eve = world.client(host="198.51.100.9")
    for _ in range(TRIES):
        assert ask(eve, f"/login alice {BAD}") == WRONG
    assert ask(eve, f"/login alice {GOOD}") == "! too many tries: the next one is in 20 s\n"
    again = world.client(host="192.0.2.7")
    assert ask(again, f"/login alice {GOOD}") == "-> you are logged in as alice\n"
    world.wait(accounts.NEXT_TRY)
    assert ask(eve, f"/login alice {BAD}") == WRONG


def test_the_log_tells_of_wrong_passwords(logged: Callable[[], str]) -> None:
    """Whose account, and from where; nothing of what was typed."""
    world = World(rate=0)
    owner = world.client()
    ask(owner, "/nick alice")
    ask(owner, f"/register {GOOD}")
    ask(world.client(), f"/login alice {BAD}")
    assert "'account': 'alice'" in logged()
    assert "'address': '127.0.0.1:40001'" in logged()
    ask(world.client(), f"/login {GOOD} alice")
    assert "'account': 'an unknown account'" in logged()
    assert BAD not in logged()
    assert GOOD not in logged()


def test_a_client_that_leaves_while_it_logs_in(logged_errors: list[ChatError]) -> None:
    """Nothing is left of it: no name, no place, no error."""
    late = LateChecker()
    world = World(checkers=[late])
    alice = world.client()
    ask(alice, f"/login alice {GOOD}")
    alice.reset()
    late.answer.callback(b"alice")
    world.turn()
    assert not world.factory.hub.sessions
    assert not world.factory.hub.rooms
    bob = world.client()
    assert "alice is registered" in ask(bob, "/nick alice")
