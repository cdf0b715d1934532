"""The store in a file: everything survives a crash, and what anyone saw is stored."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred

from chatproto.errors import StoreError
from chatproto.stores import Deliver, Refused, Store, Topic
from chatproto.stores.memory import LocalNames, MemoryDirectory, MemoryLog
from chatproto.stores.recent import Recent
from chatproto.stores.sqlite.directory import SqliteDirectory
from chatproto.stores.sqlite.file import StoreFile
from chatproto.stores.sqlite.log import SqliteLog
from chatproto.stores.sqlite.retention import Keep, Retention
from chatproto.stores.sqlite.rows import last_id
from chatproto.stores.sqlite.writer import Writer

RESERVED: Final = 1 << 32
"""Ids that are set aside for a run that keeps no events, in case it is cut off: more than it can
give. Two million such runs stay within what JavaScript can count."""


class UnkeptLog(MemoryLog):
    """The log in memory beside a directory in the file of a writer: `--history off`."""

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        writer: Writer,
        *,
        recent: Recent | None = None,
    ) -> None:
        """Open and close `writer`; ids go on from those of earlier runs."""
        super().__init__(reactor, now, recent=recent)
        self._writer = writer
        self._reserved = 0

    def start(self, deliver: Deliver, refused: Refused) -> int:
        """Open the file; raises `StoreError`."""
        self._reserved = self._writer.open(_nothing, _reserve)
        self._last_id = self._reserved - RESERVED
        return super().start(deliver, refused)

    def stop(self) -> Deferred[None]:
        """Deliver what is queued, and close the file."""
        return super().stop().addCallback(lambda _: Deferred.fromCoroutine(self._close()))

    async def _close(self) -> None:
        give_back = partial(_give_back, last_id=self._last_id, reserved=self._reserved)
        with suppress(StoreError):  # then they stay reserved
            await self._writer.write(give_back)
        await self._writer.stop()


class UnkeptDirectory(SqliteDirectory):
    """The directory beside that log: what a room is about is as little kept as what it says."""

    def __init__(self, writer: Writer) -> None:
        """Use the connection of `writer`, which the log opens."""
        super().__init__(writer)
        self._topics = MemoryDirectory()

    def topic(self, room: str) -> Deferred[Topic]:
        """Return the topic, which is in memory."""
        return self._topics.topic(room)

    def set_topic(self, room: str, topic: Topic) -> Deferred[None]:
        """Keep the topic in memory."""
        return self._topics.set_topic(room, topic)


def _nothing() -> None:
    """Nothing is remembered of the file."""


def _reserve(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE state SET last_id = last_id + ?", (RESERVED,))
    return last_id(connection)


def _give_back(connection: sqlite3.Connection, last_id: int, reserved: int) -> None:
    connection.execute("UPDATE state SET last_id = ? WHERE last_id = ?", (last_id, reserved))


def sqlite_store(
    reactor: Any,
    now: Callable[[], float],
    file: StoreFile,
    *,
    keep: Keep | None,
    recent: Recent | None = None,
) -> Store:
    """Return a store in `file`, which is opened when its log is started.

    `reactor` needs threads; `now` returns the Unix time in seconds. `keep` says how long events are
    kept; None: not at all, only accounts and the like are in the file.
    """
    writer = Writer(reactor, file)
    if keep is None:
        unkept = UnkeptLog(reactor, now, writer, recent=recent)
        return Store(unkept, UnkeptDirectory(writer), LocalNames())
    log = SqliteLog(reactor, now, writer, Retention(keep, now), recent=recent)
    return Store(log, SqliteDirectory(writer), LocalNames())
