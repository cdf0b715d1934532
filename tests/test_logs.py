"""The log's two forms, its file, and what happens when the file cannot take it."""

from __future__ import annotations

import io
import json
import re
import resource
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogEvent, Logger, LogLevel
from twisted.python.failure import Failure

from chatproto.errors import StartError
from chatproto.logs import FORMS, LogFile, Logging, Observer, as_json, as_text

TIME = 1_700_000_000.25

HOSTILE = "a\x1b[2J\x1b]0;t\x07b\rc\nd\x85e\x9bf\u2028g\u202eh\u2066i\x7fj\x00k"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close at the end of the test whatever log files it has opened, as the end of a process does.

    What a `LogFile` itself lets go of, it has to close itself: else Python warns.
    """
    files: list[LogFile] = []
    make = LogFile.__init__

    def note(file: LogFile, path: str, owner: tuple[int, int] = (-1, -1)) -> None:
        make(file, path, owner)
        files.append(file)

    monkeypatch.setattr(LogFile, "__init__", note)
    yield
    for file in files:
        file._file.close()


def event(text: str = "said {words}", **fields: Any) -> LogEvent:
    """Return an event as Twisted's logger makes it."""
    usual = {"log_time": TIME, "log_level": LogLevel.info, "log_namespace": "tests"}
    return {**usual, "log_format": text, **fields}


def failure(words: str) -> Failure:
    """Return a failure with a traceback."""
    try:
        raise RuntimeError(words)
    except RuntimeError:
        return Failure()


def test_text_is_a_line_with_time_and_level() -> None:
    """In text an event is one line: local time with its offset, the level, what happened."""
    line = as_text(event(words="hello"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} info said hello\n", line)
    assert datetime.fromisoformat(line.split()[0]).timestamp() == int(TIME)


@pytest.mark.parametrize("level", [LogLevel.warn, LogLevel.error, LogLevel.critical])
@pytest.mark.parametrize("form", FORMS.values())
def test_the_level_is_shown(level: Any, form: Callable[[LogEvent], str]) -> None:
    """Warnings and errors can be found by their level."""
    assert level.name in form(event(words="x", log_level=level))


@settings(deadline=None)
@given(st.one_of(st.text(), st.text("\x1b[]\n\r\x00\x07\x85\x9b\u2028\u202e\u2066x")))
def test_nothing_in_text_controls_a_terminal(words: str) -> None:
    """Whatever words an event has, its line is one line of which nothing is a control."""
    line = as_text(event(words=words))
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line[:-1])


def test_controls_are_shown_as_escapes() -> None:
    """A control character is not lost: the operator sees which it was."""
    assert as_text(event(words="a\x1b\n\u202eb")).endswith(r" info said a\x1b\n\u202eb" + "\n")


def test_a_traceback_follows_in_text() -> None:
    """The traceback of an error follows on indented lines, with its controls as escapes."""
    first, *trace = as_text(event("it failed", log_failure=failure(HOSTILE))).splitlines()
    assert first.endswith(" it failed")
    assert "Traceback (most recent call last):" in trace[0]
    assert all(line.startswith("    ") for line in trace)
    assert any("RuntimeError" in line for line in trace)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", "".join(trace))


def test_json_is_one_object_on_a_line() -> None:
    """In JSON an event is one ASCII line with time (UTC), level, message and its fields."""
    line = as_json(event("{client} said {words}", client=7, words=HOSTILE, event="said"))
    assert line.isascii()
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    fields = json.loads(line)
    assert datetime.fromisoformat(fields.pop("time")) == datetime.fromtimestamp(TIME, UTC)
    assert fields == {
        "level": "info",
        "message": f"7 said {HOSTILE}",
        "client": 7,
        "words": HOSTILE,
        "event": "said",
    }


def test_fields_do_not_replace_what_every_line_has() -> None:
    """A field of an event that is called like one of ours does not take its place."""
    fields = json.loads(as_json(event("hello", time="never", level="none", message="no")))
    assert (fields["level"], fields["message"]) == ("info", "hello")
    assert fields["time"].startswith("2023-11-14T22:13:20")


def test_a_traceback_is_a_field_in_json() -> None:
    """The traceback of an error stays on the event's own line."""
    line = as_json(event("it failed", log_failure=failure("boom")))
    assert len(line.splitlines()) == 1
    assert "RuntimeError: boom" in json.loads(line)["traceback"]


@pytest.mark.parametrize("form", FORMS.values())
def test_an_event_without_anything_is_written(form: Callable[[LogEvent], str]) -> None:
    """An event of a library that lacks the usual fields does not break the log."""
    assert form({"log_format": "hello"}).endswith("\n")


@pytest.mark.parametrize("form", FORMS.values())
def test_an_event_that_cannot_be_formatted_is_written(form: Callable[[LogEvent], str]) -> None:
    """An event whose format does not fit its fields is still a line in the log."""
    assert len(form(event("{missing}")).splitlines()) == 1


@pytest.mark.usefixtures("opened")
class TestLogFile:
    """The file."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Return where the log is."""
        return tmp_path / "chat.log"

    def test_it_goes_on_at_the_end(self, path: Path) -> None:
        """What an earlier run has logged stays."""
        path.write_text("old\n")
        LogFile(str(path)).write("new ü\n")
        assert path.read_text(encoding="utf-8") == "old\nnew ü\n"

    def test_its_path_outlives_a_change_of_folder(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A daemon changes its folder, and then reopens the file that it was started with."""
        monkeypatch.chdir(path.parent)
        file = LogFile(path.name)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        file.reopen()
        file.write("here\n")
        assert path.read_text() == "here\n"
        assert not list(elsewhere.iterdir())

    def test_truncated_it_starts_anew(self, path: Path) -> None:
        """What an operator cuts off stays cut off, and no hole of NULs is left."""
        file = LogFile(str(path))
        file.write("old\n")
        path.write_bytes(b"")
        file.write("new\n")
        assert path.read_bytes() == b"new\n"

    def test_moved_away_it_is_reopened(self, path: Path) -> None:
        """As logrotate has it: moved, then reopened, old lines there and new ones here."""
        file = LogFile(str(path))
        file.write("old\n")
        aside = path.rename(path.with_suffix(".1"))
        file.write("meanwhile\n")
        file.reopen()
        file.write("new\n")
        assert (aside.read_text(), path.read_text()) == ("old\nmeanwhile\n", "new\n")

    def test_when_it_cannot_be_reopened_it_goes_on(self, path: Path) -> None:
        """If the new file cannot be opened the error is told and the old one still serves."""
        file = LogFile(str(path))
        aside = path.rename(path.with_suffix(".1"))
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            file.reopen()
        file.write("still\n")
        assert aside.read_text() == "still\n"

    def test_rotating_puts_it_aside(self, path: Path) -> None:
        """Rotating keeps the old lines under the time of day and goes on in an empty file."""
        file = LogFile(str(path))
        file.write("old\n")
        file.rotate()
        file.write("new\n")
        (aside,) = path.parent.glob("chat.log.*")
        assert re.fullmatch(r"chat\.log\.\d{8}-\d{6}", aside.name)
        assert (aside.read_text(), path.read_text()) == ("old\n", "new\n")

    def test_rotating_often_loses_nothing(self, path: Path) -> None:
        """Rotated several times in a second, no earlier line is overwritten."""
        file = LogFile(str(path))
        for number in range(4):
            file.write(f"{number}\n")
            file.rotate()
        lines = "".join(log.read_text() for log in path.parent.iterdir())
        assert sorted(lines.split()) == ["0", "1", "2", "3"]

    def test_moved_away_it_can_be_rotated(self, path: Path) -> None:
        """A file that somebody has moved or removed already is no reason not to go on in a new."""
        file = LogFile(str(path))
        path.unlink()
        file.rotate()
        file.write("new\n")
        assert path.read_text() == "new\n"


@pytest.mark.usefixtures("opened")
def test_a_line_that_was_cut_short(tmp_path: Path) -> None:
    """After a disk was full in the middle of a line, the next event begins a line of its own."""
    path = tmp_path / "chat.log"
    file = LogFile(str(path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
    try:
        file.write("one two three\n")
        with pytest.raises(OSError, match="too large"):
            file.write("lost\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    file.write("four\n")
    file.write("five\n")
    assert path.read_text() == "one tw\nfour\nfive\n"


@pytest.mark.usefixtures("opened")
class TestObserver:
    """Writing events."""

    def test_it_writes_its_form(self) -> None:
        """Each event is written in the observer's form, at once."""
        out = io.StringIO()
        observer = Observer(out, as_json)
        observer(event(words="one"))
        observer(event(words="two"))
        messages = [json.loads(line)["message"] for line in out.getvalue().splitlines()]
        assert messages == ["said one", "said two"]

    def test_it_keeps_quiet_when_nothing_can_be_written(self) -> None:
        """A closed pipe does not end the chat: there is nobody to tell."""
        out = io.StringIO()
        out.close()
        Observer(out, as_text)(event(words="lost"))

    def test_it_tries_again_after_a_full_disk(self, tmp_path: Path) -> None:
        """After an error of the disk the next event is tried again."""
        full = Path("/dev/full")
        path = tmp_path / "chat.log"
        path.symlink_to(full)
        file = LogFile(str(path))
        observer = Observer(file, as_text)
        observer(event(words="lost"))
        path.unlink()
        file.reopen()
        observer(event(words="kept"))
        assert path.read_text().endswith("said kept\n")

    @pytest.mark.parametrize("form", FORMS.values())
    def test_text_that_is_not_unicode_is_written(
        self, form: Callable[[LogEvent], str], tmp_path: Path
    ) -> None:
        """A file name that is not UTF-8 does not make the event that tells of it disappear."""
        name = b"caf\xe9".decode(errors="surrogateescape")
        path = tmp_path / "chat.log"
        Observer(LogFile(str(path)), form)(event("cannot read {name}", name=name))
        assert "cannot read caf" in path.read_text(encoding="utf-8")


@pytest.mark.usefixtures("opened")
class TestLogging:
    """The log of one process."""

    @pytest.mark.parametrize("form", FORMS)
    def test_to_a_file(self, form: str, tmp_path: Path) -> None:
        """With a path, everything but what is for developers goes to that file, in the form."""
        path = tmp_path / "chat.log"
        logging = Logging(str(path), form)
        logger = Logger(observer=logging.observer())
        logger.debug("for developers")
        logger.info("hello {name}", name="bob")
        logger.warn("careful")
        assert [(line[0] == "{") for line in path.read_text().splitlines()] == [form == "json"] * 2
        assert "hello bob" in path.read_text()

    def test_to_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a path it goes to standard output, which is neither reopened nor rotated."""
        logging = Logging(None, "text")
        observer = logging.observer()
        logging.reopen()
        logging.rotate()
        observer(event(words="hello"))
        assert capsys.readouterr().out.endswith(" info said hello\n")
        assert not sys.stdout.closed

    def test_reopening_and_rotating(self, tmp_path: Path) -> None:
        """The observer goes on in the new file after both."""
        path = tmp_path / "chat.log"
        logging = Logging(str(path), "text")
        observer = logging.observer()
        observer(event(words="one"))
        logging.rotate()
        observer(event(words="two"))
        path.rename(tmp_path / "moved")
        logging.reopen()
        observer(event(words="three"))
        assert [len(log.read_text().splitlines()) for log in tmp_path.iterdir()] == [1, 1, 1]
        assert path.read_text().endswith("said three\n")

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        """A file that cannot be written is an error that names the setting and the reason."""
        with pytest.raises(StartError, match=r"^--logfile .*: Is a directory$"):
            Logging(str(tmp_path), "text")
