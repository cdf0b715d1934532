"""The log in a SQLite file: what only a log that survives can do, and what happens to it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from chatproto.errors import StoreError
from chatproto.model import Account, Event, Kind, Restriction, inbox
from chatproto.stores import Topic
from chatproto.stores.sqlite import RESERVED, rows
from chatproto.stores.sqlite import log as log_module
from chatproto.stores.sqlite.retention import Keep

from ...conftest import LoggedErrors
from ..conftest import Opened, OpenStore, draft, in_reactor, sqlite, texts, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store is."""
    return tmp_path / "chat.db"


@pytest.fixture
def opened(path: Path, open_store: OpenStore) -> Opened:
    """Return a new store, open."""
    return open_store(sqlite(path))


def rescue(path: Path, name: str) -> Path:
    """Copy the store as a process that was killed now would leave it, and return its path."""
    folder = path.parent / name
    folder.mkdir()
    for extra in ("", "-wal"):
        shutil.copy(f"{path}{extra}", folder)
    return folder / path.name


def value(path: Path, query: str) -> Any:
    """Return the one value that a query has in a file."""
    with closing(sqlite3_connect(path)) as connection:
        return connection.execute(query).fetchone()[0]


def sqlite3_connect(path: Path) -> sqlite3.Connection:
    """Return a connection of another program."""
    return sqlite3.connect(path, isolation_level=None)


def check(path: Path) -> None:
    """Make sure that what is in a store fits together."""
    assert value(path, "PRAGMA integrity_check") == "ok"
    with closing(sqlite3_connect(path)) as connection:
        for room in rows.rooms(connection, ""):
            events = rows.page(connection, room.name, 0, None, 1_000_000)
            assert [event.seq for event in events] == [*range(room.first, room.seq + 1)]
            assert all(one.id < other.id for one, other in pairwise(events))
            assert all(event.id <= rows.last_id(connection) for event in events)


class TestReopening:
    """What a later run finds."""

    @in_reactor
    async def test_everything_is_there(self, opened: Opened, open_store: OpenStore) -> None:
        """Events, topics, accounts, positions and restrictions survive the end of the run."""
        await opened.say("a", "b")
        await opened.say("c", room="den")
        account = Account("Alice", "secret", True, 1.5, "192.0.2.1")
        restriction = Restriction("ban", "bob", 0.0, "alice", "why", 2.5)
        directory = opened.directory
        await directory.add_account(account)
        await directory.set_topic("den", Topic("about", "alice"))
        await directory.set_position("alice", "lobby", 2)
        await directory.add_restriction(restriction)
        await opened.log.stop()
        again = open_store(lambda *_: opened_again(opened))
        directory = again.directory
        assert [event._replace(origin=7) for event in await again.history()] == opened.delivered[:2]
        assert texts(await again.history("den")) == ["c"]
        assert texts((await again.log.search("lobby", "a", 9)).events) == ["a"]
        assert (await again.log.mark("lobby", lines=9)).lines == 2
        assert [*await directory.accounts()] == [account]
        assert await directory.topic("den") == Topic("about", "alice")
        assert await directory.position("alice", "lobby") == 2
        assert [*await directory.restrictions()] == [restriction]

    @in_reactor
    async def test_ids_and_numbers_go_on(self, path: Path, open_store: OpenStore) -> None:
        """Ids only grow and numbers have no gap over many runs, also when the clock goes back."""
        events: list[Event] = []
        for run in range(5):
            opened = open_store(sqlite(path), time=1_700_000_000.0 - run * 1_000_000)
            assert opened.first_id == (events[-1].id if events else 0)
            events += await opened.say("a", "b")
            await opened.say("x", room="den")
            events.append(opened.delivered[-1])
            await opened.log.stop()
        assert all(one.id < other.id for one, other in pairwise(events))
        assert [event.seq for event in events if event.room == "lobby"] == [*range(1, 11)]
        assert [event.seq for event in events if event.room == "den"] == [*range(1, 6)]
        check(path)

    @in_reactor
    async def test_ids_go_on_after_a_run_that_was_cut_off(
        self, path: Path, opened: Opened, open_store: OpenStore
    ) -> None:
        """Nothing that was delivered is missing after a kill, and its ids are not given again."""
        copies = []
        for number in range(3):
            await opened.say(f"{number}")
            copies.append(rescue(path, f"killed{number}"))
        for number, copy in enumerate(copies):
            check(copy)
            again = open_store(sqlite(copy))
            assert texts(await again.history()) == [f"{n}" for n in range(number + 1)]
            assert again.first_id == opened.delivered[number].id
            (event,) = await again.say("more")
            assert (event.id, event.seq) == (again.first_id + 1, number + 2)

    @in_reactor
    async def test_ids_go_on_though_all_was_removed(
        self, path: Path, open_store: OpenStore
    ) -> None:
        """Ids do not begin anew when nothing is left that has one."""
        opened = open_store(sqlite(path))
        await opened.say("a", "b", room="den")
        opened.log.forget("den")
        await opened.log.stop()
        again = open_store(sqlite(path))
        assert again.first_id == 2
        assert [event.id for event in await again.say("c")] == [3]

    @in_reactor
    async def test_sessions_of_earlier_runs_are_nobody(
        self, opened: Opened, open_store: OpenStore
    ) -> None:
        """Sessions count from 1 in every run: those of an earlier one are not ours."""
        await opened.say("apple one")
        await opened.log.stop()
        again = open_store(lambda *_: opened_again(opened))
        await again.say("apple two")
        again.log._recent.forget("lobby")  # or they are read from memory
        assert [event.origin for event in await again.history()] == [0, 7]
        found = await again.log.search("lobby", "apple", 9)
        assert [event.origin for event in found.events] == [0, 7]
        before = await again.log.page("lobby", before=3, limit=9)
        assert [event.origin for event in before.events] == [0, 7]

    @in_reactor
    async def test_inboxes_of_guests_are_gone(self, opened: Opened, open_store: OpenStore) -> None:
        """Who had no account cannot come back; who had one finds everything."""
        for room in (inbox(1), inbox("bob")):
            await opened.say("a", room=room)
        await opened.log.stop()
        again = open_store(lambda *_: opened_again(opened))
        assert await again.history(inbox(1)) == []
        assert texts(await again.history(inbox("bob"))) == ["a"]
        (event,) = await again.say("b", room=inbox(1))
        assert event.seq == 1


def opened_again(opened: Opened) -> Any:
    """Return a store on the file of one that has stopped."""
    file = opened.log._writer._file
    return sqlite(Path(file.path))(opened.log._reactor, lambda: opened.time)


class TestPositions:
    """Accounts that are there when the run ends."""

    @in_reactor
    async def test_they_have_seen_what_was_delivered(
        self, path: Path, opened: Opened, open_store: OpenStore
    ) -> None:
        """After a kill, who was there goes on after the last event that was delivered."""
        await opened.directory.set_position("gone", "lobby", 1)
        await opened.directory.set_position("there", "lobby", None)
        first, *_, last = await opened.say(*"abcd")
        assert first.id == 1
        await until(lambda: value(path, "SELECT delivered FROM state") == last.id)
        assert await opened.directory.position("there", "lobby") == last.id
        again = open_store(sqlite(rescue(path, "killed")))
        await again.say("e")
        assert await again.directory.position("there", "lobby") == last.id
        assert await again.directory.position("gone", "lobby") == 1
        assert await again.directory.position("never", "lobby") is None

    @in_reactor
    async def test_what_was_stored_but_not_delivered_is_new_to_them(
        self, path: Path, opened: Opened, open_store: OpenStore
    ) -> None:
        """Cut off between the two, an event is still to be shown: rather twice than never."""
        await opened.directory.set_position("there", "lobby", None)
        (first,) = await opened.say("a")
        await until(lambda: value(path, "SELECT delivered FROM state") == first.id)
        copies: list[Path] = []
        opened.on_delivery = lambda events: copies.append(rescue(path, "killed"))
        await opened.say("b")
        again = open_store(sqlite(copies[0]))
        assert texts(await again.history()) == ["a", "b"]
        assert await again.directory.position("there", "lobby") == first.id

    @in_reactor
    async def test_a_stop_notes_all(self, opened: Opened, open_store: OpenStore) -> None:
        """A run that ends in order has shown all it delivered."""
        await opened.directory.set_position("there", "lobby", None)
        opened.log.append([draft("a"), draft("b")])
        await opened.log.stop()
        again = open_store(lambda *_: opened_again(opened))
        assert await again.directory.position("there", "lobby") == 2


class TestRefusing:
    """Lines that cannot be stored."""

    @in_reactor
    async def test_locked_by_another_program(
        self, path: Path, opened: Opened, logged_errors: LoggedErrors
    ) -> None:
        """They come back, none is delivered or stored, the next ones take their numbers."""
        await opened.say("a")
        with closing(sqlite3_connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            error = await opened.refuses("b", "c")
            assert error.sentence == "the store is locked by another program"
            assert texts(await opened.history()) == ["a"]
        logged_errors.take("nothing can be stored")
        await opened.say("d")
        assert [(event.seq, event.text) for event in opened.delivered] == [(1, "a"), (2, "d")]
        assert opened.delivered[1].id > opened.delivered[0].id
        await opened.log.stop()
        check(path)

    @in_reactor
    async def test_a_room_that_was_never_made(
        self, path: Path, opened: Opened, logged_errors: LoggedErrors
    ) -> None:
        """What was known of a room only inside of the transaction that failed is not used."""

        def fail(connection: Any) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        opened.log.append([draft("a", "new"), draft("b")])
        answer = opened.log._writer.write(fail)  # in the same round
        with pytest.raises(StoreError):
            await answer
        await opened.has_refused(2)
        logged_errors.take("nothing can be stored")
        await opened.say("x", room="other")
        await opened.say("c", room="new")
        await opened.say("d")
        assert [event.seq for event in opened.delivered] == [1, 1, 1]
        assert texts(await opened.history("new")) == ["c"]
        await opened.log.stop()
        check(path)

    @in_reactor
    async def test_a_full_file(
        self, path: Path, opened: Opened, logged_errors: LoggedErrors
    ) -> None:
        """Without room lines are refused, what was said can be read, and it recovers by itself."""

        def pages(number: int) -> Deferred[Any]:
            return opened.log._writer.read(  # type: ignore[no-any-return]
                lambda connection: connection.execute(
                    f"PRAGMA max_page_count = {number}"
                ).fetchone()
            )

        await opened.say("a")
        await pages(1)
        error = await opened.refuses("x" * 100_000)
        assert error.sentence == "the disk is full"
        assert texts(await opened.history()) == ["a"]
        logged_errors.take("nothing can be stored: the disk is full")
        await pages(1_000_000)
        await opened.say("b" * 100_000)
        assert [event.seq for event in opened.delivered] == [1, 2]
        await opened.log.stop()
        check(path)

    @in_reactor
    async def test_the_file_is_deleted(self, path: Path, opened: Opened) -> None:
        """Nothing is lost, and nobody notices."""
        await opened.say("a", "b")
        for extra in ("", "-wal", "-shm"):
            os.unlink(f"{path}{extra}")
        await opened.say("c")
        assert [event.seq for event in opened.delivered] == [1, 2, 3]
        opened.log._recent.forget("lobby")
        assert texts(await opened.history()) == ["a", "b", "c"]
        await opened.log.stop()
        check(path)
        assert value(path, "SELECT count(*) FROM events") == 3

    @in_reactor
    async def test_deleted_while_nobody_says_anything(self, path: Path, opened: Opened) -> None:
        """The file is back before anybody has to say something."""
        await opened.say("a")
        path.unlink()
        await until(path.exists)
        await opened.log.stop()
        assert value(path, "SELECT count(*) FROM events") == 1

    @in_reactor
    async def test_deleted_just_before_the_end(self, path: Path, opened: Opened) -> None:
        """It is written back before it is closed."""
        await opened.say("a")
        path.unlink()
        await opened.log.stop()
        assert value(path, "SELECT count(*) FROM events") == 1

    @in_reactor
    async def test_an_older_file_in_its_place(self, path: Path, opened: Opened) -> None:
        """Ids that were given stay given, also when the file no longer knows them."""
        await opened.say("a")
        older = rescue(path, "older")
        check(older)  # which brings its write-ahead log into it
        await opened.say("b", "c")
        os.replace(older, path)
        (event,) = await opened.say("d")
        assert event.id > opened.delivered[2].id
        assert event.seq == 2
        await opened.log.stop()
        check(path)
        assert value(path, "SELECT last_id FROM state") == event.id

    @in_reactor
    async def test_stopping_while_it_fails(
        self, path: Path, opened: Opened, logged_errors: LoggedErrors
    ) -> None:
        """The stop fires after all that waits has been refused."""
        with closing(sqlite3_connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            opened.log.append([draft("a")])
            await opened.log.stop()
            assert texts(opened.refused) == ["a"]
        logged_errors.take("nothing can be stored")

    @in_reactor
    async def test_too_much_waits(self, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
        """While the disk does not answer, a bounded amount is kept; the rest is refused at once."""
        monkeypatch.setattr(log_module, "WAITING", 10_000)
        letters = "x" * 1000
        for number in range(20):
            opened.log.append([draft(f"{number} {letters}")])
            assert (opened.delivered, opened.refused) == ([], [])
        await opened.has_refused(12)
        await opened.has(8)
        assert opened.errors[0].sentence == "the disk does not keep up"
        assert texts(opened.delivered) == [f"{number} {letters}" for number in range(8)]
        assert texts(opened.refused) == [f"{number} {letters}" for number in range(8, 20)]
        await opened.say("there is room again")

    @in_reactor
    async def test_what_was_refused_waits_no_more(
        self,
        path: Path,
        opened: Opened,
        monkeypatch: pytest.MonkeyPatch,
        logged_errors: LoggedErrors,
    ) -> None:
        """Lines that a failing disk gave back do not count against the bound."""
        monkeypatch.setattr(log_module, "WAITING", 5_000)
        with closing(sqlite3_connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(5):
                error = await opened.refuses("x" * 4_000)
                assert error.sentence == "the store is locked by another program"
        logged_errors.take("nothing can be stored")
        await opened.say("x" * 4_000)

    @in_reactor
    async def test_afterwards_everything_is_refused(self, opened: Opened) -> None:
        """What is appended to a log that has stopped comes back too, and not before it returns."""
        await opened.log.stop()
        opened.log.append([draft("a")])
        opened.log.append([draft("b"), draft("c")])
        assert opened.refused == []
        await opened.has_refused(3)
        assert texts(opened.refused) == ["a", "b", "c"]
        opened.log.append([draft("d")])
        await opened.has_refused(4)

    def test_a_start_that_fails(
        self, path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It says why, and leaves nothing open: another try may work."""

        def locked(*args: Any) -> Any:
            store = sqlite(path)(*args)
            other.execute("BEGIN IMMEDIATE")
            return store

        sqlite(path)(None, lambda: 0.0).log._writer._file.unlock()  # type: ignore[attr-defined]
        with closing(sqlite3_connect(path)) as other:
            with pytest.raises(StoreError, match="locked by another program"):
                Opened(locked)
            other.execute("ROLLBACK")
        assert open_store(sqlite(path)).first_id == 0


class TestFullDisk:
    """A file system that has no room left."""

    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        """Return a file system of 2 MiB."""
        disk = tmp_path / "disk"
        disk.mkdir()
        if os.geteuid() != 0 or not shutil.which("mount"):
            pytest.skip("only root can mount a small file system")
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
        yield disk
        subprocess.run(["umount", "--lazy", str(disk)], check=True)

    @in_reactor
    async def test_it_recovers(
        self, disk: Path, open_store: OpenStore, logged_errors: LoggedErrors
    ) -> None:
        """Lines are refused while it is full; all that was delivered is there, and nothing else."""
        path = disk / "chat.db"
        opened = open_store(sqlite(path))
        await opened.say("first")
        ballast = disk / "ballast"
        with open(ballast, "wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        while not opened.refused:
            await opened.tries("x" * 4000)
        assert opened.errors[0].sentence == "the disk is full"
        assert [*await opened.history()] == opened.delivered
        logged_errors.take("nothing can be stored: the disk is full")
        ballast.unlink()
        await opened.say("last")
        assert [event.seq for event in opened.delivered] == [*range(1, len(opened.delivered) + 1)]
        opened.log._recent.forget("lobby")
        assert [*await opened.history()] == opened.delivered
        await opened.log.stop()
        check(path)
        assert value(path, "SELECT count(*) FROM events") == len(opened.delivered)


class TestReading:
    """Where pages come from."""

    @pytest.mark.parametrize("limit", [1, 3, 10, 40])
    @in_reactor
    async def test_memory_and_file_are_one(
        self, limit: int, path: Path, open_store: OpenStore
    ) -> None:
        """Whether an event is read from memory or from the file, pages are the same."""
        opened = open_store(sqlite(path))
        await opened.say(*map(str, range(15)))
        opened.log._recent.forget("lobby")
        events = opened.delivered + await opened.say(*map(str, range(15, 30)))
        for place in range(32):
            after = await opened.log.page("lobby", after=place, limit=limit)
            assert [*after.events] == [one for one in events[:30] if one.id > place][:limit]
            before = await opened.log.page("lobby", before=place, limit=limit)
            assert [*before.events] == [one for one in events[:30] if one.id < place][-limit:]

    @in_reactor
    async def test_a_page_that_nobody_waits_for(self, opened: Opened) -> None:
        """Who goes away while a page is read disturbs nobody."""
        await opened.say("a")
        opened.log._recent.forget("lobby")
        page = opened.log.page("lobby", limit=9)
        page.addErrback(lambda failure: None)
        page.cancel()
        search = opened.log.search("lobby", "a", 9)
        search.addErrback(lambda failure: None)
        search.cancel()
        assert texts(await opened.history()) == ["a"]

    @in_reactor
    async def test_a_query_that_cannot_be_answered(self, opened: Opened) -> None:
        """A search that fails fails alone: what others say meanwhile is stored."""
        opened.log.append([draft("before")])
        search = opened.log.search("lobby", "a\u1cf2b", 9)  # the index cuts it otherwise
        opened.log.append([draft("after")])
        with suppress(StoreError):
            await search
        await opened.say("later")
        assert texts(opened.delivered) == ["before", "after", "later"]


class TestSearching:
    """The index, which is a little behind."""

    @in_reactor
    async def test_a_search_waits_for_what_is_quickly_done(
        self, opened: Opened, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It brings the index up to date in a few steps, and tells what it has not looked at."""
        monkeypatch.setattr(log_module, "HOUSEKEEPING", 1e9)
        monkeypatch.setattr(log_module, "INDEX_STEP", 10)
        monkeypatch.setattr(log_module, "SEARCH_STEPS", 3)
        opened.log._housekeeping.stop()
        await opened.say(*(f"apple {number}" for number in range(75)))
        for unsearched, last in ((45, 29), (15, 59), (0, 74), (0, 74)):
            found = await opened.log.search("lobby", "apple", 2)
            assert found.unsearched == unsearched
            assert texts(found.events) == [f"apple {last - 1}", f"apple {last}"]

    @in_reactor
    async def test_it_is_kept_up_to_date(self, path: Path, opened: Opened) -> None:
        """What is said is in the index soon, without anybody searching; private messages never."""
        await opened.say("apple", "pear")
        await opened.say("apple", room="den")
        await opened.say("secret", room=inbox("bob"))
        await until(lambda: value(path, "SELECT count(*) FROM words") == 3)
        assert (await opened.log.search(inbox("bob"), "secret", 9)).events == []


class TestHousekeeping:
    """What is removed while the store is open."""

    @in_reactor
    async def test_what_is_not_to_be_kept_goes(self, path: Path, open_store: OpenStore) -> None:
        """Of a long history only the last lines are left after a while, in file and index."""
        opened = open_store(sqlite(path))
        await opened.say(*(f"apple {number}" for number in range(600)))
        await opened.log.stop()
        again = open_store(sqlite(path, Keep(lines=5)))
        await until(lambda: value(path, "SELECT count(*) FROM events") == 5)
        expected = [f"apple {number}" for number in range(595, 600)]
        assert texts(await again.history()) == expected
        assert texts((await again.log.search("lobby", "apple", 99)).events) == expected
        await again.log.stop()
        check(path)

    @in_reactor
    async def test_a_forgotten_room_goes(self, path: Path, opened: Opened) -> None:
        """Nothing of it is left in the file after a while."""
        await opened.say(*(f"apple {number}" for number in range(600)), room=inbox(7))
        opened.log.forget(inbox(7))
        await until(lambda: value(path, "SELECT count(*) FROM rooms") == 0)
        assert value(path, "SELECT count(*) FROM events") == 0

    @in_reactor
    async def test_what_is_still_being_stored_is_forgotten_too(self, opened: Opened) -> None:
        """Lines that are delivered after their room was let go are not read from memory either."""
        opened.log.append([draft("a", inbox("bob"))])
        opened.log.forget(inbox("bob"))
        await opened.has(1)
        assert await opened.history(inbox("bob")) == []
        assert not (await opened.log.page(inbox("bob"), limit=1)).events

    @in_reactor
    async def test_what_is_said_right_after_is_kept(self, opened: Opened) -> None:
        """What comes after it in the same moment is in a new room of that name."""
        opened.log.append([draft("a", inbox("bob"))])
        opened.log.forget(inbox("bob"))
        opened.log.append([draft("b", inbox("bob"))])
        await opened.has(2)
        assert [(event.seq, event.text) for event in opened.delivered] == [(1, "a"), (1, "b")]
        assert texts((await opened.log.page(inbox("bob"), limit=1)).events) == ["b"]
        opened.log._recent.forget(inbox("bob"))
        assert texts(await opened.history(inbox("bob"))) == ["b"]

    @in_reactor
    async def test_a_stop_does_not_wait_for_it(self, path: Path, open_store: OpenStore) -> None:
        """What there was no time for is done by the next run."""
        opened = open_store(sqlite(path))
        await opened.say("a", room=inbox(7))
        opened.log.forget(inbox(7))
        await opened.log.stop()
        again = open_store(sqlite(path))
        assert await again.history(inbox(7)) == []
        await until(lambda: value(path, "SELECT count(*) FROM events") == 0)

    @in_reactor
    async def test_it_goes_on_after_trouble(
        self, path: Path, opened: Opened, logged_errors: LoggedErrors
    ) -> None:
        """What could not be done is done again later."""
        await opened.say("apple")
        with closing(sqlite3_connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            await until(lambda: bool(logged_errors))
            logged_errors.take("nothing can be stored")
        await until(lambda: value(path, "SELECT count(*) FROM words") == 1)


class TestWithoutHistory:
    """Only accounts and the like are in the file."""

    @in_reactor
    async def test_nothing_said_is_on_the_disk(self, path: Path, open_store: OpenStore) -> None:
        """Not a word of what is said is in any file, not even who said it."""
        opened = open_store(sqlite(path, keep=None))
        await opened.say("abracadabra", room="treehouse")
        await opened.directory.add_account(Account("Bob", "", False, 0.0, ""))
        files = [one.read_bytes() for one in path.parent.iterdir()]
        assert any(b"Bob" in content for content in files)
        for word in (b"abracadabra", b"treehouse", b"alice"):
            assert not any(word in content for content in files)

    @in_reactor
    async def test_ids_go_on(self, path: Path, open_store: OpenStore) -> None:
        """From run to run ids only grow, with history and without, and no clock is asked."""
        ids: list[int] = []
        for run, keep in enumerate((None, Keep(), None, None, Keep())):
            opened = open_store(sqlite(path, keep), time=1e9 - run * 1e6)
            assert opened.first_id == len(ids)
            ids += [event.id for event in await opened.say("a", "b")]
            await opened.log.stop()
        assert ids == [*range(1, 11)]

    @in_reactor
    async def test_ids_go_on_after_a_run_that_was_cut_off(
        self, path: Path, open_store: OpenStore
    ) -> None:
        """What a killed run has given is unknown; so the next one begins where it cannot be."""
        opened = open_store(sqlite(path, keep=None))
        await opened.say("a")
        killed = rescue(path, "killed")
        await opened.say("b")
        again = open_store(sqlite(killed))
        assert again.first_id == RESERVED

    @in_reactor
    async def test_history_is_still_there_later(self, path: Path, open_store: OpenStore) -> None:
        """A run without it neither shows nor removes what earlier ones have kept."""
        opened = open_store(sqlite(path))
        await opened.say("a")
        await opened.log.stop()
        without = open_store(sqlite(path, keep=None))
        assert await without.history() == []
        await without.say("b")
        await without.log.stop()
        again = open_store(sqlite(path))
        assert texts(await again.history()) == ["a"]

    @in_reactor
    async def test_the_file_fails(
        self, path: Path, open_store: OpenStore, logged_errors: LoggedErrors
    ) -> None:
        """Talk does not need the file, and the end does not either."""
        opened = open_store(sqlite(path, keep=None))
        with closing(sqlite3_connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            await opened.say("a")
            with pytest.raises(StoreError, match="locked by another program"):
                await opened.directory.add_account(Account("Bob", "", False, 0.0, ""))
            await opened.log.stop()
        logged_errors.take("nothing can be stored")


@in_reactor
async def test_every_kind_survives(opened: Opened, open_store: OpenStore) -> None:
    """Notices are kept like talk: numbers in a room have no gaps."""
    opened.log.append([draft("x", kind=kind) for kind in Kind])
    await opened.has(len(Kind))
    await opened.log.stop()
    again = open_store(lambda *_: opened_again(opened))
    assert [event.kind for event in await again.history()] == [*Kind]
