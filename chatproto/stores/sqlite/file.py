"""The file of the SQLite store: whose it is, its version, and how it is opened.

    prepare (before the server becomes a daemon) ─► lock ─► migrate ─► closed again
    open (in the process that serves) ─► one connection, which the writer's thread uses

A SQLite connection must not be carried through a fork, the lock can.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import closing, suppress
from importlib import resources
from pathlib import Path
from typing import Final

from chatproto.errors import StartError, StoreError

APPLICATION_ID: Final = 0x43484154
"""``CHAT``: what marks a file as ours (PRAGMA application_id)."""

VERSION: Final = 1
"""The newest schema we know (PRAGMA user_version): there is one ``.sql`` file for each version,
which turns the version before it into its own."""

BUSY: Final = 2.0
"""Seconds to wait while another program has the file locked."""

WAL_BYTES: Final = 64 * 1024 * 1024
"""What the write-ahead log is cut back to after it has grown."""

CACHE_KIB: Final = 16 * 1024
"""Memory for pages of the file."""

EXTRA: Final = ("-wal", "-shm")
"""What SQLite adds to the file's name for the two files beside it."""


class ForeignFile(StoreError):
    """The file is not ours, or of a version that we do not know."""

    code = "foreign-file"


class StoreFile:
    """One store on disk."""

    def __init__(self, path: str, *, durability: str = "full") -> None:
        """Use the file `path`; `durability` is ``full`` (every commit reaches the disk before it
        counts) or ``normal`` (a power cut may take the last ones; a crash of the process cannot).
        """
        self.path = os.path.realpath(path)  # as SQLite does, for the files beside it
        self._rescued = self.path + "-restored"
        self._synchronous = durability.upper()
        self._lock: int | None = None
        self._is_new = False  # whether `prepare` has made it

    def prepare(self, owner: tuple[int, int] = (-1, -1)) -> None:
        """Make sure that this process can serve the store: lock it, make or migrate it.

        `owner` is the user and group that the process is going to be, -1 for what it is. Raises
        `StartError`.
        """
        try:
            self.lock()
            self._is_new = not os.path.exists(self.path)
            with closing(self.open()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                # On a file that is read only, the transaction alone would succeed.
                connection.execute("UPDATE state SET last_id = last_id")
                connection.execute("ROLLBACK")
            if owner != (-1, -1):
                for name in (self.path, *(self.path + extra for extra in ("-lock", *EXTRA))):
                    with suppress(FileNotFoundError):
                        os.chown(name, *owner)
        except (StoreError, sqlite3.Error, OSError) as error:
            self.abandon()
            raise StartError(f"--store {self.path}: {in_words(error).sentence}") from None

    def abandon(self) -> None:
        """Leave nothing behind of a start that fails."""
        if self._lock is not None:
            new = (self.path, *(self.path + extra for extra in EXTRA)) if self._is_new else ()
            for name in (*new, self.path + "-lock"):
                with suppress(OSError):
                    os.unlink(name)
        self.unlock()

    def lock(self) -> None:
        """Keep other servers from this store; raises `StoreError` when one has it."""
        while self._lock is None:
            lock = self._take_lock()
            if _identity(self.path + "-lock") == _identity(lock):
                self._lock = lock
            else:  # whoever had it has removed the file meanwhile
                os.close(lock)

    def _take_lock(self) -> int:
        lock = os.open(self.path + "-lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # On a file of its own: SQLite's own locks go when any descriptor of its file is closed.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                raise StoreError("another server is using it") from None
            raise
        return lock

    def unlock(self) -> None:
        """Let others use this store."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open(self) -> sqlite3.Connection:
        """Return a connection to the store, in its newest version; raises `StoreError`."""
        connection = None
        try:
            if not os.path.exists(self.path):
                self._make()
            connection = sqlite3.connect(
                self.path, timeout=BUSY, isolation_level=None, check_same_thread=False
            )
            if self._is_empty(connection):
                connection.execute("PRAGMA journal_mode = WAL")
            self._migrate(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._synchronous}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            connection.execute("PRAGMA secure_delete = ON")  # what was removed is not to be found
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        except (StoreError, sqlite3.Error, OSError) as error:
            if connection is not None:
                connection.close()
            raise in_words(error) from None
        return connection

    def identity(self) -> tuple[int, int] | None:
        """Return what tells the file from another of the same name, None when there is none."""
        return _identity(self.path)

    def wal_identity(self) -> tuple[int, int] | None:
        """The same for its write-ahead log."""
        return _identity(self.path + "-wal")

    def restore(self, connection: sqlite3.Connection) -> None:
        """Write the store, which somebody has deleted, back from the connection that is still open;
        close that. Raises `StoreError`.
        """
        try:
            copy(connection, self._rescued)
            connection.close()
            self._make()
        except sqlite3.Error as error:
            raise in_words(error) from None
        except OSError as error:
            raise StoreError(f"the file is gone: {error.strerror}") from None

    def remove_extra(self) -> None:
        """Remove the files beside a store that is gone: the next one must not take them for its
        own.
        """
        for extra in EXTRA:
            with suppress(FileNotFoundError):
                os.unlink(self.path + extra)

    def _make(self) -> None:
        """Make an empty file, unless what was in the last one still waits for its name."""
        if os.path.exists(self._rescued):
            self.remove_extra()
            os.rename(self._rescued, self.path)
        else:
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))

    def _is_empty(self, connection: sqlite3.Connection) -> bool:
        return not _pragma(connection, "page_count")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        version = _pragma(connection, "user_version")
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if _pragma(connection, "application_id") != APPLICATION_ID and (tables or version):
            raise ForeignFile("this is a database of another program")
        if version > VERSION:
            raise newer(version)
        if version == VERSION:
            return
        if version:
            copy(connection, f"{self.path}.version-{version}")
        connection.execute("BEGIN EXCLUSIVE")
        try:
            for step in range(version + 1, VERSION + 1):
                for statement in statements(step):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def newer(version: int) -> ForeignFile:
    """Return the error for a store of a version that we do not know yet."""
    return ForeignFile(
        f"it was written by a newer chatproto (version {version} of the store, "
        f"this one knows {VERSION})"
    )


def statements(version: int) -> list[str]:
    """Return the statements that make this version of the schema out of the one before."""
    script = resources.files(__package__).joinpath(f"schema_{version}.sql").read_text()
    found: list[str] = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found


def copy(connection: sqlite3.Connection, path: str) -> None:
    """Write all that is in `connection` to a new file at `path`, whole or not at all."""
    unfinished = path + "-unfinished"
    Path(unfinished).unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        with closing(sqlite3.connect(unfinished)) as target:
            connection.backup(target)
        with open(unfinished, "rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def in_words(error: StoreError | sqlite3.Error | OSError) -> StoreError:
    """Return what went wrong, for people."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OSError):
        return StoreError(f"the store cannot be used: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", 0)
    sentence = _SENTENCES.get(code) or _SENTENCES.get(code & 0xFF)
    return StoreError(sentence or f"the store cannot be used: {error}")


_SENTENCES: Final = {
    sqlite3.SQLITE_BUSY: "the store is locked by another program",
    sqlite3.SQLITE_LOCKED: "the store is locked by another program",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR_SHMSIZE: "the disk is full",  # the file beside it cannot grow
    sqlite3.SQLITE_READONLY: "the store may not be written to",
    sqlite3.SQLITE_CANTOPEN: "the store cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_CORRUPT: "the store is damaged",
    sqlite3.SQLITE_NOTADB: "this is not a database",
}


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _identity(path: str | int) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise StoreError(f"the file cannot be reached: {error.strerror}") from None
    return found.st_dev, found.st_ino
