"""The one thread that uses the one connection: rounds, and what happens when one fails."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted  # type: ignore[import-untyped]
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred

from chatproto.errors import StoreError
from chatproto.stores.sqlite import file as file_module
from chatproto.stores.sqlite.file import StoreFile
from chatproto.stores.sqlite.writer import Job, Writer

from ...conftest import LoggedErrors
from ..conftest import in_reactor, turn


class World:
    """A writer on a file, and what its connection is told."""

    def __init__(self, path: Path) -> None:
        """Open the file, with a table to write to."""
        self.path = path
        self.file = StoreFile(str(path))
        self.file.prepare()
        self.writer = Writer(reactor, self.file)
        self.resets = 0
        self.statements: list[str] = []
        self.writer.open(self._reset, self._begin)
        self._gates: list[threading.Event] = []

    def put(self, word: str) -> Deferred[None]:
        """Write a word."""
        return self.writer.write(putting(word))

    def words(self) -> Deferred[list[str]]:
        """Read all words, in the order in which they were written."""
        return self.writer.read(reading)

    async def running(self) -> threading.Event:
        """Return once a round runs, which waits until the event is set."""
        started: Deferred[None] = Deferred()
        gate = threading.Event()
        self._gates.append(gate)
        clock: Any = reactor

        def job(connection: sqlite3.Connection) -> None:
            clock.callFromThread(started.callback, None)
            gate.wait()

        self.writer.read(job)
        await started
        return gate

    def stored(self) -> list[str]:
        """Return the words that anybody else finds in the file."""
        with closing(sqlite3.connect(self.path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            return reading(connection)

    def close(self) -> Deferred[None]:
        """Let go whatever waits, and close."""
        for gate in self._gates:
            gate.set()
        return self.writer.stop()

    def trace(self) -> Deferred[None]:
        """Note from now on what the connection is told."""
        return self.writer.read(
            lambda connection: connection.set_trace_callback(self.statements.append)
        )

    def _reset(self) -> None:
        self.resets += 1

    def _begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS told (word TEXT UNIQUE)")


def putting(word: str) -> Job[None]:
    """Return a job that writes a word."""

    def job(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO told VALUES (?)", (word,))

    return job


def reading(connection: sqlite3.Connection) -> list[str]:
    """Read all words."""
    return [word for (word,) in connection.execute("SELECT word FROM told ORDER BY rowid")]


async def why(answer: Deferred[Any]) -> str:
    """Return the sentence with which a job fails."""
    with pytest.raises(StoreError) as caught:
        await answer
    return caught.value.sentence


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a writer on a new file."""
    world = World(tmp_path / "chat.db")
    yield world
    pytest_twisted.blockon(world.close())


class TestRounds:
    """What is asked for together is done together."""

    @in_reactor
    async def test_answers_come_in_order(self, world: World) -> None:
        """Every job has its own answer, in the order in which they were asked for."""
        answers: list[object] = []
        asked: list[Deferred[Any]] = []

        def note(number: int, answer: object) -> None:
            answers.append((number, answer))

        for number in range(20):
            asked.append(world.put(str(number)) if number % 3 else world.words())
            asked[-1].addCallback(partial(note, number))
        await asked[-1]
        expected = [str(number) for number in range(20) if number % 3]
        assert answers == [
            (number, None if number % 3 else [word for word in expected if int(word) < number])
            for number in range(20)
        ]

    @in_reactor
    async def test_no_answer_comes_before_the_job_was_asked_for(self, world: World) -> None:
        """A job is never done before whoever asks for it has finished."""
        answers: list[None] = []
        asked = [world.put(str(number)).addCallback(answers.append) for number in range(9)]
        assert answers == []
        for answer in asked:
            await answer

    @in_reactor
    async def test_what_comes_while_a_round_runs_is_one_transaction(self, world: World) -> None:
        """However many writes gather meanwhile, the disk is waited for once."""
        await world.trace()
        gate = await world.running()
        asked = []
        for number in range(50):
            asked.append(world.put(str(number)))
            await turn() if number % 10 == 0 else None
        gate.set()
        for answer in asked:
            await answer
        words = [statement.split()[0] for statement in world.statements]
        assert words == ["BEGIN", *["INSERT"] * 50, "COMMIT"]
        assert world.stored() == [str(number) for number in range(50)]

    @in_reactor
    async def test_the_number_of_the_round_grows_when_it_begins(self, world: World) -> None:
        """Jobs that see the same number are in one transaction."""
        before = world.writer.gathering
        first = world.put("a")
        assert world.writer.gathering == before
        await first
        assert world.writer.gathering == before + 1
        gate = await world.running()
        number = world.writer.gathering
        second = world.put("b")
        await turn()
        assert world.writer.gathering == number
        gate.set()
        await second
        assert world.writer.gathering == number + 1

    @in_reactor
    async def test_reading_begins_no_transaction(self, world: World) -> None:
        """Who only reads does not wait for the disk."""
        await world.put("a")
        await world.trace()
        assert await world.words() == ["a"]
        assert [statement.split()[0] for statement in world.statements] == ["SELECT"]

    @in_reactor
    async def test_an_answer_means_that_it_is_stored(self, world: World) -> None:
        """Once a write is answered everybody finds it in the file."""
        await world.put("a")
        assert world.stored() == ["a"]

    @in_reactor
    async def test_who_has_gone_is_not_answered(self, world: World) -> None:
        """A job whose answer was cancelled is done all the same, and disturbs no other."""
        asked = [world.put(word) for word in "abc"]
        asked[1].cancel()
        with pytest.raises(CancelledError):
            await asked[1]
        await asked[2]
        assert world.stored() == [*"abc"]


class TestBackground:
    """What may wait."""

    @in_reactor
    async def test_it_is_done_when_nothing_else_is(self, world: World) -> None:
        """Work in the background gives way to what comes in, one piece at a time."""
        gate = await world.running()
        done: list[str] = []

        def told(answer: Deferred[None], word: str) -> Deferred[None]:
            return answer.addCallback(lambda _: done.append(word))

        late = [told(world.writer.write_later(putting(word)), word) for word in "xy"]
        early = [told(world.put(word), word) for word in "ab"]
        early[1].addCallback(lambda _: early.append(told(world.put("c"), "c")))
        gate.set()
        for answer in late:
            await answer
        assert done[:2] == ["a", "b"]
        assert done.index("c") < done.index("y")
        assert world.stored() == done

    @in_reactor
    async def test_each_piece_is_a_transaction_of_its_own(self, world: World) -> None:
        """Two pieces are not joined, so that what comes in waits for one at most."""
        await world.trace()
        for answer in [world.writer.write_later(putting(word)) for word in "xy"]:
            await answer
        words = [statement.split()[0] for statement in world.statements]
        assert words == ["BEGIN", "INSERT", "COMMIT"] * 2

    @in_reactor
    async def test_it_is_let_go_at_the_end(self, world: World) -> None:
        """Stopping does not wait for it, and none begins any more."""
        gate = await world.running()
        late = world.writer.write_later(putting("x"))
        late.addErrback(lambda failure: failure.trap(CancelledError))
        stopped = world.writer.stop()
        refused = world.writer.write_later(putting("y"))
        assert await why(refused) == "the store is closed"
        gate.set()
        await stopped
        assert world.stored() == []


class TestFailing:
    """A transaction that cannot be committed."""

    @in_reactor
    async def test_locked_by_another(self, world: World, logged_errors: LoggedErrors) -> None:
        """What was to be written is refused and not in the file, what is there can be read, and
        then it works.
        """
        await world.put("before")
        with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            first, read, second = world.put("a"), world.words(), world.put("b")
            for answer in (first, second):
                assert await why(answer) == "the store is locked by another program"
            assert await read == ["before"]
            assert await world.words() == ["before"]
        await world.put("after")
        assert world.stored() == ["before", "after"]
        logged_errors.take("nothing can be stored: the store is locked by another program")

    @in_reactor
    async def test_it_is_told_once(self, world: World, logged_errors: LoggedErrors) -> None:
        """The log has one line when the trouble begins, however long it lasts, whoever reads."""
        with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for word in "abc":
                await why(world.put(word))
                await world.words()
        logged_errors.take("nothing can be stored")
        assert not logged_errors
        await world.put("d")
        with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await why(world.put("e"))
        logged_errors.take("nothing can be stored")

    @in_reactor
    async def test_reads_do_not_fail_with_the_writes(
        self, world: World, logged_errors: LoggedErrors
    ) -> None:
        """What is read in a round that fails is what is in the file, not what was undone."""
        await world.put("a")
        gate = await world.running()
        early, good, bad, late = world.words(), world.put("b"), world.put("a"), world.words()
        gate.set()
        for answer in (good, bad):
            assert "UNIQUE constraint failed" in await why(answer)
        assert await early == ["a"]
        assert await late == ["a"]
        logged_errors.take("nothing can be stored")

    @in_reactor
    async def test_a_failed_write_takes_its_round_with_it(
        self, world: World, logged_errors: LoggedErrors
    ) -> None:
        """All writes of a round are in the file, or none: also those before the one that fails."""
        await world.put("a")
        asked = [world.put(word) for word in ("b", "a", "c")]
        for answer in asked:
            await why(answer)
        logged_errors.take("nothing can be stored")
        resets = world.resets
        await world.put("d")
        assert world.stored() == ["a", "d"]
        assert world.resets == resets

    @in_reactor
    async def test_what_was_known_is_forgotten(
        self, world: World, logged_errors: LoggedErrors
    ) -> None:
        """After a failure nobody may rely on what was read in the transaction."""
        await world.put("a")
        resets = world.resets
        await why(world.put("a"))
        assert world.resets == resets + 1
        logged_errors.take("nothing can be stored")

    @in_reactor
    async def test_a_read_that_fails_hurts_no_other(self, world: World) -> None:
        """Who asks for something that cannot be read does not keep others from being stored."""
        first = world.put("a")
        wrong = world.writer.read(lambda connection: connection.execute("SELECT nonsense"))
        last = world.put("b")
        await first
        assert "no such column" in await why(wrong)
        await last
        assert world.stored() == ["a", "b"]

    @in_reactor
    async def test_a_read_that_ends_the_transaction(
        self, world: World, logged_errors: LoggedErrors
    ) -> None:
        """If the transaction is gone after a failed read, nothing of it counts as stored."""

        def broken(connection: sqlite3.Connection) -> None:
            connection.execute("ROLLBACK")  # as SQLite does by itself when the disk fails
            raise sqlite3.OperationalError("disk I/O error")

        first, read, second = world.put("a"), world.writer.read(broken), world.put("b")
        for answer in (first, second):
            assert "disk I/O error" in await why(answer)
        await why(read)
        assert world.stored() == []
        logged_errors.take("nothing can be stored")

    @in_reactor
    async def test_a_mistake_of_ours(self, world: World, logged_errors: LoggedErrors) -> None:
        """An error that nobody thought of is logged with its place, and the store goes on."""
        assert await why(world.writer.write(lambda connection: 1 / 0)) == "an error in the server"
        logged_errors.take("ZeroDivisionError")
        logged_errors.take("nothing can be stored: an error in the server")
        await world.put("a")
        assert world.stored() == ["a"]

    @in_reactor
    async def test_a_full_file(self, world: World, logged_errors: LoggedErrors) -> None:
        """What has no room is refused, and once there is room again it is stored."""

        def limit(connection: sqlite3.Connection) -> None:
            connection.execute("PRAGMA max_page_count = 1")  # no more than there are

        await world.writer.read(limit)
        assert await why(world.put("x" * 100_000)) == "the disk is full"
        logged_errors.take("nothing can be stored: the disk is full")
        assert await world.words() == []
        await world.writer.read(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchone())
        await world.put("y" * 100_000)
        assert world.stored() == ["y" * 100_000]


class TestFiles:
    """Somebody does something to the file while it is open."""

    @in_reactor
    async def test_nothing_happens_by_itself(self, world: World) -> None:
        """As long as the file is the same it is opened once."""
        assert world.resets == 1
        for word in "abc":
            await world.put(word)
            await world.words()
        assert world.resets == 1

    @pytest.mark.parametrize("extra", [(), ("-wal",), ("-shm",), ("-wal", "-shm")])
    @in_reactor
    async def test_deleted(self, extra: tuple[str, ...], world: World) -> None:
        """Everything is written back, also what was said since, and a restart finds it."""
        for word in "abc":
            await world.put(word)
        world.path.unlink()
        for name in extra:
            Path(f"{world.path}{name}").unlink()
        await world.put("d")
        assert world.stored() == [*"abcd"]
        assert world.resets == 2
        await world.put("e")
        await world.writer.stop()
        assert world.stored() == [*"abcde"]

    @in_reactor
    async def test_deleted_again_and_again(self, world: World) -> None:
        """It does not matter how often."""
        for word in "abcd":
            world.path.unlink()
            await world.put(word)
        assert world.stored() == [*"abcd"]
        assert [*world.path.parent.glob("*restored*")] == []

    @in_reactor
    async def test_deleted_with_its_folder(
        self, tmp_path: Path, logged_errors: LoggedErrors
    ) -> None:
        """Until the folder is back all is refused; then nothing that was stored is missing."""
        folder = tmp_path / "folder"
        folder.mkdir()
        world = World(folder / "chat.db")
        try:
            await world.put("a")
            folder.rename(tmp_path / "elsewhere")
            assert "No such file or directory" in await why(world.put("b"))
            logged_errors.take("nothing can be stored")
            folder.mkdir()
            await world.put("c")
            assert world.stored() == ["a", "c"]
        finally:
            await world.close()

    @in_reactor
    async def test_the_write_ahead_log_deleted(self, world: World) -> None:
        """What was only in the log that somebody has deleted is not lost."""
        for word in "abc":
            await world.put(word)
        Path(f"{world.path}-wal").unlink()
        await world.put("d")
        assert world.stored() == [*"abcd"]
        assert world.resets == 2
        await world.put("e")
        assert world.resets == 2
        await world.writer.stop()
        assert world.stored() == [*"abcde"]

    @in_reactor
    async def test_the_write_ahead_log_deleted_while_another_reads(
        self, world: World, logged_errors: LoggedErrors
    ) -> None:
        """As long as it cannot be brought into the file, the connection that has it stays open."""
        await world.put("a")
        with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
            other.execute("BEGIN")
            assert reading(other) == ["a"]
            await world.put("b")
            Path(f"{world.path}-wal").unlink()
            assert await why(world.put("c")) == "the store is locked by another program"
            logged_errors.take("nothing can be stored")
            other.execute("COMMIT")
        await world.put("d")
        assert world.stored() == ["a", "b", "d"]

    @in_reactor
    async def test_replaced(self, world: World) -> None:
        """Another store in its place, a backup perhaps, is used as it is, and nothing is mixed."""
        await world.put("a")
        backup = world.path.with_name("backup.db")
        await world.writer.read(lambda connection: file_module.copy(connection, str(backup)))
        for number in range(200):
            await world.put(f"later {number} {'x' * 100}")
        os.replace(backup, world.path)
        assert await world.words() == ["a"]
        await world.put("b")
        assert world.stored() == ["a", "b"]
        await world.writer.stop()
        assert world.stored() == ["a", "b"]

    @in_reactor
    async def test_replaced_by_something_else(
        self, world: World, logged_errors: LoggedErrors
    ) -> None:
        """A file of another program is left alone; once ours is back it is used."""
        await world.put("a")
        kept, foreign = (world.path.with_name(name) for name in ("kept.db", "foreign.db"))
        await world.writer.read(lambda connection: file_module.copy(connection, str(kept)))
        with closing(sqlite3.connect(foreign)) as other:
            other.execute("CREATE TABLE notes (text)")
        content = foreign.read_bytes()
        os.replace(foreign, world.path)
        for word in "bc":
            assert await why(world.put(word)) == "this is a database of another program"
        logged_errors.take("nothing can be stored")
        assert world.path.read_bytes() == content
        os.replace(kept, world.path)
        await world.put("d")
        assert world.stored() == ["a", "d"]


class TestStopping:
    """The end."""

    @in_reactor
    async def test_what_is_queued_is_done_first(self, world: World) -> None:
        """Everything asked for before is answered before the stop fires."""
        gate = await world.running()
        answers: list[None] = []
        for word in "abc":
            world.put(word).addCallback(answers.append)
        stopped = world.writer.stop()
        gate.set()
        await stopped
        assert answers == [None] * 3
        assert world.stored() == [*"abc"]
        assert not Path(f"{world.path}-wal").exists()

    @in_reactor
    async def test_what_its_last_answers_ask_for_is_done_too(self, world: World) -> None:
        """Who asks for more in an answer, while it stops, still gets that."""
        answers: list[None] = []
        world.put("a").addCallback(lambda _: world.put("b").addCallback(answers.append))
        await world.writer.stop()
        assert answers == [None]
        assert world.stored() == ["a", "b"]

    @in_reactor
    async def test_while_it_fails(self, world: World, logged_errors: LoggedErrors) -> None:
        """It ends also when nothing can be stored; who waits is told."""
        with closing(sqlite3.connect(world.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused = world.put("a")
            stopped = world.writer.stop()
            assert await why(refused) == "the store is locked by another program"
            await stopped
        logged_errors.take("nothing can be stored")
        assert world.stored() == []

    @in_reactor
    async def test_twice(self, world: World) -> None:
        """Whoever stops it is told, whether it has stopped already or not."""
        world.put("a")
        first, second = world.writer.stop(), world.writer.stop()
        await first
        await second
        await world.writer.stop()
        assert world.stored() == ["a"]

    @in_reactor
    async def test_afterwards_everything_is_refused(self, world: World) -> None:
        """Nobody waits for ever, and the file is not opened again."""
        await world.writer.stop()
        for answer in (world.put("a"), world.words(), world.writer.write_later(putting("b"))):
            assert await why(answer) == "the store is closed"
        assert not Path(f"{world.path}-wal").exists()

    @in_reactor
    async def test_what_is_asked_for_while_it_closes(self, world: World) -> None:
        """Nothing comes between: it is done before the end, or refused."""
        stopped = world.writer.stop()
        late = world.put("a")
        assert await why(late) == "the store is closed"
        await stopped
        assert world.stored() == []

    @in_reactor
    async def test_another_may_open_the_file(self, world: World) -> None:
        """Once it has stopped the file is free."""
        await world.put("a")
        await world.writer.stop()
        other = World(world.path)
        assert await other.words() == ["a"]
        await other.close()

    @in_reactor
    async def test_one_that_was_never_opened(self, tmp_path: Path) -> None:
        """It refuses everything, and stops at once."""
        writer = Writer(reactor, StoreFile(str(tmp_path / "chat.db")))
        assert await why(writer.read(reading)) == "the store is closed"
        await writer.stop()
        assert [*tmp_path.iterdir()] == []


class TestOpening:
    """The beginning."""

    def test_what_cannot_be_opened_is_left_alone(self, tmp_path: Path) -> None:
        """A start that fails leaves no lock, no connection and no thread behind."""
        path = tmp_path / "chat.db"
        threads = threading.active_count()
        file = StoreFile(str(path))
        file.prepare()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked by another program"):
                Writer(reactor, file).open(lambda: None, reading)
        assert threading.active_count() == threads
        StoreFile(str(path)).prepare()
        assert not Path(f"{path}-wal").exists()

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        """What the system says is told in words."""
        writer = Writer(reactor, StoreFile(str(tmp_path / "nowhere" / "chat.db")))
        with pytest.raises(StoreError, match="No such file or directory"):
            writer.open(lambda: None, reading)
