"""The file of the SQLite store: whose it is, its version, and how it is opened."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chatproto.errors import StartError, StoreError
from chatproto.stores.sqlite import file as file_module
from chatproto.stores.sqlite.file import (
    APPLICATION_ID,
    VERSION,
    ForeignFile,
    StoreFile,
    copy,
    statements,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a store may be."""
    return tmp_path / "chat.db"


Prepare = Callable[..., StoreFile]


@pytest.fixture
def prepare(path: Path) -> Iterator[Prepare]:
    """Give a function that prepares the store; it is unlocked at the end of the test."""
    files: list[StoreFile] = []

    def prepare(path: Path = path, durability: str = "full") -> StoreFile:
        files.append(StoreFile(str(path), durability=durability))
        files[-1].prepare()
        return files[-1]

    yield prepare
    for file in files:
        file.unlock()


def refused(path: Path) -> str:
    """Return why a server cannot start with a store; the next one may try."""
    with pytest.raises(StartError) as caught:
        StoreFile(str(path)).prepare()
    sentence = caught.value.sentence
    assert sentence.startswith(f"--store {path}: ")
    assert "\n" not in sentence
    lock = StoreFile(str(path))
    if path.parent.is_dir() and os.access(path.parent, os.W_OK):
        lock.lock()  # what failed has not kept it
        lock.unlock()
    return sentence.removeprefix(f"--store {path}: ")


def made(path: Path, *script: str) -> bytes:
    """Make a database with these statements, and return its bytes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in script:
            connection.execute(statement)
    return path.read_bytes()


def value(connection: sqlite3.Connection, query: str) -> object:
    """Return the one value that a query has."""
    row: tuple[object] = connection.execute(query).fetchone()
    return row[0]


class TestPreparing:
    """Before the server becomes a daemon."""

    def test_a_new_store(self, path: Path, prepare: Prepare) -> None:
        """A file that is not there is made: ours, of the newest version, for our eyes only."""
        file = prepare()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.with_name("chat.db-lock").stat().st_mode) == 0o600
        with closing(file.open()) as connection:
            assert value(connection, "PRAGMA application_id") == APPLICATION_ID
            assert value(connection, "PRAGMA user_version") == VERSION
            assert value(connection, "PRAGMA journal_mode") == "wal"
            assert value(connection, "SELECT last_id FROM state") == 0

    def test_an_empty_file_is_a_new_store(self, path: Path, prepare: Prepare) -> None:
        """An empty file is nobody's: it becomes a store."""
        path.touch()
        with closing(prepare().open()) as connection:
            assert value(connection, "SELECT last_id FROM state") == 0

    def test_nothing_is_left_open(self, path: Path, prepare: Prepare) -> None:
        """A connection must not be carried through a fork: there is none, only the lock."""
        prepare()
        assert sorted(one.name for one in path.parent.iterdir()) == ["chat.db", "chat.db-lock"]

    def test_preparing_again_changes_nothing(self, path: Path, prepare: Prepare) -> None:
        """A store that is there is left as it is."""
        with closing(prepare().open()) as connection:
            connection.execute("UPDATE state SET last_id = 42")
        before = path.read_bytes()
        file = StoreFile(str(path))
        with pytest.raises(StartError, match="another server"):
            file.prepare()
        assert path.read_bytes() == before

    @pytest.mark.parametrize(("durability", "synchronous"), [("full", 2), ("normal", 1)])
    def test_durability(self, durability: str, synchronous: int, prepare: Prepare) -> None:
        """`full` waits for the disk at each commit; `normal` leaves it to the system."""
        with closing(prepare(durability=durability).open()) as connection:
            assert value(connection, "PRAGMA synchronous") == synchronous

    def test_a_link_leads_to_the_store(self, path: Path, prepare: Prepare) -> None:
        """A store that is reached through a link is locked and kept where it really is."""
        path.with_name("link.db").symlink_to(path)
        file = prepare(path.with_name("link.db"))
        assert file.path == str(path)
        assert refused_while_locked(path) == "another server is using it"

    def test_the_owner_it_will_have(self, path: Path) -> None:
        """What is made belongs to the user that the server is going to be."""
        owner = (12345, 54321) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        file = StoreFile(str(path))
        file.prepare(owner)
        file.unlock()
        for name in ("chat.db", "chat.db-lock"):
            found = path.with_name(name).stat()
            assert (found.st_uid, found.st_gid) == owner


class TestRefusing:
    """Files that cannot be served, which stay as they were."""

    def test_a_database_of_another_program(self, path: Path) -> None:
        """Somebody else's database is not touched."""
        before = made(path, "CREATE TABLE notes (text)")
        assert refused(path) == "this is a database of another program"
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "mark", ["PRAGMA user_version = 1", "PRAGMA application_id = 7; CREATE TABLE a (b)"]
    )
    def test_marks_of_another_program(self, mark: str, path: Path) -> None:
        """Another program's version or id is not taken for ours."""
        before = made(path, *mark.split(";"))
        assert refused(path) == "this is a database of another program"
        assert path.read_bytes() == before

    def test_a_newer_store(self, path: Path, prepare: Prepare) -> None:
        """A store that a newer version has written is refused with both versions."""
        prepare().unlock()
        before = made(path, f"PRAGMA user_version = {VERSION + 1}")
        why = refused(path)
        assert why.startswith("it was written by a newer chatproto")
        assert f"version {VERSION + 1} of the store, this one knows {VERSION}" in why
        assert path.read_bytes() == before

    def test_a_store_that_was_never_finished(self, path: Path) -> None:
        """Ours, with tables, but of no version: nothing is made of it."""
        before = made(path, f"PRAGMA application_id = {APPLICATION_ID}", "CREATE TABLE rooms (id)")
        assert "already exists" in refused(path)
        with closing(sqlite3.connect(path)) as connection:
            assert value(connection, "SELECT group_concat(name) FROM sqlite_master") == "rooms"
        assert len(path.read_bytes()) == len(before)

    def test_not_a_database(self, path: Path) -> None:
        """A file of anything else is not touched."""
        path.write_bytes(b"shopping list: milk\n" * 100)
        assert refused(path) == "this is not a database"
        assert path.read_bytes() == b"shopping list: milk\n" * 100

    def test_a_folder(self, path: Path) -> None:
        """A folder cannot be a store."""
        path.mkdir()
        assert refused(path) == "the store cannot be opened"
        assert [*path.iterdir()] == []

    def test_a_folder_that_is_not_there(self, path: Path) -> None:
        """Folders are not made: the path may be a mistake."""
        nowhere = path.parent / "nowhere" / "chat.db"
        assert "No such file or directory" in refused(nowhere)
        assert not nowhere.parent.exists()

    def test_a_file_as_a_folder(self, path: Path) -> None:
        """A path through a file leads nowhere."""
        path.touch()
        assert "Not a directory" in refused(path / "chat.db")

    def test_locked_by_another_program(self, path: Path, prepare: Prepare) -> None:
        """A program that is writing to the file keeps the server from starting."""
        prepare().unlock()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert refused(path) == "the store is locked by another program"
        prepare()

    def test_one_server_at_a_time(self, path: Path, prepare: Prepare) -> None:
        """A second server is refused until the first one has unlocked the store."""
        first = prepare()
        assert refused_while_locked(path) == "another server is using it"
        first.lock()  # it has it already
        first.unlock()
        first.unlock()
        prepare()

    def test_another_process(
        self, path: Path, prepare: Prepare, in_a_fresh_python: Callable[[str], str]
    ) -> None:
        """A server of another process is refused as well."""
        code = (
            "from chatproto.errors import StartError\n"
            "from chatproto.stores.sqlite.file import StoreFile\n"
            f"file = StoreFile({str(path)!r})\n"
            "try: file.prepare()\n"
            "except StartError as error: print(error)\n"
            "else: print('prepared')"
        )
        file = prepare()
        assert in_a_fresh_python(code).strip() == f"--store {path}: another server is using it"
        file.unlock()
        assert in_a_fresh_python(code).strip() == "prepared"


def refused_while_locked(path: Path) -> str:
    """Return why a second server is refused."""
    with pytest.raises(StartError) as caught:
        StoreFile(str(path)).prepare()
    return caught.value.sentence.removeprefix(f"--store {path}: ")


class TestPermissions:
    """Where this process may not write."""

    CODE = """
import sys
from chatproto.errors import StartError
from chatproto.stores.sqlite.file import StoreFile
try:
    StoreFile(sys.argv[1]).prepare()
except StartError as error:
    print(error)
else:
    print("prepared")
"""

    @pytest.fixture
    def try_it(self) -> Callable[[Path], str]:
        """Give a function that prepares a store in a process for which permissions count."""
        command = [sys.executable, "-c", self.CODE]
        if os.geteuid() == 0:
            if not shutil.which("setpriv"):
                pytest.skip("for root permissions do not count, and there is no setpriv")
            without = "--{}=-dac_override,-dac_read_search"
            caps = [without.format(which) for which in ("inh-caps", "bounding-set")]
            command = ["setpriv", *caps, *command]

        def try_it(path: Path) -> str:
            found = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            result = subprocess.run(
                [*command, str(path)],
                env={**os.environ, "PYTHONPATH": found},
                capture_output=True,
                text=True,
                check=False,
            )
            assert result.stderr == ""
            return result.stdout.strip().removeprefix(f"--store {path}: ")

        return try_it

    def test_a_new_store_in_a_read_only_folder(
        self, tmp_path: Path, try_it: Callable[[Path], str]
    ) -> None:
        """Nothing can be made there, and one clear line says so."""
        tmp_path.chmod(0o555)
        assert try_it(tmp_path / "chat.db") == "the store cannot be used: Permission denied"
        tmp_path.chmod(0o755)
        assert [*tmp_path.iterdir()] == []
        assert try_it(tmp_path / "chat.db") == "prepared"

    def test_a_store_in_a_read_only_folder(
        self, path: Path, prepare: Prepare, try_it: Callable[[Path], str]
    ) -> None:
        """SQLite needs two more files beside it, so the store cannot be used."""
        prepare().unlock()
        path.parent.chmod(0o555)
        assert try_it(path) == "the store may not be written to"
        path.parent.chmod(0o755)
        assert try_it(path) == "prepared"

    def test_a_read_only_file(
        self, path: Path, prepare: Prepare, try_it: Callable[[Path], str]
    ) -> None:
        """What can only be read is no store."""
        prepare().unlock()
        path.chmod(0o400)
        assert try_it(path) == "the store may not be written to"

    def test_a_file_that_cannot_be_read(
        self, path: Path, prepare: Prepare, try_it: Callable[[Path], str]
    ) -> None:
        """Nor is what cannot even be read."""
        prepare().unlock()
        path.chmod(0o000)
        assert try_it(path) == "the store cannot be opened"


class TestMigrating:
    """From one version of the schema to the next."""

    @pytest.fixture
    def store(self, path: Path, prepare: Prepare) -> Path:
        """Return a store of this version with something in it."""
        file = prepare()
        with closing(file.open()) as connection:
            connection.execute("UPDATE state SET last_id = 42")
        file.unlock()
        return path

    def step(self, monkeypatch: pytest.MonkeyPatch, *script: str) -> None:
        """Let there be one more version, which `script` makes."""
        earlier = statements
        monkeypatch.setattr(file_module, "VERSION", VERSION + 1)
        monkeypatch.setattr(
            file_module,
            "statements",
            lambda version: [*script] if version == VERSION + 1 else earlier(version),
        )

    def content(self, path: Path) -> list[str]:
        """Return all that is in a database, as statements."""
        with closing(sqlite3.connect(path)) as connection:
            return [*connection.iterdump(), f"{value(connection, 'PRAGMA user_version')}"]

    def test_a_copy_is_kept(
        self, store: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The store is of the new version, with what was in it; the old one lies beside it."""
        before = self.content(store)
        self.step(
            monkeypatch,
            "ALTER TABLE state ADD COLUMN extra TEXT NOT NULL DEFAULT 'x'",
            "UPDATE state SET extra = 'y' || last_id",
        )
        with closing(prepare().open()) as connection:
            assert value(connection, "PRAGMA user_version") == VERSION + 1
            assert value(connection, "PRAGMA integrity_check") == "ok"
            assert value(connection, "SELECT last_id || extra FROM state") == "42y42"
        kept = store.with_name(f"chat.db.version-{VERSION}")
        assert self.content(kept) == before
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        names = ["chat.db", "chat.db-lock", kept.name]
        assert sorted(one.name for one in store.parent.iterdir()) == names

    def test_the_copy_is_a_store(
        self, store: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Going back is putting the copy in the place of the store."""
        with monkeypatch.context() as newer:
            self.step(newer, "ALTER TABLE state ADD COLUMN extra")
            prepare().unlock()
        assert refused(store).startswith("it was written by a newer chatproto")
        store.with_name(f"chat.db.version-{VERSION}").rename(store)
        with closing(prepare().open()) as connection:
            assert value(connection, "SELECT last_id FROM state") == 42

    def test_a_new_store_goes_through_all_versions(
        self, path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A new store is made by the same steps; there is nothing to keep a copy of."""
        self.step(monkeypatch, "ALTER TABLE state ADD COLUMN extra")
        with closing(prepare().open()) as connection:
            assert value(connection, "PRAGMA user_version") == VERSION + 1
            assert value(connection, "SELECT count(extra) FROM state") == 0
        assert not [*path.parent.glob("*version*")]

    def test_a_failure_leaves_the_store_as_it_was(
        self, store: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A step that fails in its middle is undone, and the old version can go on."""
        before = self.content(store)
        with monkeypatch.context() as newer:
            self.step(newer, "ALTER TABLE state ADD COLUMN extra", "DROP TABLE missing")
            assert "no such table: missing" in refused(store)
        assert self.content(store) == before
        prepare()

    def test_without_room_for_the_copy_nothing_is_changed(
        self, store: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A migration does not begin before the copy is there, and leaves no half of one."""
        before = self.content(store)
        with monkeypatch.context() as newer:
            self.step(newer, "ALTER TABLE state ADD COLUMN extra")
            (store.parent / f"chat.db.version-{VERSION}").mkdir()
            assert "Is a directory" in refused(store)
        assert self.content(store) == before
        assert not [*store.parent.glob("*unfinished*")]
        prepare()


def test_statements_are_whole() -> None:
    """Every version has a script, which is cut into statements that SQLite takes."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for version in range(1, VERSION + 1):
            found = statements(version)
            assert found
            for statement in found:
                connection.execute(statement)


def test_a_copy_replaces_an_earlier_one(path: Path, prepare: Prepare) -> None:
    """A copy is whole or not there: what an earlier try has left is in nobody's way."""
    target = path.with_name("copy.db")
    target.write_bytes(b"an earlier one")
    target.with_name("copy.db-unfinished").write_bytes(b"half of one")
    with closing(prepare().open()) as connection:
        connection.execute("UPDATE state SET last_id = 7")
        copy(connection, str(target))
    with closing(sqlite3.connect(target)) as copied:
        assert value(copied, "SELECT last_id FROM state") == 7
        assert value(copied, "PRAGMA integrity_check") == "ok"
    assert not [*path.parent.glob("*unfinished*")]


class TestRestoring:
    """A file that somebody has deleted while it was open."""

    def test_everything_is_written_back(self, path: Path, prepare: Prepare) -> None:
        """What was in the file, and what was only in its write-ahead log, is there again."""
        file = prepare()
        connection = file.open()
        connection.execute("UPDATE state SET last_id = 7")
        path.unlink()
        file.restore(connection)
        with pytest.raises(sqlite3.ProgrammingError):
            connection.execute("SELECT 1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with closing(file.open()) as again:
            assert value(again, "SELECT last_id FROM state") == 7
            assert value(again, "PRAGMA integrity_check") == "ok"

    def test_the_folder_is_gone_as_well(self, path: Path, tmp_path: Path) -> None:
        """Until the folder is there again nothing can be done, and nothing is lost."""
        folder = tmp_path / "folder"
        folder.mkdir()
        file = StoreFile(str(folder / "chat.db"))
        file.prepare()
        connection = file.open()
        connection.execute("UPDATE state SET last_id = 7")
        shutil.rmtree(folder)
        with pytest.raises(StoreError, match="No such file"):
            file.restore(connection)
        folder.mkdir()
        file.restore(connection)
        with closing(file.open()) as again:
            assert value(again, "SELECT last_id FROM state") == 7
        file.unlock()

    def test_it_is_finished_when_it_was_cut_off(
        self, path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was rescued but not put in its place yet is found when the store is opened."""

        def fail(old: str, new: str) -> None:
            raise PermissionError(1, "Operation not permitted")

        file = prepare()
        connection = file.open()
        connection.execute("UPDATE state SET last_id = 7")
        path.unlink()
        with monkeypatch.context() as broken:
            broken.setattr(os, "rename", fail)
            with pytest.raises(StoreError, match="Operation not permitted"):
                file.restore(connection)
        assert not path.exists()
        with closing(file.open()) as again:
            assert value(again, "SELECT last_id FROM state") == 7
        assert not [*path.parent.glob("*restored*")]


def test_opening_says_what_is_wrong(path: Path, prepare: Prepare) -> None:
    """Also when it is opened again later, a foreign file is refused in words."""
    file = prepare()
    path.unlink()
    made(path, "CREATE TABLE notes (text)")
    with pytest.raises(ForeignFile):
        file.open()
