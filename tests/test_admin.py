"""chat-admin: what each command does to a store, and what it says where it cannot."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from chatproto import admin
from chatproto.model import Account, Event, Kind, inbox
from chatproto.passwords import Hasher
from chatproto.stores.sqlite import rows
from chatproto.stores.sqlite.directory import account, add_account
from chatproto.stores.sqlite.file import APPLICATION_ID, VERSION, StoreFile

GOOD = "correct-horse"


class Terminal(io.TextIOWrapper):
    """Standard input where somebody sits."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Outcome:
    """What a command has printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str) -> None:
        """Keep them."""
        self.status, self.out, self.err = status, out, err

    def done(self) -> str:
        """Return what it has printed, as it has done what it should."""
        assert (self.status, self.err) == (0, "")
        return self.out

    def failed(self) -> str:
        """Return its one sentence, as it could not do it."""
        assert self.status == 1
        assert re.fullmatch(r"chat-admin: [^\n]+\n", self.err)
        return self.err.removeprefix("chat-admin: ").rstrip("\n")


Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of its own, with no settings from outside."""
    for name in [name for name in os.environ if name.startswith("CHAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``chat-admin`` to its end, with these bytes on standard input; None: on a terminal."""

    def run_one(*argv: object, stdin: bytes | None = b"") -> Outcome:
        kind = Terminal if stdin is None else io.TextIOWrapper
        monkeypatch.setattr("sys.stdin", kind(io.BytesIO(stdin or b""), encoding="utf-8"))
        status = admin.main([*map(str, argv)])
        return Outcome(status, *capsys.readouterr())

    return run_one


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store as a server leaves it, at the place where it is looked for."""
    return made(tmp_path / "chat.db")


def made(path: Path) -> Path:
    """Make a store."""
    file = StoreFile(str(path))
    file.prepare()
    file.unlock()
    return path


@contextmanager
def inside(path: Path) -> Iterator[sqlite3.Connection]:
    """Look into a file, or change it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def register(path: Path, *nicks: str, secret: str = "$", is_operator: bool = False) -> None:
    """Put accounts into a store."""
    with inside(path) as connection:
        for nick in nicks:
            assert add_account(connection, Account(nick, secret, is_operator, 1e9, "local"))


def found(path: Path, nick: str) -> Account | None:
    """Return an account of a store."""
    with inside(path) as connection:
        return account(connection, nick)


def say(path: Path, room: str, *texts: str, kind: Kind = Kind.SAID) -> None:
    """Put events into a room of a store."""
    with inside(path) as connection:
        indexed = None if room.startswith("@") else 0
        connection.execute(
            "INSERT OR IGNORE INTO rooms (name, indexed) VALUES (?, ?)", (room, indexed)
        )
        known = rows.room_named(connection, room)
        assert known is not None
        first = rows.last_id(connection) + 1
        events = [
            Event(first + number, known.seq + 1 + number, 1e9, room, kind, "bob", text, 0, 0, "")
            for number, text in enumerate(texts)
        ]
        rows.insert(connection, {room: known.id}, events)
        connection.execute("UPDATE rooms SET seq = seq + ? WHERE name = ?", (len(texts), room))
        connection.execute("UPDATE state SET last_id = last_id + ?", (len(texts),))
        again = rows.room_named(connection, room)
        if again is not None and indexed is not None:
            rows.index(connection, again, len(texts))


def beside(path: Path) -> list[str]:
    """Return what is in the folder of a store."""
    return sorted(os.listdir(path.parent))


# Accounts.


def test_add(run: Run, store: Path) -> None:
    """An account that was added is one whose owner can log in with the password."""
    before = time.time()
    assert run("add", "Alice", stdin=GOOD.encode() + b"\n").done() == "Alice has an account now\n"
    alice = found(store, "alice")
    assert alice is not None
    assert Hasher().verify(alice.secret, GOOD)
    assert not Hasher().is_outdated(alice.secret)
    assert (alice.nick, alice.is_operator, alice.address) == ("Alice", False, "")
    assert before <= alice.created <= time.time()


def test_add_where_the_nick_was_written_to(run: Run, store: Path) -> None:
    """A new owner is shown what is written from now on, and nothing of what was before."""
    say(store, inbox("alice"), "NOT FOR YOU", kind=Kind.PRIVATE)
    with inside(store) as connection:
        connection.execute("INSERT INTO positions VALUES ('alice', '@alice', 0)")
    run("add", "Alice", stdin=GOOD.encode()).done()
    with inside(store) as connection:
        assert [*connection.execute("SELECT * FROM positions")] == [("alice", "@alice", 1)]


def test_add_an_operator(run: Run, store: Path) -> None:
    """--operator makes an account that may moderate."""
    out = run("add", "--operator", "alice", stdin=GOOD.encode()).done()
    assert out == "alice has an account now, an operator's\n"
    alice = found(store, "alice")
    assert alice is not None
    assert alice.is_operator


def test_add_makes_a_store(run: Run, tmp_path: Path) -> None:
    """Accounts can be made before the first start, in a store that a server can use."""
    path = tmp_path / "new.db"
    assert run("--store", path, "add", "alice", stdin=GOOD.encode()).done()
    assert found(path, "alice")
    assert path.stat().st_mode & 0o777 == 0o600
    file = StoreFile(str(path))
    file.prepare()
    file.unlock()


@pytest.mark.parametrize(
    ("nick", "password", "why"),
    [
        ("alice", b"short\n", "a password has at least 8 characters"),
        ("alice", b"", "no password was given: it is read from standard input"),
        ("alice", b"\n", "a password has at least 8 characters"),
        ("alice", b"caf\xe9-creme\n", "this password is not UTF-8"),
        ("alice", b"x" * 2000 + b"\n", "a password has at most 1024 bytes"),
        ("9lives", b"correct-horse\n", "a nick starts with a letter"),
        ("x" * 33, b"correct-horse\n", "a nick starts with a letter"),
        ("root", b"correct-horse\n", "root is a reserved name"),
    ],
)
def test_add_what_cannot_be(run: Run, tmp_path: Path, nick: str, password: bytes, why: str) -> None:
    """A wrong nick or password is told of, and no store is made for it."""
    assert run("add", nick, stdin=password).failed().startswith(why)
    assert os.listdir(tmp_path) == []


def test_add_twice(run: Run, store: Path) -> None:
    """A nick has one account, however it is written; the password is not even asked for."""
    register(store, "Alice")
    assert run("add", "aLICE").failed() == "Alice has an account already"
    assert found(store, "alice") == Account("Alice", "$", False, 1e9, "local")


def test_add_where_no_store_can_be(run: Run, tmp_path: Path) -> None:
    """A folder that does not exist is told of."""
    path = tmp_path / "nowhere" / "chat.db"
    why = run("--store", path, "add", "alice", stdin=GOOD.encode()).failed()
    assert why.startswith(f"--store {path}: ")
    assert why.endswith("No such file or directory")


@pytest.mark.parametrize("line", [GOOD + "\n", GOOD + "\r\n", GOOD, GOOD + "\nmore\n"])
def test_password(run: Run, store: Path, line: str) -> None:
    """Another password is the only one from then on; it is the first line of the input."""
    register(store, "Alice", secret=Hasher().hash("old-password"), is_operator=True)
    assert run("password", "alice", stdin=line.encode()).done() == "Alice has a new password\n"
    alice = found(store, "alice")
    assert alice is not None
    assert Hasher().verify(alice.secret, GOOD)
    assert alice == Account("Alice", alice.secret, True, 1e9, "local")


def test_a_bad_password_changes_nothing(run: Run, store: Path) -> None:
    """Who chooses a bad password keeps the old one."""
    register(store, "alice")
    assert "at least" in run("password", "alice", stdin=b"short\n").failed()
    assert found(store, "alice") == Account("alice", "$", False, 1e9, "local")


def test_op_and_deop(run: Run, store: Path) -> None:
    """An account can be made an operator's, and no operator's; once more changes nothing."""
    register(store, "Alice", "bob")
    for _ in range(2):
        assert run("op", "alice").done() == "Alice is an operator now\n"
        assert found(store, "alice") == Account("Alice", "$", True, 1e9, "local")
    for _ in range(2):
        assert run("deop", "ALICE").done() == "Alice is no operator now\n"
        assert found(store, "alice") == Account("Alice", "$", False, 1e9, "local")
    assert found(store, "bob") == Account("bob", "$", False, 1e9, "local")


def test_remove(run: Run, store: Path) -> None:
    """Nothing of an account is left for who takes the nick later, and nothing else is touched."""
    register(store, "Alice", "bob")
    say(store, inbox("alice"), "SECRET ONE", "SECRET TWO", kind=Kind.PRIVATE)
    say(store, inbox("bob"), "FOR BOB", kind=Kind.PRIVATE)
    say(store, "lobby", "HELLO")
    with inside(store) as connection:
        for name in ("alice", "bob"):
            connection.execute("INSERT INTO positions VALUES (?, 'lobby', 1)", (name,))
        room = rows.room_named(connection, inbox("alice"))
        assert room is not None
    assert run("remove", "ALICE").done() == "Alice has no account any more\n"
    assert found(store, "alice") is None
    with inside(store) as connection:
        assert [*connection.execute("SELECT account FROM positions")] == [("bob",)]
        texts = [*connection.execute("SELECT text FROM events ORDER BY text")]
        assert texts == [("FOR BOB",), ("HELLO",)]
        # A server that runs goes on with the same row and numbers.
        left = rows.room_named(connection, inbox("alice"))
        assert left is not None
        assert (left.id, left.seq, left.first) == (room.id, room.seq, room.seq + 1)
    assert "no damage" in run("check").done()
    assert run("remove", "alice").failed() == "alice has no account"


@pytest.mark.parametrize("command", ["password", "remove", "op", "deop"])
@pytest.mark.parametrize(
    ("nick", "why"),
    [("carol", "carol has no account"), ("\x1b[2J", "a nick starts with a letter")],
)
def test_no_such_account(run: Run, store: Path, command: str, nick: str, why: str) -> None:
    """What is done to an account needs one; what was given is never shown raw."""
    register(store, "alice")
    assert run(command, nick, stdin=GOOD.encode()).failed().startswith(why)


def test_accounts(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accounts are a table in the order of their nicks, or JSON lines."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert run("accounts").done() == "NICK  OPERATOR  PASSWORD   CREATED\n"
    assert run("accounts", "--json").done() == ""
    register(store, "Zoe", "bob")
    register(store, "Alice", is_operator=True, secret="")
    assert run("accounts").done().splitlines() == [
        "NICK   OPERATOR  PASSWORD   CREATED",
        "Alice  yes       elsewhere  2001-09-09T01:46:40+0000",
        "bob    no        here       2001-09-09T01:46:40+0000",
        "Zoe    no        here       2001-09-09T01:46:40+0000",
    ]
    lines = [json.loads(line) for line in run("accounts", "--json").done().splitlines()]
    assert [line["nick"] for line in lines] == ["Alice", "bob", "Zoe"]
    assert lines[0] == {
        "nick": "Alice",
        "operator": True,
        "created": "2001-09-09T01:46:40+00:00",
        "elsewhere": True,
    }
    assert (lines[1]["operator"], lines[1]["elsewhere"]) == (False, False)


# On a terminal.


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ([GOOD, GOOD], ""),
        ([GOOD, "correct-horsf"], "these are two different passwords"),
        (["short", "short"], "a password has at least 8 characters"),
        ([], "no password was given"),
    ],
)
def test_asked_on_a_terminal(
    run: Run,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: list[str],
    why: str,
) -> None:
    """A password is typed twice, the same both times."""
    answers = iter(typed)

    def ask(prompt: str) -> str:
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("getpass.getpass", ask)
    outcome = run("add", "alice", stdin=None)
    if why:
        assert outcome.failed() == why
    else:
        assert outcome.done()
    assert (found(store, "alice") is None) == bool(why)


def test_given_up(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at the question ends it without a traceback, and changes nothing."""

    def ask(prompt: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("getpass.getpass", ask)
    outcome = run("add", "alice", stdin=None)
    assert (outcome.status, outcome.out, outcome.err) == (130, "", "\n")
    assert found(store, "alice") is None


# Which store.

EVERY = [
    ["accounts"],
    ["add", "alice"],
    ["password", "alice"],
    ["remove", "alice"],
    ["op", "alice"],
    ["deop", "alice"],
    ["backup", "copy.db"],
    ["check"],
]


def test_where_the_store_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked for where the server of the same settings has it."""
    for name in ("chat", "env", "toml", "flag"):
        register(made(tmp_path / f"{name}.db"), f"from-{name}")
    (tmp_path / "chat.toml").write_text('store = "toml.db"\nmotd = "hello"\n')

    def nick(*flags: str) -> str:
        return str(json.loads(run(*flags, "accounts", "--json").done())["nick"])

    assert nick() == "from-chat"
    assert nick("--config", "chat.toml") == "from-toml"
    monkeypatch.setenv("CHAT_CONFIG", "chat.toml")
    assert nick() == "from-toml"
    monkeypatch.setenv("CHAT_STORE", "env.db")
    assert nick() == "from-env"
    assert nick("--store", "flag.db") == "from-flag"


def test_a_link_to_a_store(run: Run, store: Path, tmp_path: Path) -> None:
    """A store that is reached by a link is the same store, with the same server."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(store)
    run("--store", link, "add", "alice", stdin=GOOD.encode()).done()
    assert found(store, "alice")
    server = StoreFile(str(store))
    server.lock()
    try:
        assert "a server is using the store" in run("--store", link, "check").done()
    finally:
        server.unlock()
    assert run("--store", link, "backup", "--force", store).failed().endswith("the store itself")
    assert beside(link) == ["link.db"]


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ("memory", "a store in memory can be seen by its server only"),
        ("redis://localhost", "--store must be a file, or memory: there is no other"),
        ("", "--store must be a file"),
    ],
)
def test_no_store_of_ours(run: Run, store: str, why: str) -> None:
    """What is no file is told of."""
    assert run("--store", store, "accounts").failed().startswith(why)


def test_wrong_settings(run: Run) -> None:
    """A settings file that cannot be read is told of."""
    assert run("--config", "no.toml", "accounts").failed().startswith("--config: cannot read")


@pytest.mark.parametrize("argv", [argv for argv in EVERY if argv[0] != "add"], ids=" ".join)
def test_a_store_is_never_made(run: Run, tmp_path: Path, argv: list[str]) -> None:
    """Where there is no store only `add` makes one."""
    path = tmp_path / "chat.db"
    assert run(*argv, stdin=GOOD.encode()).failed() == f"--store {path}: there is no such file"
    assert os.listdir(tmp_path) == []


def foreign(path: Path) -> None:
    """Make the database of another program."""
    with inside(path) as connection:
        connection.execute("CREATE TABLE accounts (name)")


def newer(path: Path) -> None:
    """Make a store as a later version will."""
    with inside(made(path)) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")


def older(path: Path) -> None:
    """Make a store as an earlier version has."""
    with inside(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION - 1}")
        connection.execute("CREATE TABLE accounts (name)")


def broken(path: Path) -> None:
    """Make a store whose list of tables cannot be read."""
    made(path)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 1000)


OTHERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "foreign": (foreign, "this is not the store of a chat"),
    "newer": (newer, f"it was written by a newer chatproto (version {VERSION + 1} of the store"),
    "older": (older, f"it was written by an older chatproto (version {VERSION - 1} of the store"),
    "broken": (broken, "the store is damaged"),
    "text": (lambda path: path.write_text("dear diary\n" * 100), "this is not a database"),
    "empty": (Path.touch, "this is not the store of a chat"),
    "folder": (Path.mkdir, "this is not a file"),
    "fifo": (os.mkfifo, "this is not a file"),
}


@pytest.mark.parametrize("argv", EVERY, ids=" ".join)
@pytest.mark.parametrize("other", OTHERS)
def test_another_file(run: Run, tmp_path: Path, other: str, argv: list[str]) -> None:
    """A file that is no store of ours is told of, and left as it is."""
    make, why = OTHERS[other]
    path = tmp_path / "chat.db"
    make(path)
    names = beside(path)
    content = path.read_bytes() if path.is_file() else b""
    said = run(*argv, stdin=GOOD.encode()).failed()
    assert said.startswith(f"--store {path}: {why}")
    assert beside(path) == names
    assert not content or path.read_bytes() == content


@pytest.mark.parametrize("argv", [argv for argv in EVERY if argv[0] not in ("add", "backup")])
def test_nothing_is_left_behind(run: Run, store: Path, argv: list[str]) -> None:
    """After any command the folder is as it was, where no server runs."""
    register(store, "alice")
    names = beside(store)
    run(*argv, stdin=GOOD.encode()).done()
    assert beside(store) == names == ["chat.db", "chat.db-lock"]


# Beside others.


def test_locked(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that another program keeps to itself is told of; reading goes on."""
    monkeypatch.setattr(admin, "BUSY", 0.0)
    register(store, "alice")
    with inside(store) as connection:
        connection.execute("BEGIN IMMEDIATE")
        why = run("op", "alice").failed()
        assert why == f"--store {store}: the store is locked by another program"
        assert run("accounts").done()
        assert run("backup", "copy.db").done()
    assert run("op", "alice").done()


def test_it_waits_its_turn(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change waits for the one that a server is making just then."""
    register(store, "alice")
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('BEGIN IMMEDIATE'); print(flush=True); sys.stdin.read(); c.execute('COMMIT')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        connect, let_go = admin._connect, other.stdin.close

        def watched(path: str) -> sqlite3.Connection:
            connection = connect(path)
            connection.set_trace_callback(
                lambda statement: let_go() if statement == "BEGIN IMMEDIATE" else None
            )
            return connection

        monkeypatch.setattr(admin, "_connect", watched)
        run("op", "alice").done()
        assert other.wait(60) == 0
    alice = found(store, "alice")
    assert alice is not None
    assert alice.is_operator


def test_it_never_moves_the_log_into_the_file(run: Run, store: Path) -> None:
    """Beside a server only that one writes to the file itself: we add to its write-ahead log."""
    register(store, "alice")
    with inside(store) as server:
        server.execute("PRAGMA wal_autocheckpoint = 0")
        server.execute("CREATE TABLE ballast (x)")
        for _ in range(5):  # beyond the 1000 pages after which SQLite moves the log by itself
            server.execute("INSERT INTO ballast VALUES (randomblob(1000000))")
        before = store.read_bytes()
        wal = Path(f"{store}-wal")
        size = wal.stat().st_size
        assert size > 1000 * 4096
        for argv in (["op", "alice"], ["password", "alice"], ["add", "bob"], ["remove", "bob"]):
            run(*argv, stdin=GOOD.encode()).done()
        run("accounts").done()
        run("backup", "copy.db").done()
        run("check").done()
        assert store.read_bytes() == before
        assert wal.stat().st_size > size
        alice = account(server, "alice")
        assert alice is not None
        assert alice.is_operator
        assert server.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# Backup.


def test_backup(run: Run, store: Path, tmp_path: Path) -> None:
    """A copy is a store that holds everything, for its owner only."""
    register(store, "alice")
    say(store, "lobby", "HELLO", "WORLD")
    copy = tmp_path / "copies" / "one.db"
    copy.parent.mkdir()
    out = run("backup", copy).done()
    assert out == f"{copy}: {copy.stat().st_size:,} bytes\n"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert beside(copy) == ["one.db"]
    assert beside(store) == ["chat.db", "chat.db-lock", "copies"]
    assert "events 2, accounts 1" in run("--store", copy, "check").done()
    assert beside(copy) == ["one.db"]
    with inside(copy) as connection:
        assert [event.text for event in rows.page(connection, "lobby", 0, None, 9)] == [
            "HELLO",
            "WORLD",
        ]
    made(copy)  # a server can use it


def test_backup_does_not_overwrite(run: Run, store: Path, tmp_path: Path) -> None:
    """A file that is there stays, unless --force says otherwise."""
    target = tmp_path / "copy.db"
    target.write_text("precious")
    why = run("backup", "copy.db").failed()
    assert why == f"{target} exists already: --force overwrites it"
    assert target.read_text() == "precious"
    assert run("backup", "--force", "copy.db").done()
    assert run("--store", "copy.db", "check").done()


@pytest.mark.parametrize("extra", ["", "-wal", "-shm", "-lock"])
def test_backup_onto_itself(run: Run, store: Path, tmp_path: Path, extra: str) -> None:
    """The store, and what is beside it, is never the target, under whatever name."""
    content = store.read_bytes()
    (tmp_path / "link").symlink_to(f"chat.db{extra}")
    for target in (f"chat.db{extra}", f"../{tmp_path.name}/chat.db{extra}", "link"):
        assert run("backup", "--force", target).failed().endswith("is the store itself")
    assert store.read_bytes() == content


def test_backup_onto_a_store_in_use(run: Run, store: Path, tmp_path: Path) -> None:
    """A write-ahead log at the target belongs to another file, and would spoil the copy."""
    other = made(tmp_path / "other.db")
    with inside(other) as connection:
        connection.execute("SELECT * FROM state").fetchall()
        why = run("backup", "--force", "other.db").failed()
    assert why == f"{other} is in use, or its server was cut off: {other}-wal is there"


@pytest.mark.parametrize(
    ("target", "why"),
    [("nowhere/copy.db", "No such file or directory"), ("folder", "Is a directory")],
)
def test_backup_to_nowhere(run: Run, store: Path, tmp_path: Path, target: str, why: str) -> None:
    """A target that cannot be is told of, and nothing is left behind."""
    (tmp_path / "folder").mkdir()
    names = beside(store)
    assert run("backup", "--force", target).failed() == f"{tmp_path / target}: {why}"
    assert beside(store) == names


# Check.


def test_check(run: Run, store: Path) -> None:
    """A sound store is told how much it holds; inboxes are no rooms."""
    register(store, "alice", "bob")
    say(store, "lobby", *map(str, range(1200)))
    say(store, "kitchen", "HELLO")
    say(store, inbox("alice"), "PSST", kind=Kind.PRIVATE)
    size = store.stat().st_size
    assert run("check").done() == (
        f"{store}: {size:,} bytes, version {VERSION}, rooms 2, events 1,202, accounts 2\n"
        "no damage was found\n"
    )


def test_check_beside_a_server(run: Run, store: Path) -> None:
    """The index is left out where checking it would keep a server from writing."""
    say(store, "lobby", "HELLO")
    server = StoreFile(str(store))
    server.lock()
    try:
        out = run("check").done().splitlines()
    finally:
        server.unlock()
    assert out[1:] == [
        "the index for searching was not checked: a server is using the store",
        "no damage was found",
    ]
    server.lock()  # it is free again
    server.unlock()


DAMAGES = {
    "gap": (
        "DELETE FROM events WHERE id = 2",
        "a room lacks events, or has some too many",
    ),
    "too many": (
        "UPDATE rooms SET seq = 1",
        "a room lacks events, or has some too many",
    ),
    "no room": ("DELETE FROM rooms", "there are events of no room"),
    "future": ("UPDATE state SET last_id = 1", "an event has an id that was not given yet"),
    "index": (
        "DELETE FROM words_data WHERE id > 100",
        "the index for searching is damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds(run: Run, store: Path, damage: str) -> None:
    """What does not fit together is named, and the status is 1."""
    say(store, "lobby", "ONE", "TWO", "THREE")
    statement, what = DAMAGES[damage]
    with inside(store) as connection:
        connection.execute(statement)
    outcome = run("check")
    assert outcome.failed() == f"--store {store}: the store is damaged"
    assert what in outcome.out.splitlines()


def test_check_finds_damaged_pages(run: Run, store: Path) -> None:
    """A page that was overwritten is found by SQLite's own check."""
    say(store, "lobby", *("x" * 1000 for _ in range(100)))
    with inside(store) as connection:
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'events'"
        ).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with store.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    assert run("check").failed() == f"--store {store}: the store is damaged"


# Where not everything may be done.


@pytest.fixture
def limited() -> Iterator[Path]:
    """A store with an account of alice's, owned by somebody who is not root: us in this test."""
    folder = Path(tempfile.mkdtemp()).resolve()
    path = made(folder / "chat.db")
    register(path, "alice")
    was_root = os.geteuid() == 0
    if was_root:
        for name in (folder, *folder.iterdir()):
            os.chown(name, 65534, 65534)
        os.setresuid(65534, 65534, 0)
    try:
        yield path
    finally:
        if was_root:
            os.setresuid(0, 0, 0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_read_only_file(run: Run, limited: Path) -> None:
    """A store that may not be written to can be read; a change is refused in words."""
    limited.chmod(0o400)
    store = ("--store", limited)
    assert "alice" in run(*store, "accounts").done()
    assert "was not checked: the store may not be written to" in run(*store, "check").done()
    for argv in (["op", "alice"], ["remove", "alice"], ["add", "bob"], ["password", "alice"]):
        why = run(*store, *argv, stdin=GOOD.encode()).failed()
        assert why == f"--store {limited}: the store may not be written to"


def test_a_read_only_folder(run: Run, limited: Path) -> None:
    """A store on a disk that nobody can write to, as of a backup, can be read and checked."""
    limited.parent.chmod(0o500)
    store = ("--store", limited)
    assert "alice" in run(*store, "accounts").done()
    assert "no damage" in run(*store, "check").done()
    why = run(*store, "op", "alice").failed()
    assert why == f"--store {limited}: the store may not be written to"
    target = limited.with_name("copy.db")
    assert run(*store, "backup", target).failed() == f"{target}: Permission denied"
    assert beside(limited) == ["chat.db", "chat.db-lock"]


def test_a_file_of_somebody_else(run: Run, limited: Path) -> None:
    """A store, or a folder, that may not be read is told of."""
    limited.chmod(0o000)
    store = ("--store", limited)
    assert run(*store, "accounts").failed() == f"--store {limited}: the file may not be read"
    limited.parent.chmod(0o000)
    why = run(*store, "accounts").failed()
    assert why == f"--store {limited}: the file cannot be reached: Permission denied"


def test_a_lock_of_somebody_else(run: Run, limited: Path) -> None:
    """Where it cannot be seen whether a server runs, the index is not touched."""
    Path(f"{limited}-lock").chmod(0o000)
    why = run("--store", limited, "check").failed()
    assert why == f"--store {limited}: whether a server uses it cannot be seen: Permission denied"


# Use.


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["explode"],
        ["add"],
        ["op"],
        ["backup"],
        ["add", "alice", GOOD],
        ["password", "alice", GOOD],
        ["add", "alice", "--password", GOOD],
        ["accounts", "--xml"],
        ["--store"],
    ],
)
def test_wrong_use(argv: list[str], capsys: pytest.CaptureFixture[str], store: Path) -> None:
    """A wrong use is shown the right one, with status 2; passwords are no arguments."""
    with pytest.raises(SystemExit) as caught:
        admin.main(argv)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: chat-admin")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """--help names every command."""
    with pytest.raises(SystemExit) as caught:
        admin.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for argv in EVERY:
        assert re.search(rf"^    {argv[0]} ", out, re.MULTILINE)
