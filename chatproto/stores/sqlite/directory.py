"""Accounts, topics, read positions and restrictions in the SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred

from chatproto.model import Account, Restriction
from chatproto.stores import Topic
from chatproto.stores.sqlite.writer import Writer
from chatproto.text import fold

_ACCOUNTS: Final = "SELECT nick, secret, operator, created, address FROM accounts "


class SqliteDirectory:
    """Everything beside the events, in the file of `writer`."""

    def __init__(self, writer: Writer) -> None:
        """Use the connection of `writer`, which the log opens."""
        self._read = writer.read
        self._write = writer.write

    def topic(self, room: str) -> Deferred[Topic]:
        """Read the topic of a room."""

        def job(connection: sqlite3.Connection) -> Topic:
            found = connection.execute(
                "SELECT topic, topic_by FROM rooms WHERE name = ?", (room,)
            ).fetchone()
            return Topic(*found) if found else Topic("", "")

        return self._read(job)

    def set_topic(self, room: str, topic: Topic) -> Deferred[None]:
        """Keep the topic of a room, which may have had no event yet."""
        by = topic.by if topic.text else ""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO rooms (name, indexed, topic, topic_by) VALUES (?, 0, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET topic = excluded.topic, "
                "topic_by = excluded.topic_by",
                (room, topic.text, by),
            )

        return self._write(job)

    def account(self, folded_nick: str) -> Deferred[Account | None]:
        """Read one account."""
        return self._read(partial(account, name=folded_nick))

    def accounts(self) -> Deferred[Sequence[Account]]:
        """Read all accounts."""
        return self._read(accounts)

    def add_account(self, new: Account) -> Deferred[bool]:
        """Insert an account, unless there is one."""
        return self._write(partial(add_account, account=new))

    def change_account(
        self,
        folded_nick: str,
        *,
        secret: str | None = None,
        is_operator: bool | None = None,
        address: str | None = None,
    ) -> Deferred[bool]:
        """Update an account."""
        return self._write(
            partial(
                change_account,
                name=folded_nick,
                secret=secret,
                is_operator=is_operator,
                address=address,
            )
        )

    def remove_account(self, folded_nick: str) -> Deferred[bool]:
        """Delete an account and its positions."""
        return self._write(partial(remove_account, name=folded_nick))

    def position(self, folded_nick: str, room: str) -> Deferred[int | None]:
        """Read a position; while the account is there, the last one that was delivered."""

        def job(connection: sqlite3.Connection) -> int | None:
            found = connection.execute(
                "SELECT coalesce(position, delivered) FROM positions, state "
                "WHERE account = ? AND room = ?",
                (folded_nick, room),
            ).fetchone()
            return found[0] if found else None

        return self._read(job)

    def set_position(self, folded_nick: str, room: str, position: int | None) -> Deferred[None]:
        """Keep a position."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (folded_nick, room, position)
            )

        return self._write(job)

    def restrictions(self) -> Deferred[Sequence[Restriction]]:
        """Read all restrictions."""

        def job(connection: sqlite3.Connection) -> Sequence[Restriction]:
            rows = connection.execute("SELECT * FROM restrictions ORDER BY subject, kind")
            return [Restriction(*row) for row in rows]

        return self._read(job)

    def add_restriction(self, restriction: Restriction) -> Deferred[None]:
        """Keep a restriction."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT OR REPLACE INTO restrictions VALUES (?, ?, ?, ?, ?, ?)", restriction
            )

        return self._write(job)

    def remove_restriction(self, kind: str, subject: str) -> Deferred[bool]:
        """Delete a restriction."""

        def job(connection: sqlite3.Connection) -> bool:
            deleted = connection.execute(
                "DELETE FROM restrictions WHERE kind = ? AND subject = ?", (kind, subject)
            )
            return deleted.rowcount > 0

        return self._write(job)


def account(connection: sqlite3.Connection, name: str) -> Account | None:
    """Return the account of a folded nick."""
    found = connection.execute(_ACCOUNTS + "WHERE name = ?", (name,)).fetchone()
    return _account(found) if found else None


def accounts(connection: sqlite3.Connection) -> list[Account]:
    """Return all accounts, in the order of their folded nicks."""
    return [_account(row) for row in connection.execute(_ACCOUNTS + "ORDER BY name")]


def add_account(connection: sqlite3.Connection, account: Account) -> bool:
    """Insert an account; tell whether its nick had none yet."""
    added = connection.execute(
        "INSERT OR IGNORE INTO accounts VALUES (?, ?, ?, ?, ?, ?)", (fold(account.nick), *account)
    )
    return added.rowcount > 0


def change_account(
    connection: sqlite3.Connection,
    name: str,
    *,
    secret: str | None = None,
    is_operator: bool | None = None,
    address: str | None = None,
) -> bool:
    """Update what is given of an account; tell whether there is one."""
    changed = connection.execute(
        "UPDATE accounts SET secret = coalesce(?, secret), operator = coalesce(?, operator), "
        "address = coalesce(?, address) WHERE name = ?",
        (secret, is_operator, address, name),
    )
    return changed.rowcount > 0


def remove_account(connection: sqlite3.Connection, name: str) -> bool:
    """Delete an account and its read positions; tell whether there was one."""
    connection.execute("DELETE FROM positions WHERE account = ?", (name,))
    deleted = connection.execute("DELETE FROM accounts WHERE name = ?", (name,))
    return deleted.rowcount > 0


def _account(row: tuple[str, str, int, float, str]) -> Account:
    nick, secret, operator, created, address = row
    return Account(nick, secret, bool(operator), created, address)
