"""One server as a child process: started in a temporary folder, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

from benchmarks import BenchmarkError
from benchmarks.contenders import Contender
from benchmarks.disk import folder_on_disk
from benchmarks.measure import Cores, cpu_seconds, open_files, pinned, rss_bytes, waited_seconds

_START_SECONDS = 30.0
_END_SECONDS = 10.0
_TAIL_LINES = 15

_Answer = TypeVar("_Answer", int, float)


class RunningServer:
    """A context manager: inside it the server listens on `port` of 127.0.0.1.

    Leaving it ends the process and removes its folder. A server that ended by itself, or that
    wrote a traceback, makes the run a failure. Afterwards `stored` says how many lines its store
    held.
    """

    def __init__(self, contender: Contender, cores: Cores) -> None:
        self.contender = contender
        self.port = 0
        self.started_in = 0.0
        """Seconds from starting the process until it said where it listens."""
        self.stored: int | None = None

        self._cores = cores
        place = folder_on_disk() if contender.stores else None
        self._temporary = tempfile.TemporaryDirectory(prefix="benchmark-", dir=place)
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    @property
    def folder(self) -> Path:
        """Where the server runs, and where its certificate is."""
        return Path(self._temporary.name)

    @property
    def pid(self) -> int:
        """The process that is measured."""
        if self._process is None:
            raise BenchmarkError(f"{self.contender.name} is not running.")
        return self._process.pid

    def __enter__(self) -> RunningServer:
        try:
            self._start()
            self._wait_until_listening()
        except BaseException:
            self._end()
            self._temporary.cleanup()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._close(kind, error)
        finally:
            self._temporary.cleanup()

    def _close(self, kind: type[BaseException] | None, error: BaseException | None) -> None:
        """Ends the process and looks at what it leaves."""
        died = self._process is not None and self._process.poll() is not None
        output = self._end()
        if kind is None or isinstance(error, BenchmarkError):
            told = [str(error)] if error else []
            if died:
                told.append(f"{self.contender.name} ended by itself.")
            elif "Traceback (most recent call last)" in output:
                told.append(f"{self.contender.name} wrote a traceback.")
            if told:
                raise BenchmarkError(" ".join(told) + _tail(output)) from None
            if self.contender.stores:
                self.stored = self.contender.stored(self.folder)

    def cpu_seconds(self) -> float:
        """Processor time that the server has used up to now."""
        return self._ask(cpu_seconds)

    def waited_seconds(self) -> float:
        """Time that the server wanted its core while another program had it."""
        return self._ask(waited_seconds)

    def rss_bytes(self) -> int:
        """Memory that the server has in RAM now."""
        return self._ask(rss_bytes)

    def open_files(self) -> int:
        """File descriptors that the server has open now."""
        return self._ask(open_files)

    def wait_for_open_files(self, arrived: Callable[[int], bool], seconds: float) -> None:
        """Waits until the number of open files says that the server has seen all of us."""
        deadline = time.monotonic() + seconds
        while not arrived(self.open_files()):
            if time.monotonic() > deadline:
                raise BenchmarkError(
                    f"{self.contender.name} still has {self.open_files()} open files after "
                    f"{seconds:.0f} s: it has not accepted, or not closed, its connections."
                )
            time.sleep(0.005)

    def _ask(self, question: Callable[[int], _Answer]) -> _Answer:
        try:
            return question(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            raise BenchmarkError(f"{self.contender.name} is gone.") from None

    def _start(self) -> None:
        command = self.contender.command(self.folder)
        with pinned(self._cores.server), (self.folder / "output").open("wb") as output:
            self._started_at = time.monotonic()
            try:
                # In a session of its own: a Ctrl-C reaches us alone, and we end the server.
                self._process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env=self.contender.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchmarkError(f"{self.contender.name} cannot be started: {error}.") from None

    def _wait_until_listening(self) -> None:
        assert self._process is not None
        while time.monotonic() < self._started_at + _START_SECONDS:
            ended = self._process.poll()
            port = self.contender.port(self._output())
            if ended is not None:
                raise BenchmarkError(
                    f"{self.contender.name} ended with status {ended} instead of listening."
                    f"{_tail(self._output())}"
                )
            if port is not None:
                self.port = port
                self.started_in = time.monotonic() - self._started_at
                return
            time.sleep(0.002)
        raise BenchmarkError(
            f"{self.contender.name} did not say within {_START_SECONDS:.0f} s where it listens."
            f"{_tail(self._output())}"
        )

    def _output(self) -> str:
        try:
            return (self.folder / "output").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _end(self) -> str:
        """Ends the process, by force if need be, and returns all that it has printed."""
        process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # Also on a second Ctrl-C; a process that has ended takes it without harm.
                process.kill()
                process.wait(_END_SECONDS)
        return self._output()


def end_servers_on_signals() -> None:
    """Lets SIGTERM and Ctrl-C unwind the stack, so that the servers are ended on the way."""
    signal.signal(signal.SIGTERM, _end)
    # Also where a shell has started us in the background, with Ctrl-C switched off.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _tail(output: str) -> str:
    lines = output.rstrip().splitlines()[-_TAIL_LINES:]
    if not lines:
        return " It printed nothing."
    return os.linesep.join([" Its last words:", *(f"    {line}" for line in lines)])
