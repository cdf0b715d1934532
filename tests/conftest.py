"""What every test stands on: an error that is logged is an error of the test."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from chatproto.service import SWITCH


@pytest.fixture(autouse=True, scope="session")
def _threads_in_turn() -> None:
    """Let the store's thread have its turn beside a busy reactor, as the server does."""
    sys.setswitchinterval(SWITCH)


@pytest.fixture(autouse=True, scope="session")
def _frozen() -> None:
    """Leave what was imported out of every later collection, which makes those cheap."""
    gc.collect()
    gc.freeze()


class LoggedErrors(list[LogEvent]):
    """The errors logged during a test; a test that causes one on purpose takes it out."""

    def take(self, words: str) -> LogEvent:
        """Return and forget the first error with `words` in its text or traceback."""
        gc.collect()  # an unhandled error in a Deferred is logged when that is collected
        for event in self:
            if words in _text(event):
                self.remove(event)
                return event
        raise AssertionError(f"no error with {words!r} was logged, but {[*map(_text, self)]}")


def _text(event: LogEvent) -> str:
    failure = event.get("log_failure")
    return formatEvent(event) + (f"\n{failure.getTraceback()}" if failure else "")


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """Fail the test if it leaves an error in the log."""
    errors = LoggedErrors()

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            errors.append(event)

    globalLogPublisher.addObserver(cast(ILogObserver, observe))
    try:
        yield errors
        gc.collect()
    finally:
        globalLogPublisher.removeObserver(cast(ILogObserver, observe))
    assert not errors, "errors were logged:\n" + "\n".join(map(_text, errors))


@pytest.fixture(scope="session")
def in_a_fresh_python() -> Callable[[str], str]:
    """Give a function that runs code in a process of its own, and returns what that prints."""

    def run(code: str) -> str:
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert not result.stderr
        assert result.returncode == 0
        return result.stdout

    return run
