"""The server's log file and its two forms: text for people, JSON for machines.

Twisted's own file observer would do, were it not that it writes what it is given: an escape
sequence in a traceback would reach the operator's terminal. Here every control character is
written as an escape, and one event is one line (a traceback, in text, has its own).
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import FileIO
from typing import Final, TextIO

from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from chatproto.errors import StartError

_ESCAPES: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A
} | {
    code: f"\\u{code:04x}"
    for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}

Form = Callable[[LogEvent], str]
"""Turns an event into what is written, with its line end."""


def as_text(event: LogEvent) -> str:
    """Return the time, the level and what happened; a traceback follows on lines of its own."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(event.get("log_time")))
    level = event.get("log_level", LogLevel.info).name
    words = formatEvent(event).translate(_ESCAPES).replace("\n", "\\n")
    trace = _traceback(event).translate(_ESCAPES)
    more = "".join(f"    {line}\n" for line in trace.splitlines())
    return f"{when} {level} {words}\n{more}"


def as_json(event: LogEvent) -> str:
    """Return one object: time (RFC 3339, UTC), level, message, and what the event is about."""
    fields: dict[str, object] = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(),
        "level": event.get("log_level", LogLevel.info).name,
        "message": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and isinstance(value, str | int | float):
            fields.setdefault(name, value)
    trace = _traceback(event)
    if trace:
        fields["traceback"] = trace
    return json.dumps(fields) + "\n"  # ASCII only: every control character is escaped


FORMS: Final[dict[str, Form]] = {"text": as_text, "json": as_json}


class LogFile:
    """A log file that can be moved away, truncated or compressed under the running server.

    It is opened for appending, so that what an operator cuts off stays cut off.
    """

    def __init__(self, path: str, owner: tuple[int, int] = (-1, -1)) -> None:
        """Open `path` (made absolute: daemons change their folder) at its end.

        `owner` is the user and group that the process is going to be, -1 for what it is.
        """
        self.path = os.path.abspath(path)
        self._file = self._open()
        self._cut_short = False
        if owner != (-1, -1):
            os.fchown(self._file.fileno(), *owner)

    def write(self, text: str) -> None:
        """Append `text`, on a line of its own even after a full disk has cut one short."""
        data = text.encode(errors="backslashreplace")
        if self._cut_short:
            data = b"\n" + data
        self._cut_short = self._file.write(data) != len(data)

    def reopen(self) -> None:
        """Go on in a new file of the same name; in the old one if that cannot be opened."""
        new = self._open()
        self._file.close()
        self._file = new
        self._cut_short = False

    def rotate(self) -> None:
        """Put the file aside under the time of day, and go on in a new one."""
        aside = f"{self.path}.{time.strftime('%Y%m%d-%H%M%S')}"
        if os.path.exists(self.path) and not os.path.exists(aside):
            os.rename(self.path, aside)
        self.reopen()

    def flush(self) -> None:
        """Nothing is ever held back."""

    def _open(self) -> FileIO:
        return FileIO(self.path, "a")


@implementer(ILogObserver)
class Observer:
    """Writes events to a file in one form; keeps quiet when the file cannot take them."""

    def __init__(self, out: TextIO | LogFile, form: Form) -> None:
        """Write what `form` makes of the events to `out`."""
        self.out = out
        self._form = form

    def __call__(self, event: LogEvent) -> None:
        """Write `event`."""
        line = self._form(event)
        try:
            self.out.write(line)
            self.out.flush()
        except (OSError, ValueError):
            # A full disk or a closed pipe: there is no one to tell, and the chat goes on. The
            # next event is tried again.
            return


class Logging:
    """The log of one process: where it goes, and how it is reopened."""

    def __init__(self, path: str | None, form: str, owner: tuple[int, int] = (-1, -1)) -> None:
        """Write to the file at `path`, or to standard output; `form` is a key of `FORMS`.

        `owner` is for `LogFile`.

        Raises `StartError` when the file cannot be opened.
        """
        try:
            self.file = LogFile(path, owner) if path else None
        except OSError as error:
            raise StartError(f"--logfile {path}: {error.strerror}") from None
        self._form = FORMS[form]

    def observer(self) -> ILogObserver:
        """Return the observer, which leaves out what only developers want to know."""
        level = LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)
        return FilteringLogObserver(Observer(self.file or sys.stdout, self._form), [level])

    def reopen(self) -> None:
        """Go on in a new file of the same name."""
        if self.file is not None:
            self.file.reopen()

    def rotate(self) -> None:
        """Put the log file aside and go on in a new one."""
        if self.file is not None:
            self.file.rotate()


def _traceback(event: LogEvent) -> str:
    failure: Failure | None = event.get("log_failure")
    return failure.getTraceback() if failure is not None else ""
