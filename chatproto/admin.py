"""``chat-admin``: what is done to a store from outside: accounts, a copy, a look at its health.

    chat-admin --store FILE COMMAND ─► a second connection, for a moment ─► the file

It works beside a server that runs, and must not harm it. SQLite versions before 3.51.3 can damage a
write-ahead log when two connections write and one of them moves it into the file just then
(sqlite.org/wal.html#walresetbug). That takes a connection which begins such a checkpoint after
another one has finished one; so there is only one that ever does, the server's: ours switches it
off. When ours is closed last it does tidy up, but then it has the file locked for itself.
"""

from __future__ import annotations

import argparse
import fcntl
import getpass
import json
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import chatproto
from chatproto.errors import ChatError, CommandError, StoreError
from chatproto.model import INBOX_MARK, Account, inbox
from chatproto.passwords import MAX_BYTES, BadPassword, Hasher, check_password
from chatproto.settings import MEMORY, load
from chatproto.stores.sqlite import rows
from chatproto.stores.sqlite.directory import (
    account,
    accounts,
    add_account,
    change_account,
    remove_account,
)
from chatproto.stores.sqlite.file import (
    APPLICATION_ID,
    EXTRA,
    VERSION,
    ForeignFile,
    StoreFile,
    copy,
    in_words,
    newer,
)
from chatproto.text import check_nick, fold

BUSY: Final = 5.0
"""Seconds to wait while another program has the file locked: the server's longest step is about
5 ms, a slow disk's sync a second."""

COUNTS: Final = (
    ("rooms", f"SELECT count(*) FROM rooms WHERE name NOT GLOB '{INBOX_MARK}*'"),
    ("events", "SELECT count(*) FROM events"),
    ("accounts", "SELECT count(*) FROM accounts"),
)

RULES: Final = (
    (
        "a room lacks events, or has some too many",
        "SELECT 1 FROM rooms WHERE seq - first + 1 <> "
        "(SELECT count(*) FROM events WHERE events.room = rooms.id)",
    ),
    (
        "there are events of no room",
        "SELECT 1 FROM events WHERE room NOT IN (SELECT id FROM rooms)",
    ),
    (
        "an event has an id that was not given yet",
        "SELECT 1 FROM state WHERE last_id < (SELECT max(id) FROM events)",
    ),
)
"""What is wrong, and a query that finds something only then."""


@contextmanager
def opened(path: str, *, writes: bool = False) -> Iterator[sqlite3.Connection]:
    """Give a connection to the store at `path`, in a transaction that is committed at the end.

    Raises `StoreError`; never makes a store.
    """
    try:
        with closing(_connect(path)) as connection:
            if writes:
                connection.execute("BEGIN IMMEDIATE")
            else:
                connection.execute("PRAGMA query_only = ON")
                connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise in_words(error) from None


def _connect(path: str) -> sqlite3.Connection:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise StoreError("this is not a file")
    except FileNotFoundError:
        raise StoreError("there is no such file") from None
    except OSError as error:
        raise StoreError(f"the file cannot be reached: {error.strerror}") from None
    if not os.access(path, os.R_OK):
        raise StoreError("the file may not be read")
    # Also for reading it is opened to be written to, if it may be: with mode=ro SQLite would leave
    # an empty write-ahead log behind where no server runs.
    uri = f"{Path(path).as_uri()}?mode=rw"
    if not os.path.exists(path + "-wal") and not os.access(os.path.dirname(path), os.W_OK):
        uri = f"{Path(path).as_uri()}?immutable=1"  # as on a read-only disk: no server can run
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the reason is at the top
        version = _value(connection, "PRAGMA user_version")
        if _value(connection, "PRAGMA application_id") != APPLICATION_ID:
            raise ForeignFile("this is not the store of a chat")
        if version > VERSION:
            raise newer(version)
        if version < VERSION:
            raise ForeignFile(
                f"it was written by an older chatproto (version {version} of the store, "
                f"this one has {VERSION}): start the server once"
            )
        connection.execute("SELECT count(*) FROM sqlite_master")  # or it is damaged
    except BaseException:
        connection.close()
        raise
    return connection


def _value(connection: sqlite3.Connection, query: str) -> int:
    found: int = connection.execute(query).fetchone()[0]
    return found


def _is_served(path: str) -> bool:
    """Tell whether a server is using the store at `path`."""
    try:
        lock = os.open(path + "-lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"whether a server uses it cannot be seen: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


# The commands. Each gets the path of the store and its own arguments.


def list_accounts(path: str, arguments: argparse.Namespace) -> None:
    """List the accounts."""
    with opened(path) as connection:
        found = accounts(connection)
    if arguments.json:
        for one in found:
            line = {
                "nick": one.nick,
                "operator": one.is_operator,
                "created": datetime.fromtimestamp(one.created, UTC).isoformat(),
                "elsewhere": not one.secret,
            }
            print(json.dumps(line))
        return
    table = [("NICK", "OPERATOR", "PASSWORD", "CREATED")]
    for one in found:
        created = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(one.created))
        where = "here" if one.secret else "elsewhere"
        table.append((one.nick, "yes" if one.is_operator else "no", where, created))
    width = max(len(row[0]) for row in table)
    for nick, *rest in table:
        print(f"{nick:{width}}  {rest[0]:8}  {rest[1]:9}  {rest[2]}")


def add(path: str, arguments: argparse.Namespace) -> None:
    """Make an account, and a store for it where there is none."""
    nick = check_nick(arguments.nick)
    if os.path.exists(path):
        with opened(path) as connection:
            _check_free(connection, nick)
    secret = Hasher().hash(_ask_password())
    if not os.path.exists(path):
        file = StoreFile(path)
        file.prepare()
        file.unlock()
    with opened(path, writes=True) as connection:
        _check_free(connection, nick)
        add_account(connection, Account(nick, secret, arguments.operator, time.time(), ""))
        # What is in its inbox by now was written to somebody else.
        connection.execute(
            "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
            (fold(nick), inbox(fold(nick)), rows.last_id(connection)),
        )
    print(f"{nick} has an account now" + (", an operator's" if arguments.operator else ""))


def reset_password(path: str, arguments: argparse.Namespace) -> None:
    """Give an account another password."""
    with opened(path) as connection:
        _find(connection, arguments.nick)
    secret = Hasher().hash(_ask_password())
    with opened(path, writes=True) as connection:
        found = _find(connection, arguments.nick)
        change_account(connection, fold(found.nick), secret=secret)
    print(f"{found.nick} has a new password")


def remove(path: str, arguments: argparse.Namespace) -> None:
    """Remove an account, and the private messages to it."""
    with opened(path, writes=True) as connection:
        found = _find(connection, arguments.nick)
        name = fold(found.nick)
        remove_account(connection, name)
        # The row of the inbox stays as it is: a server that runs remembers it.
        messages = rows.room_named(connection, inbox(name))
        if messages is not None:
            rows.remove(connection, messages, messages.seq)
    print(f"{found.nick} has no account any more")


def set_operator(path: str, arguments: argparse.Namespace) -> None:
    """Let an account moderate, or no longer."""
    with opened(path, writes=True) as connection:
        found = _find(connection, arguments.nick)
        change_account(connection, fold(found.nick), is_operator=arguments.value)
    print(f"{found.nick} is {'an' if arguments.value else 'no'} operator now")


def backup(path: str, arguments: argparse.Namespace) -> None:
    """Write a copy of the store as it is at one moment."""
    target = os.path.abspath(arguments.file)
    with opened(path) as connection:
        _check_target(path, target, arguments.force)
        try:
            copy(connection, target)
        except sqlite3.Error as error:
            raise CommandError(f"{target}: {in_words(error).sentence}") from None
        except OSError as error:
            raise CommandError(f"{target}: {error.strerror}") from None
    print(f"{target}: {_size(target)}")


def check(path: str, arguments: argparse.Namespace) -> None:
    """Look for damage; raises `StoreError` when there is some."""
    with opened(path) as connection:
        problems = [row[0] for row in connection.execute("PRAGMA integrity_check")]
        if problems == ["ok"]:
            problems = [what for what, query in RULES if connection.execute(query).fetchone()]
            counts = [f"{name} {_value(connection, query):,}" for name, query in COUNTS]
            print(f"{path}: {_size(path)}, version {VERSION}, {', '.join(counts)}")
    if not problems:
        problems = _check_index(path)
    for problem in problems:
        print(problem)
    if problems:
        raise StoreError("the store is damaged")
    print("no damage was found")


def _check_index(path: str) -> list[str]:
    # The index checks itself as if it were written to, which nobody else can then do.
    if _is_served(path):
        print("the index for searching was not checked: a server is using the store")
        return []
    with opened(path, writes=True) as connection:
        try:
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                print("the index for searching was not checked: the store may not be written to")
                return []
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_CORRUPT:
                return ["the index for searching is damaged"]
            raise
    return []


def _check_free(connection: sqlite3.Connection, nick: str) -> None:
    found = account(connection, fold(nick))
    if found is not None:
        raise CommandError(f"{found.nick} has an account already")


def _find(connection: sqlite3.Connection, nick: str) -> Account:
    found = account(connection, fold(nick))
    if found is None:
        raise CommandError(f"{check_nick(nick)} has no account")
    return found


def _check_target(path: str, target: str, force: bool) -> None:
    """Raise `CommandError` if a copy may not be written to `target`."""
    ours = {os.path.realpath(path + extra) for extra in ("", "-lock", *EXTRA)}
    if os.path.realpath(target) in ours:
        raise CommandError(f"{target} is the store itself")
    if os.path.lexists(target) and not force:
        raise CommandError(f"{target} exists already: --force overwrites it")
    # A write-ahead log that was left there would be taken for the copy's own.
    if os.path.exists(target + "-wal"):
        raise CommandError(f"{target} is in use, or its server was cut off: {target}-wal is there")


def _ask_password() -> str:
    """Return a new password, from the terminal or from standard input."""
    if sys.stdin is not None and sys.stdin.isatty():
        try:
            password = getpass.getpass("Password: ")
            again = getpass.getpass("The same again: ")
        except EOFError:
            raise BadPassword("no password was given") from None
        if password != again:
            raise BadPassword("these are two different passwords")
        return check_password(password)
    line = sys.stdin.buffer.readline(MAX_BYTES + 3) if sys.stdin is not None else b""
    if not line:
        raise BadPassword("no password was given: it is read from standard input")
    text = line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="surrogateescape")
    return check_password(text)


def _size(path: str) -> str:
    return f"{os.stat(path).st_size:,} bytes"


Run = Callable[[str, argparse.Namespace], None]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat-admin",
        description="Looks after the store of a chat server, also while the server runs.",
    )
    parser.add_argument("--store", metavar="FILE", help="the server's store [CHAT_STORE, chat.db]")
    parser.add_argument("--config", metavar="FILE", help="the server's TOML file [CHAT_CONFIG]")
    parser.add_argument("--version", action="version", version=f"chatproto {chatproto.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Run, text: str, *, nick: bool = False) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        if nick:
            made.add_argument("nick", metavar="NICK")
        return made

    made = command("accounts", list_accounts, "list the accounts")
    made.add_argument("--json", action="store_true", help="one JSON object on a line")
    made = command("add", add, "make an account; asks for its password", nick=True)
    made.add_argument("--operator", action="store_true", help="it may moderate")
    command("password", reset_password, "give an account another password", nick=True)
    command("remove", remove, "remove an account and the messages to it", nick=True)
    made = command("op", set_operator, "let an account moderate", nick=True)
    made.set_defaults(value=True)
    made = command("deop", set_operator, "let an account moderate no longer", nick=True)
    made.set_defaults(value=False)
    made = command("backup", backup, "write a copy of the store")
    made.add_argument("file", metavar="FILE")
    made.add_argument("--force", action="store_true", help="overwrite FILE")
    command("check", check, "look for damage in the store")
    return parser


def _store_path(arguments: argparse.Namespace) -> str:
    given = {} if arguments.store is None else {"store": arguments.store}
    config = arguments.config or os.environ.get("CHAT_CONFIG")
    path = load(given, os.environ, config).store
    if path == MEMORY:
        raise CommandError("a store in memory can be seen by its server only")
    return os.path.realpath(path)  # as SQLite does, for the files beside it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = _parser().parse_args(argv)
    run: Run = arguments.run
    try:
        path = _store_path(arguments)
        try:
            run(path, arguments)
        except StoreError as error:
            raise StoreError(f"--store {path}: {error.sentence}") from None
        finally:
            print(end="", flush=True)
    except ChatError as error:
        print(f"chat-admin: {error.sentence}", file=sys.stderr)
        return 1
    except OSError as error:
        # Nobody reads any more, or the disk that it was to go to is full. Python would complain
        # once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"chat-admin: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
