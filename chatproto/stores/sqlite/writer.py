"""The one thread that uses the one connection: group commit.

    jobs asked for ─► wait for the round that runs ─► all of them, one transaction ─► their answers

While one transaction is being written the next one gathers, so transactions grow with the load, and
the disk's own time is paid once for all that came meanwhile. The next one begins when the answers
of the last have been dealt with and the network has been looked at: begun before that, it would
leave out all who answer at once, and rounds would be half as large. A transaction counts only when
SQLite says that it is on the disk; if it cannot be, every write in it has failed and none is in the
file.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from chatproto.errors import StoreError
from chatproto.stores.sqlite.file import StoreFile, in_words

GIVE_WAY: Final = 0.0001
"""Seconds that the reactor waits, once a turn at most, when it has more for a round that runs.
A reactor that never waits lets go of Python's lock for moments that are too short for the thread to
take it, and every statement of the transaction needs it: without this, a line among clients that
keep the server busy took twice as long."""

T = TypeVar("T")

Job = Callable[[sqlite3.Connection], T]
"""Is called in the thread with the connection, inside of a transaction if it writes."""

log = Logger()


class Waiting(NamedTuple):
    """A job and who waits for its answer."""

    job: Job[Any]
    writes: bool
    answer: Deferred[Any]


class Writer:
    """Runs jobs on a store file, in the order in which they are asked for."""

    def __init__(self, reactor: Any, file: StoreFile) -> None:
        """Serve `file`, once it is opened."""
        self.gathering = 0
        """The number of the round for which jobs gather: it grows when that begins."""
        self._reactor = reactor
        self._file = file
        self._reset: Callable[[], None] = _nothing
        self._jobs: list[Waiting] = []
        self._slow: deque[Waiting] = deque()
        self._was_slow = False  # whether the last round was one of those
        self._background: deque[Waiting] = deque()
        self._running = False
        self._gives_way = False
        self._scheduled = False
        self._is_open = False
        self._stopping: list[Deferred[None]] = []
        self._failing = False
        self._pool = ThreadPool(1, 1, "store")
        self._connection: sqlite3.Connection | None = None
        self._files: tuple[object, object] = (None, None)
        self._trigger: Any = None

    def open(self, reset: Callable[[], None], begin: Job[T]) -> T:
        """Open the file, run `begin` in a transaction of its own, and start the thread.

        From now on `reset` is called, in the thread, whenever what jobs have read before may not be
        true any more. Raises `StoreError`, and leaves nothing open then.
        """
        self._reset = reset
        try:
            self._file.lock()
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            begun = begin(connection)
            connection.execute("COMMIT")
        except (StoreError, sqlite3.Error, OSError) as error:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._file.unlock()
            raise in_words(error) from None
        self._is_open = True
        self._pool.start()
        self._trigger = self._reactor.addSystemEventTrigger("after", "shutdown", self._pool.stop)
        return begun

    def read(self, job: Job[T]) -> Deferred[T]:
        """Run `job` in the next round, after what was asked for before."""
        return self._ask(Waiting(job, False, Deferred()))

    def write(self, job: Job[T]) -> Deferred[T]:
        """Run `job` in the next transaction; fires when that is committed."""
        return self._ask(Waiting(job, True, Deferred()))

    def write_later(self, job: Job[T]) -> Deferred[T]:
        """Run `job` in a transaction of its own, when nothing else is to be done."""
        return self._ask_apart(self._background, Waiting(job, True, Deferred()))

    def read_slowly(self, job: Job[T]) -> Deferred[T]:
        """Run `job`, which takes long, alone; between two such the others have a round."""
        return self._ask_apart(self._slow, Waiting(job, False, Deferred()))

    def write_slowly(self, job: Job[T]) -> Deferred[T]:
        """The same for a job that writes."""
        return self._ask_apart(self._slow, Waiting(job, True, Deferred()))

    def stop(self) -> Deferred[None]:
        """Do what has been asked for, then close; fires when that is done."""
        if not self._is_open and not self._stopping:
            return succeed(None)
        stopping: Deferred[None] = Deferred()
        self._stopping.append(stopping)
        for waiting in (*self._background, *self._slow):
            waiting.answer.cancel()
        self._background.clear()
        self._slow.clear()
        if not self._running and not self._jobs:
            self._close()
        elif not self._running:
            self._start_round()
        return stopping

    # In the reactor's thread.

    def _ask_apart(self, queue: deque[Waiting], waiting: Waiting) -> Deferred[Any]:
        """Take a job that gets a round of its own."""
        if self._stopping or not self._is_open:
            return fail(_closed())
        queue.append(waiting)
        self._soon()
        return waiting.answer

    def _ask(self, waiting: Waiting) -> Deferred[Any]:
        if not self._is_open:
            self.gathering += 1
            self._reactor.callLater(0, waiting.answer.errback, _closed())
            return waiting.answer
        self._jobs.append(waiting)
        self._soon()
        self.give_way()
        return waiting.answer

    def _soon(self) -> None:
        if not self._running and not self._scheduled:
            self._scheduled = True
            self._reactor.callLater(0, self._gather)

    def _gather(self) -> None:
        """Look at the network once more: what has come by then belongs to this round."""
        self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        if not self._running:
            self._start_round()

    def give_way(self) -> None:
        """Somebody wants something of the store: let the thread have its turn."""
        if self._running and not self._gives_way:
            self._gives_way = True
            self._reactor.callLater(0, self._give_way)

    def _give_way(self) -> None:
        self._gives_way = False
        if self._running:
            time.sleep(GIVE_WAY)

    def _start_round(self) -> None:
        if self._slow and not (self._jobs and self._was_slow):
            jobs, self._was_slow = [self._slow.popleft()], True
        elif self._jobs:
            jobs, self._jobs, self._was_slow = self._jobs, [], False
            self.gathering += 1
        elif self._background:
            jobs = [self._background.popleft()]
        else:
            return
        self._running = True
        self._pool.callInThread(self._run, jobs)

    def _finish(
        self, jobs: list[Waiting], outcomes: list[Any], trouble: StoreError | None, has_stored: bool
    ) -> None:
        self._running = False
        self._tell(trouble, has_stored)
        for waiting, outcome in zip(jobs, outcomes, strict=True):
            if waiting.answer.called:  # nobody waits for it any more
                continue
            if isinstance(outcome, Exception):
                waiting.answer.errback(Failure(outcome))
            else:
                waiting.answer.callback(outcome)
        if self._jobs or self._slow or self._background:
            self._soon()
        if self._stopping and not self._running:
            self._start_round()
            if not self._running:
                self._close()

    def _tell(self, trouble: StoreError | None, has_stored: bool) -> None:
        if trouble is not None and not self._failing:
            log.error("nothing can be stored: {reason}", event="store", reason=trouble.sentence)
            self._failing = True
        elif has_stored and self._failing:
            log.info("the store works again", event="store")
            self._failing = False

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False

        def closed() -> None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._pool.stop()
            self._file.unlock()
            stopping, self._stopping = self._stopping, []
            for waiting in stopping:
                waiting.callback(None)

        def close() -> None:
            try:
                if self._connection is not None:
                    self._connection.close()
                    self._connection = None
            finally:
                self._reactor.callFromThread(closed)

        self._pool.callInThread(close)

    # In the thread of its own.

    def _run(self, jobs: list[Waiting]) -> None:
        outcomes: list[Any] = [None] * len(jobs)
        sure = 0
        trouble: StoreError | None = None
        has_begun = has_stored = False
        try:
            connection = self._usable()
            changes = connection.total_changes
            for index, waiting in enumerate(jobs):
                if waiting.writes and not has_begun:
                    sure = index
                    connection.execute("BEGIN IMMEDIATE")
                    has_begun = True
                try:
                    outcomes[index] = waiting.job(connection)
                except Exception as error:
                    if waiting.writes or connection.in_transaction != has_begun:
                        raise
                    outcomes[index] = self._in_words(error)  # what cannot be read hurts no other
            if has_begun:
                connection.execute("COMMIT")
                has_stored = connection.total_changes != changes
        except Exception as error:
            trouble = self._failed(error)
            # What was read before the transaction began is true all the same, and what was to be
            # read in it is what it was before.
            for index, waiting in enumerate(jobs[sure:], sure):
                outcomes[index] = trouble if waiting.writes else self._read(waiting.job, trouble)
        self._reactor.callFromThread(self._finish, jobs, outcomes, trouble, has_stored)

    def _read(self, job: Job[Any], trouble: StoreError) -> Any:
        """Return what `job` answers outside of a transaction, or why it cannot."""
        if self._connection is None:
            return trouble
        try:
            return job(self._connection)
        except Exception as error:
            return self._in_words(error)

    def _connect(self) -> sqlite3.Connection:
        connection = self._connection = self._file.open()
        connection.execute("SELECT last_id FROM state").fetchone()  # makes the write-ahead log
        self._files = self._file.identity(), self._file.wal_identity()
        self._reset()
        return connection

    def _usable(self) -> sqlite3.Connection:
        """Return the connection, if the file under its name is still the one that it writes to."""
        connection = self._connection
        if connection is None:
            return self._connect()
        file, wal = self._file.identity(), self._file.wal_identity()
        if (file, wal) == self._files:
            return connection
        if file is None:
            self._file.restore(connection)
        else:
            is_replaced = file != self._files[0]
            if not is_replaced:  # only the write-ahead log was deleted
                is_busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if is_busy:
                    raise StoreError("the store is locked by another program")
            connection.close()
            if is_replaced and wal == self._files[1]:
                self._file.remove_extra()
        self._connection = None
        return self._connect()

    def _failed(self, error: Exception) -> StoreError:
        """Undo what was begun, and return what to tell those who wait."""
        self._reset()
        connection = self._connection
        try:
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection = None
            with suppress(sqlite3.Error):
                connection.close()  # type: ignore[union-attr]
        return self._in_words(error)

    def _in_words(self, error: Exception) -> StoreError:
        if isinstance(error, (StoreError, sqlite3.Error, OSError)):
            return in_words(error)
        self._reactor.callFromThread(log.failure, "the store failed", Failure(error))
        return StoreError("an error in the server")


def _nothing() -> None:
    """Begin with nothing to forget."""


def _closed() -> StoreError:
    return StoreError("the store is closed")
